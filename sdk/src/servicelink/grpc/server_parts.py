"""What servers of both worlds are made of: where they listen, how they behave, what they tell of their services."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypedDict

import grpc
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

from servicelink.calls.limits import RateLimit

# `add_UserServiceServicer_to_server`, as generated, and what serves it.
Servicers = Mapping[Callable[[Any, Any], Any], Any]
PORT = 50051
# Seconds that calls under way have at the end, well within a Pod's 30.
GRACE = 10.0
_OPTIONS: tuple[tuple[str, Any], ...] = (
    # Two servers on one port would share its calls, and nobody would know why half of them fail.
    ("grpc.so_reuseport", 0),
    # Milliseconds: no client keeps a connection for ever. Calls under way end as they would have.
    ("grpc.max_connection_age_ms", 300_000),
)


class GrpcServerOptions(TypedDict, total=False):
    """What `grpc_server` takes beside its servicers.

    `port` (50051; 0 is any that is free) and `host` ("[::]", all addresses) say where it listens, `credentials` its
    TLS: see `grpc_server_credentials`. `service`, `exempt` and `rate_limit` are those of `LinkInterceptor`;
    `interceptors` stand behind it. `reflection` has it tell its methods to whoever may ask. `options` go to grpcio,
    over ours.
    """

    port: int
    host: str
    credentials: grpc.ServerCredentials | None
    service: str | None
    exempt: Iterable[str]
    rate_limit: RateLimit | None
    interceptors: Sequence[Any]
    reflection: bool
    options: Sequence[tuple[str, Any]]


def server_options(more: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Answer the options of our servers, with an application's own over them."""
    own = {key for key, _ in more}
    return [*(pair for pair in _OPTIONS if pair[0] not in own), *more]


class _Registrar:
    """Takes a server's place while servicers are added, and notes the names of their services."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.names: list[str] = []

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Hand them on."""
        given = tuple(handlers)
        self.names += [name for one in given if (name := _name_of(one)) is not None]
        self._server.add_generic_rpc_handlers(given)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Hand them on."""
        self._server.add_registered_method_handlers(service, handlers)


def _name_of(handler: Any) -> str | None:
    return handler.service_name() if isinstance(handler, grpc.ServiceRpcHandler) else None


def add_servicers(server: Any, servicers: Servicers, *, reflects: bool) -> list[str]:
    """Add servicers to a server of either world, and reflection; answers the names of their services."""
    registrar = _Registrar(server)
    for add, servicer in servicers.items():
        add(servicer, registrar)
    if reflects:
        reflection.enable_server_reflection([*registrar.names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    return registrar.names


def listen(server: Any, options: GrpcServerOptions) -> int:
    """Open the port; answers its number. Raises RuntimeError where it is taken."""
    place = f"{options.get('host', '[::]')}:{options.get('port', PORT)}"
    credentials = options.get("credentials")
    port: int = server.add_insecure_port(place) if credentials is None else server.add_secure_port(place, credentials)
    return port
