"""The synchronous gRPC client."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

from servicelink.calls.drive import Driver
from servicelink.calls.flow import flow
from servicelink.grpc.ready import until_ready
from servicelink.grpc.schema import NamedMethod, Proto
from servicelink.grpc.surface import (
    GrpcCallOptions,
    GrpcMethods,
    GrpcOptions,
    only_stub,
    read_named,
    require_kind,
    require_one_way,
)
from servicelink.grpc.sync_calls import StreamCall
from servicelink.grpc.sync_channel import LinkChannel, begin_stream
from servicelink.grpc.sync_wire import SyncWire

Stub = TypeVar("Stub")
Fields = Mapping[str, Any]
Requests = Fields | Iterable[Fields]


class GrpcClient(GrpcMethods):
    """A client of one server, for the application's life; as `servicelink.GrpcClient`, without `await`.

    Thread-safe. Raises ValueError, and TypeError for asynchronous interceptors.
    """

    _is_asynchronous = False

    def _set_up(self, options: Sequence[tuple[str, Any]]) -> None:
        self._wire = SyncWire(options)
        self._driver = Driver(self._wire)

    @property
    def channel(self) -> LinkChannel:
        """A grpc.Channel over this link."""
        return LinkChannel(self._caller, self._wire, self._driver)

    def stub(self, stub: Callable[[Any], Stub]) -> Stub:
        """Answer a generated stub that calls over this link: `client.stub(UserServiceStub)`."""
        return stub(self.channel)

    def call(self, method: str, request: Requests | None = None, **options: Unpack[GrpcCallOptions]) -> dict[str, Any]:
        """Call a method by its name, with a dictionary; one that takes many messages with an iterable of them.

        Raises LinkNotFound, ServiceUnavailable, ServiceTimeout, CircuitOpen, RateLimited, InvalidServiceAuth,
        PermissionDenied, RemoteError, and ServiceError for a call that must not be sent.
        """
        named = self._known().method(method)
        require_kind(named, streams_out=False)
        message, said = read_named(named.method, _given(named, request), options)
        answer: dict[str, Any] = self._driver.run(flow(self._caller.line, self._caller.exchange(message, said)))
        return answer

    def stream(
        self, method: str, request: Requests | None = None, **options: Unpack[GrpcCallOptions]
    ) -> StreamCall[dict[str, Any]]:
        """Call a method that answers many: `for user in users.stream("listUsers", {"page": 1})`; as `call`.

        In `with` it is cancelled at the end.
        """
        named = self._known().method(method)
        require_kind(named, streams_out=True)
        return begin_stream(self._caller, self._driver, *read_named(named.method, _given(named, request), options))

    def wait_until_ready(self, seconds: float = 30.0) -> None:
        """Wait until the link is there and its server answers; where it tells its health, until it serves.

        The circuit is closed then. Raises what went wrong last: LinkNotFound, ServiceUnavailable, InvalidServiceAuth,
        RemoteError.
        """
        self._driver.run(until_ready(self._caller.line, seconds))

    def close(self) -> None:
        """Close all connections; calls still under way fail."""
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _given(named: NamedMethod, request: Any) -> Any:
    return _parsed(named, named.many(request)) if named.method.kind.streams_in else named.parse(request or {})


def _parsed(named: NamedMethod, requests: Any) -> Iterator[Any]:
    for request in requests:
        yield named.parse(request)


@overload
def connect_grpc(name: str, *, stub: Callable[[Any], Stub], **options: Unpack[GrpcOptions]) -> Stub: ...


@overload
def connect_grpc(
    name: str, *, proto: Proto | None = None, package: str = "", service: str = "", **options: Unpack[GrpcOptions]
) -> GrpcClient: ...


def connect_grpc(
    name: str,
    *,
    stub: Callable[[Any], Stub] | None = None,
    proto: Proto | None = None,
    package: str = "",
    service: str = "",
    **options: Unpack[GrpcOptions],
) -> Stub | GrpcClient:
    """Answer a generated stub over the link of that name, or with `proto` a client that calls by name; does no I/O.

    As `servicelink.connect_grpc`, without `await`. Raises ValueError.

        users = servicelink.sync.connect_grpc("users", stub=UserServiceStub)
        user = users.GetUser(GetUserRequest(user_id="123"))
    """
    require_one_way(stub, proto, package, service)
    client = GrpcClient(service_name=name, proto=proto, package=package, service=service, **options)
    return client if stub is None else only_stub(client, stub)


def grpc_channel(name: str, **options: Unpack[GrpcOptions]) -> LinkChannel:
    """Answer a grpc.Channel over the link of that name, for code that makes its own stubs; does no I/O.

    As `servicelink.grpc_channel`, without `await`. Raises ValueError.

        with servicelink.sync.grpc_channel("users") as channel:
            user = UserServiceStub(channel).GetUser(GetUserRequest(user_id="123"))
    """
    return GrpcClient(service_name=name, **options).channel
