"""grpcio's own client of a guarded server, which knows nothing of us."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_servers import KEY, Served, plain_stub, serving, write_grpc_verifier
from sdk_worlds import in_thread
from users_service import generated

from servicelink.verify import Allowed

UNAUTHENTICATED = (grpc.StatusCode.UNAUTHENTICATED, "INVALID_SERVICE_AUTH")
DENIED = (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
WEB = Allowed("shop/web", "uid-1", KEY.kid)
Start = Callable[..., Awaitable[Served]]


@dataclass(slots=True)
class Client:
    """grpcio's own client of a server; the synchronous one, since grpc.aio's loses the status of streams that it sends.

    (github.com/grpc/grpc, issue 36066.)
    """

    channel: grpc.Channel

    async def call(self, method: str, *metadata: tuple[str, Any]) -> Any:
        """Call a method; answers what it answers, of streams a list. Raises grpc.RpcError."""
        return await in_thread(self._call, method, metadata)

    def _call(self, method: str, metadata: tuple[tuple[str, Any], ...]) -> Any:
        pb2, stub = generated()[0], plain_stub(self.channel)
        if method == "GetUser":
            return stub.GetUser(pb2.GetUserRequest(user_id="7"), metadata=metadata).user_id
        if method == "CreateUser":
            return stub.CreateUser(pb2.User(user_id="7"), metadata=metadata).user_id
        if method == "ListUsers":
            return [user.user_id for user in stub.ListUsers(pb2.ListUsersRequest(count=2), metadata=metadata)]
        if method == "AddUsers":
            return stub.AddUsers(iter([pb2.User(), pb2.User()]), metadata=metadata).count
        return [line.text for line in stub.Chat(iter([pb2.Line(text="a"), pb2.Line(text="b")]), metadata=metadata)]

    async def failure(self, method: str, *metadata: tuple[str, Any]) -> Any:
        """Call a method, and answer how it fails."""
        with pytest.raises(grpc.RpcError) as failed:
            await self.call(method, *metadata)
        return failed.value

    async def refusal(self, method: str, *metadata: tuple[str, Any]) -> tuple[grpc.StatusCode, str | None]:
        """Call a method, and answer how it is refused."""
        refused = await self.failure(method, *metadata)
        return refused.code(), dict(refused.trailing_metadata()).get("x-servicelink-code")


ANSWERS = {"GetUser": "7", "ListUsers": ["0", "1"], "AddUsers": 2, "Chat": ["A", "B"]}
AUTH = ("x-service-auth", KEY.text)
ClientOf = Callable[[Served], Client]


@asynccontextmanager
async def starting(kind: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """Answer what starts a server with a verifier: `await start(**options)`."""
    monkeypatch.setenv("SERVICELINK_VERIFIER_DIR", str(root))
    monkeypatch.delenv("INTERNAL_API_KEY", raising=False)
    write_grpc_verifier(root)
    async with AsyncExitStack() as stack:

        async def begin(**options: Any) -> Served:
            return await stack.enter_async_context(serving(kind, **options))

        yield begin


@contextmanager
def opening() -> Iterator[ClientOf]:
    """Answer what opens grpcio's own client of a server."""
    channels: list[grpc.Channel] = []

    def make(served: Served) -> Client:
        channels.append(grpc.insecure_channel(served.address))
        return Client(channels[-1])

    yield make
    for channel in channels:
        channel.close()
