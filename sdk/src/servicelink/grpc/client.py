"""The asynchronous gRPC client."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

import grpc.aio

from servicelink.calls.drive import AsyncDriver
from servicelink.grpc.aio_channel import LinkChannel, begin_call
from servicelink.grpc.aio_wire import AioWire
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

Stub = TypeVar("Stub")
Fields = Mapping[str, Any]
Requests = Fields | AsyncIterable[Fields] | Iterable[Fields]


class GrpcClient(GrpcMethods):
    """A client of one server, for the application's life: `connect_grpc(name)`, or with an explicit address.

    `service_name` names a link or its server; it is looked for on the first call. With `address` (`host:port`, or with
    grpc:// or grpcs://) nothing is looked for, and a credential is sent only if given as `api_key`, or with
    `shared_key=True` from INTERNAL_API_KEY. With `proto` (a .proto file, a descriptor set's file, or its bytes) its
    methods are called by name. The other options are those of `connect_grpc`. It may be made outside of any event loop
    and serves any. Raises ValueError.

        async with GrpcClient(service_name="users", address="localhost:50051") as client:
            user = await client.stub(UserServiceStub).GetUser(GetUserRequest(user_id="123"))
    """

    _is_asynchronous = True

    def _set_up(self, options: Sequence[tuple[str, Any]]) -> None:
        self._wire = AioWire(options)
        self._driver = AsyncDriver(self._wire)

    @property
    def channel(self) -> LinkChannel:
        """A grpc.aio.Channel over this link."""
        return LinkChannel(self._caller, self._wire, self._driver)

    def stub(self, stub: Callable[[Any], Stub]) -> Stub:
        """Answer a generated stub that calls over this link: `client.stub(UserServiceStub)`."""
        return stub(self.channel)

    async def call(
        self, method: str, request: Requests | None = None, **options: Unpack[GrpcCallOptions]
    ) -> dict[str, Any]:
        """Call a method by its name, with a dictionary; one that takes many messages with an iterable of them.

        Raises LinkNotFound, ServiceUnavailable, ServiceTimeout, CircuitOpen, RateLimited, InvalidServiceAuth,
        PermissionDenied, RemoteError, and ServiceError for a call that must not be sent.

            user = await users.call("getUser", {"user_id": "123"})
        """
        named = await self._find(method)
        require_kind(named, streams_out=False)
        answer: dict[str, Any] = await self._begin(named, request, options)
        return answer

    def stream(
        self, method: str, request: Requests | None = None, **options: Unpack[GrpcCallOptions]
    ) -> "DictionaryStream":
        """Call a method that answers many: `async for user in users.stream("listUsers", {"page": 1})`; as `call`.

        In `async with` it is cancelled at the end.
        """
        return DictionaryStream(self, method, request, options)

    async def wait_until_ready(self, seconds: float = 30.0) -> None:
        """Wait until the link is there and its server answers; where it tells its health, until it serves.

        The circuit is closed then. Raises what went wrong last: LinkNotFound, ServiceUnavailable, InvalidServiceAuth,
        RemoteError.
        """
        await self._driver.run(until_ready(self._caller.line, seconds))

    async def aclose(self) -> None:
        """Close the connections of this event loop; calls still under way fail."""
        await self._wire.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _find(self, method: str) -> NamedMethod:
        schema = self._known()
        if not schema.is_read:
            # A compiler takes its time.
            await asyncio.to_thread(schema.read)
        return schema.method(method)

    def _begin(self, named: NamedMethod, request: Any, options: GrpcCallOptions) -> Any:
        given = _parsed(named, named.many(request)) if named.method.kind.streams_in else named.parse(request or {})
        return begin_call(self._caller, self._driver, *read_named(named.method, given, options))


class DictionaryStream:
    """The answers of a call by name, as they come."""

    def __init__(self, client: GrpcClient, method: str, request: Requests | None, options: GrpcCallOptions) -> None:
        self._client = client
        self._asked = method, request, options
        self._call: Any = None

    def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        return self

    async def __anext__(self) -> dict[str, Any]:
        message = await (await self._begun()).read()
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        answer: dict[str, Any] = message
        return answer

    def cancel(self) -> bool:
        """Cancel it; answers whether there was anything left to cancel."""
        return self._call is not None and bool(self._call.cancel())

    async def __aenter__(self) -> Self:
        await self._begun()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._call.__aexit__(kind, error, trace)

    async def _begun(self) -> Any:
        if self._call is None:
            method, request, options = self._asked
            named = await self._client._find(method)  # noqa: SLF001 - its other half
            require_kind(named, streams_out=True)
            self._call = self._client._begin(named, request, options)  # noqa: SLF001 - as above
        return self._call


async def _parsed(named: NamedMethod, requests: Any) -> AsyncIterator[Any]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield named.parse(request)
    else:
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

    `name` is the link's, or its server's. Options are told in docs/sdk/grpc.md. Raises ValueError.

        users = servicelink.connect_grpc("users", stub=UserServiceStub)
        user = await users.GetUser(GetUserRequest(user_id="123"))

        users = servicelink.connect_grpc("users", proto="users.proto", package="shop.v1", service="UserService")
        user = await users.call("getUser", {"user_id": "123"})
    """
    require_one_way(stub, proto, package, service)
    client = GrpcClient(service_name=name, proto=proto, package=package, service=service, **options)
    return client if stub is None else only_stub(client, stub)


def grpc_channel(name: str, **options: Unpack[GrpcOptions]) -> LinkChannel:
    """Answer a grpc.aio.Channel over the link of that name, for code that makes its own stubs; does no I/O.

    Its calls raise ServiceErrors, and connections come and go beneath it. Options as `connect_grpc`. Raises ValueError.

        async with servicelink.grpc_channel("users") as channel:
            user = await UserServiceStub(channel).GetUser(GetUserRequest(user_id="123"))
    """
    return GrpcClient(service_name=name, **options).channel
