"""The same for synchronous programs: `from servicelink import sync` and `sync.connect("payments")`.

    with sync.connect("payments") as payments:
        charge = payments.post("/v1/charges", json={"amount": 100}).json()

A client may be used by several threads, and made before a fork. `sync.LinkMiddleware` is the middleware for WSGI.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from servicelink.graphql.sync_client import GraphQLClient, connect_graphql
    from servicelink.grpc.sync_client import GrpcClient, connect_grpc, grpc_channel
    from servicelink.grpc.sync_interceptor import LinkInterceptor
    from servicelink.grpc.sync_server import GrpcServer, grpc_server
    from servicelink.grpc.testing import create_sync_mock_grpc_client as create_mock_grpc_client
    from servicelink.rest.sync_client import ServiceClient, connect, httpx_transport
    from servicelink.testing import create_sync_mock_graphql_client as create_mock_graphql_client
    from servicelink.testing import create_sync_mock_service_client as create_mock_service_client
    from servicelink.wsgi import LinkMiddleware

__all__ = [
    "GraphQLClient",
    "GrpcClient",
    "GrpcServer",
    "LinkInterceptor",
    "LinkMiddleware",
    "ServiceClient",
    "connect",
    "connect_graphql",
    "connect_grpc",
    "create_mock_graphql_client",
    "create_mock_grpc_client",
    "create_mock_service_client",
    "grpc_channel",
    "grpc_server",
    "httpx_transport",
]

_HOME = {
    "GraphQLClient": ("servicelink.graphql.sync_client", "GraphQLClient"),
    "connect_graphql": ("servicelink.graphql.sync_client", "connect_graphql"),
    "LinkMiddleware": ("servicelink.wsgi", "LinkMiddleware"),
    "GrpcClient": ("servicelink.grpc.sync_client", "GrpcClient"),
    "GrpcServer": ("servicelink.grpc.sync_server", "GrpcServer"),
    "grpc_server": ("servicelink.grpc.sync_server", "grpc_server"),
    "LinkInterceptor": ("servicelink.grpc.sync_interceptor", "LinkInterceptor"),
    "connect_grpc": ("servicelink.grpc.sync_client", "connect_grpc"),
    "grpc_channel": ("servicelink.grpc.sync_client", "grpc_channel"),
    "httpx_transport": ("servicelink.rest.sync_client", "httpx_transport"),
    "ServiceClient": ("servicelink.rest.sync_client", "ServiceClient"),
    "connect": ("servicelink.rest.sync_client", "connect"),
    "create_mock_graphql_client": ("servicelink.testing", "create_sync_mock_graphql_client"),
    "create_mock_grpc_client": ("servicelink.grpc.testing", "create_sync_mock_grpc_client"),
    "create_mock_service_client": ("servicelink.testing", "create_sync_mock_service_client"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOME[name]
    try:
        found = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        import_module("servicelink.extras").explain_missing(f"servicelink.sync.{name}", error)
        raise
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    is_usable = import_module("servicelink.extras").is_usable
    return sorted({*globals(), *(name for name in __all__ if is_usable(_HOME[name][0]))})
