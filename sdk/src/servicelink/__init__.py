"""For applications on both ends of a link: `connect(name)` to call a server, `LinkMiddleware` to be one.

Names are loaded when they are first used (PEP 562), so that `import servicelink` costs a command line nothing.
May import the contract; never the core or the operator.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from servicelink.asgi import LinkMiddleware
    from servicelink.calls.breaker import CircuitBreaker, CircuitChange, CircuitState
    from servicelink.calls.call import AsyncInterceptor, Call, Interceptor, Outcome, Result
    from servicelink.calls.limits import RateLimit
    from servicelink.context import carry, current_correlation_id, current_link, current_request_id
    from servicelink.counts import Counted, Counts
    from servicelink.errors import (
        CircuitOpen,
        GraphQLError,
        InvalidServiceAuth,
        LinkConfigurationError,
        LinkNotFound,
        PermissionDenied,
        RateLimited,
        RemoteError,
        ServiceError,
        ServiceTimeout,
        ServiceUnavailable,
    )
    from servicelink.graphql.client import GraphQLClient, connect_graphql
    from servicelink.graphql.exchange import GraphQLAnswer
    from servicelink.graphql.operation import GraphQLOperation
    from servicelink.graphql.surface import BatchOptions, GraphQLOptions
    from servicelink.grpc.aio_interceptor import LinkInterceptor
    from servicelink.grpc.aio_server import GrpcServer, grpc_server
    from servicelink.grpc.client import GrpcClient, connect_grpc, grpc_channel
    from servicelink.grpc.server_credentials import grpc_server_credentials
    from servicelink.grpc.server_parts import GrpcServerOptions
    from servicelink.grpc.surface import GrpcCallOptions, GrpcOptions
    from servicelink.grpc.testing import create_mock_grpc_client
    from servicelink.measures import CallCount, CallRow, Measured, MetricsSink, PrometheusCollector, metrics
    from servicelink.protocols import ProtocolChoice, choose_protocol
    from servicelink.rest.client import ServiceClient, connect, httpx_transport
    from servicelink.rest.surface import RequestOptions
    from servicelink.rest.tls import ssl_context
    from servicelink.settings import ClientOptions
    from servicelink.testing import create_mock_graphql_client, create_mock_service_client
    from servicelink.uvicorn_server import uvicorn_config
    from servicelink.verify import Allowed
    from servicelink_contract.rules import Protocol

__all__ = [
    "Allowed",
    "AsyncInterceptor",
    "BatchOptions",
    "Call",
    "CallCount",
    "CallRow",
    "CircuitBreaker",
    "CircuitChange",
    "CircuitOpen",
    "CircuitState",
    "ClientOptions",
    "Counted",
    "Counts",
    "GraphQLAnswer",
    "GraphQLClient",
    "GraphQLError",
    "GraphQLOperation",
    "GraphQLOptions",
    "GrpcCallOptions",
    "GrpcClient",
    "GrpcOptions",
    "GrpcServer",
    "GrpcServerOptions",
    "Interceptor",
    "InvalidServiceAuth",
    "LinkConfigurationError",
    "LinkInterceptor",
    "LinkMiddleware",
    "LinkNotFound",
    "Measured",
    "MetricsSink",
    "Outcome",
    "PermissionDenied",
    "PrometheusCollector",
    "Protocol",
    "ProtocolChoice",
    "RateLimit",
    "RateLimited",
    "RemoteError",
    "RequestOptions",
    "Result",
    "ServiceClient",
    "ServiceError",
    "ServiceTimeout",
    "ServiceUnavailable",
    "carry",
    "choose_protocol",
    "connect",
    "connect_graphql",
    "connect_grpc",
    "create_mock_graphql_client",
    "create_mock_grpc_client",
    "create_mock_service_client",
    "current_correlation_id",
    "current_link",
    "current_request_id",
    "grpc_channel",
    "grpc_server",
    "grpc_server_credentials",
    "httpx_transport",
    "metrics",
    "ssl_context",
    "uvicorn_config",
]

_HOMES = {
    "servicelink.asgi": ("LinkMiddleware",),
    "servicelink.calls.breaker": (
        "CircuitBreaker",
        "CircuitChange",
        "CircuitState",
    ),
    "servicelink.calls.call": (
        "AsyncInterceptor",
        "Call",
        "Interceptor",
        "Outcome",
        "Result",
    ),
    "servicelink.calls.limits": ("RateLimit",),
    "servicelink.context": (
        "carry",
        "current_correlation_id",
        "current_link",
        "current_request_id",
    ),
    "servicelink.counts": (
        "Counted",
        "Counts",
    ),
    "servicelink.errors": (
        "CircuitOpen",
        "GraphQLError",
        "InvalidServiceAuth",
        "LinkConfigurationError",
        "LinkNotFound",
        "PermissionDenied",
        "RateLimited",
        "RemoteError",
        "ServiceError",
        "ServiceTimeout",
        "ServiceUnavailable",
    ),
    "servicelink.graphql.client": ("GraphQLClient", "connect_graphql"),
    "servicelink.graphql.exchange": ("GraphQLAnswer",),
    "servicelink.graphql.operation": ("GraphQLOperation",),
    "servicelink.graphql.surface": ("BatchOptions", "GraphQLOptions"),
    "servicelink.grpc.aio_interceptor": ("LinkInterceptor",),
    "servicelink.grpc.aio_server": ("GrpcServer", "grpc_server"),
    "servicelink.grpc.client": (
        "GrpcClient",
        "connect_grpc",
        "grpc_channel",
    ),
    "servicelink.grpc.server_parts": ("GrpcServerOptions",),
    "servicelink.grpc.surface": ("GrpcCallOptions", "GrpcOptions"),
    "servicelink.grpc.server_credentials": ("grpc_server_credentials",),
    "servicelink.grpc.testing": ("create_mock_grpc_client",),
    "servicelink.measures": (
        "CallCount",
        "CallRow",
        "Measured",
        "MetricsSink",
        "PrometheusCollector",
        "metrics",
    ),
    "servicelink.protocols": ("ProtocolChoice", "choose_protocol"),
    "servicelink.rest.client": ("ServiceClient", "connect", "httpx_transport"),
    "servicelink.rest.surface": ("RequestOptions",),
    "servicelink.rest.tls": ("ssl_context",),
    "servicelink.settings": ("ClientOptions",),
    "servicelink.testing": ("create_mock_graphql_client", "create_mock_service_client"),
    "servicelink.uvicorn_server": ("uvicorn_config",),
    "servicelink.verify": ("Allowed",),
    "servicelink_contract.rules": ("Protocol",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        found = getattr(import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        import_module("servicelink.extras").explain_missing(f"servicelink.{name}", error)
        raise
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    # Whoever looks at all names, as help() does, must not fail by those whose libraries are not there.
    is_usable = import_module("servicelink.extras").is_usable
    return sorted({*globals(), *(name for name in __all__ if is_usable(_HOME[name]))})
