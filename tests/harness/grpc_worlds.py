"""gRPC clients of both worlds behind one face, and a server of the test's own loop."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from sdk_worlds import Hands, in_thread
from users_service import Users, add_to, generated

from servicelink.calls.drive import AsyncDriver, Driver
from servicelink.grpc import client as asynchronous
from servicelink.grpc import sync_client as synchronous


class GrpcCaller:
    """An asynchronous client of the users' service."""

    def __init__(self, client: Any, hands: Hands | None = None) -> None:
        self.client = client
        self.stub = client.stub(generated()[1].UserServiceStub)
        if hands is not None:
            client._caller.line.clock = hands.clock  # noqa: SLF001 - time is the test's
            client._driver = self._driver(hands)  # noqa: SLF001 - as above
            self.stub = client.stub(generated()[1].UserServiceStub)

    def _driver(self, hands: Hands) -> Any:
        return AsyncDriver(self.client._wire, hands.async_sleep)  # noqa: SLF001 - as above

    def with_options(self, **options: Any) -> "GrpcCaller":
        """Answer a caller with other options."""
        return type(self)(self.client.with_options(**options))

    async def get(self, user_id: str = "1", **options: Any) -> Any:
        """Answer a user."""
        return await self.stub.GetUser(generated()[0].GetUserRequest(user_id=user_id), **options)

    async def create(self, user_id: str = "1", **options: Any) -> Any:
        """Create a user: a method that must not be repeated."""
        return await self.stub.CreateUser(generated()[0].User(user_id=user_id), **options)

    async def list(self, count: int, **options: Any) -> list[str]:
        """Answer the IDs of so many users, by a stream of answers."""
        request = generated()[0].ListUsersRequest(count=count)
        return [user.user_id async for user in self.stub.ListUsers(request, **options)]

    async def add(self, users: Iterable[Any], **options: Any) -> int:
        """Send users by a stream of requests; answers how many arrived."""
        return int((await self.stub.AddUsers(iter(users), **options)).count)

    async def chat(self, lines: Sequence[str], **options: Any) -> Sequence[str]:
        """Send lines, and answer what came back."""
        requests = (generated()[0].Line(text=line) for line in lines)
        return [line.text async for line in self.stub.Chat(requests, **options)]

    async def call(self, method: str, request: Any = None, **options: Any) -> Any:
        """Call by name."""
        return await self.client.call(method, request, **options)

    async def stream(self, method: str, request: Any = None, **options: Any) -> Any:
        """Call by name, and answer all that came."""
        return [one async for one in self.client.stream(method, request, **options)]

    async def mistake(self, method: Any, request: Any) -> None:
        """Call a method of the stub with what is no request, and read the answer."""
        call = method(request)
        await (call.read() if hasattr(call, "read") else call)

    async def open_list(self, count: int, **options: Any) -> "Reader":
        """Begin a stream of answers."""
        return Reader(self.stub.ListUsers(generated()[0].ListUsersRequest(count=count), **options))

    async def wait_until_ready(self, seconds: float) -> None:
        """Wait for the server."""
        await self.client.wait_until_ready(seconds)

    async def close(self) -> None:
        """Close the client."""
        await self.client.aclose()


@dataclass(slots=True)
class Reader:
    """A stream of answers of an asynchronous client."""

    call: Any

    async def next(self) -> str | None:
        """Answer the next ID, None after the last one."""
        user = await self.call.read()
        return None if user is grpc.aio.EOF else user.user_id

    async def code(self) -> grpc.StatusCode:
        """Answer the status at the end."""
        code: grpc.StatusCode = await self.call.code()
        return code


class SyncReader(Reader):
    """A stream of answers of a synchronous client."""

    async def next(self) -> str | None:
        """Answer the next ID, None after the last one."""
        user = await in_thread(next, self.call, None)
        return None if user is None else user.user_id

    async def code(self) -> grpc.StatusCode:
        """Answer the status at the end."""
        code: grpc.StatusCode = await in_thread(self.call.code)
        return code


class SyncGrpcCaller(GrpcCaller):
    """A synchronous client, in threads."""

    def _driver(self, hands: Hands) -> Any:
        return Driver(self.client._wire, hands.sleep)  # noqa: SLF001 - time is the test's

    async def get(self, user_id: str = "1", **options: Any) -> Any:
        """Answer a user."""
        return await in_thread(self.stub.GetUser, generated()[0].GetUserRequest(user_id=user_id), **options)

    async def create(self, user_id: str = "1", **options: Any) -> Any:
        """Create a user."""
        return await in_thread(self.stub.CreateUser, generated()[0].User(user_id=user_id), **options)

    async def list(self, count: int, **options: Any) -> list[str]:
        """Answer the IDs of so many users."""
        request = generated()[0].ListUsersRequest(count=count)
        return await in_thread(lambda: [user.user_id for user in self.stub.ListUsers(request, **options)])

    async def add(self, users: Iterable[Any], **options: Any) -> int:
        """Send users; answers how many arrived."""
        return int((await in_thread(self.stub.AddUsers, iter(users), **options)).count)

    async def chat(self, lines: Sequence[str], **options: Any) -> Sequence[str]:
        """Send lines, and answer what came back."""
        requests = (generated()[0].Line(text=line) for line in lines)
        return await in_thread(lambda: [line.text for line in self.stub.Chat(requests, **options)])

    async def call(self, method: str, request: Any = None, **options: Any) -> Any:
        """Call by name."""
        return await in_thread(self.client.call, method, request, **options)

    async def stream(self, method: str, request: Any = None, **options: Any) -> Any:
        """Call by name, and answer all that came."""
        return await in_thread(lambda: list(self.client.stream(method, request, **options)))

    async def mistake(self, method: Any, request: Any) -> None:
        """Call a method of the stub with what is no request, and read the answer."""
        await in_thread(lambda: next(iter(method(request))))

    async def open_list(self, count: int, **options: Any) -> Reader:
        """Begin a stream of answers."""
        return SyncReader(self.stub.ListUsers(generated()[0].ListUsersRequest(count=count), **options))

    async def wait_until_ready(self, seconds: float) -> None:
        """Wait for the server."""
        await in_thread(self.client.wait_until_ready, seconds)

    async def close(self) -> None:
        """Close the client."""
        await in_thread(self.client.close)


def open_grpc(world: str, hands: Hands | None = None, **options: Any) -> GrpcCaller:
    """Answer a client of a world; options as `GrpcClient`."""
    if world == "asynchronous":
        return GrpcCaller(asynchronous.GrpcClient(**options), hands)
    return SyncGrpcCaller(synchronous.GrpcClient(**options), hands)


@dataclass(slots=True)
class GrpcStage:
    """A plain server of grpc.aio on loopback, without anything of ours."""

    server: grpc.aio.Server
    users: Users
    address: str

    async def stop(self) -> None:
        """Stop at once."""
        await self.server.stop(None)


Configure = Callable[[grpc.aio.Server], None]


@asynccontextmanager
async def serving_users(
    users: Users | None = None,
    credentials: grpc.ServerCredentials | None = None,
    *,
    port: int = 0,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    options: Sequence[tuple[str, Any]] = (),
    configure: Configure | None = None,
) -> AsyncIterator[GrpcStage]:
    """Serve the users' service."""
    found = users or Users()
    server = grpc.aio.server(interceptors=interceptors, options=[("grpc.so_reuseport", 0), *options])
    add_to(server, found)
    if configure is not None:
        configure(server)
    place = f"127.0.0.1:{port}"
    bound = server.add_insecure_port(place) if credentials is None else server.add_secure_port(place, credentials)
    await server.start()
    try:
        # By its name where a certificate has to say it.
        yield GrpcStage(server, found, f"127.0.0.1:{bound}" if credentials is None else f"grpcs://localhost:{bound}")
    finally:
        await server.stop(None)
