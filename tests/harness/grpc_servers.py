"""gRPC servers of both worlds with our interceptor, and servicers that tell what reaches them."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from sdk_servers import SINCE, make_key, write_verifier
from sdk_worlds import in_thread
from users_service import FULL_NAME, generated

import servicelink
from servicelink import context, sync
from servicelink.context import Incoming
from servicelink.verify import Allowed
from servicelink_contract.key import ApiKey
from servicelink_contract.rules import GrpcRule, Protocol
from servicelink_contract.verifier import KeyEntry, LinkEntry, Mode, Verifier

ADD = generated()[1].add_UserServiceServicer_to_server
KEY, OTHER_KEY = make_key(1), make_key(2)
READS = GrpcRule(FULL_NAME, frozenset({"GetUser", "ListUsers", "AddUsers", "Chat"}))


def key_entry(key: ApiKey) -> KeyEntry:
    """Answer what a verifier says of a key."""
    return KeyEntry(key.kid, key.sha256, SINCE)


LINK = LinkEntry("shop/web", "uid-1", 50051, Protocol.GRPC, (key_entry(KEY),), allow=(READS,))
REST_LINK = LinkEntry("shop/rest", "uid-2", 50051, Protocol.REST, (key_entry(OTHER_KEY),))
VERIFIER = Verifier("shop/users", Mode.ENFORCE, "x-service-auth", "/graphql", (LINK, REST_LINK))


@dataclass(slots=True)
class Reached:
    """What a handler knew of a call; `deadline` while it was served, `incoming` is what outlives it."""

    method: str
    link: Allowed | None
    metadata: tuple[tuple[str, Any], ...]
    incoming: Incoming
    deadline: float
    in_order: tuple[Allowed | None, ...] = ()

    @property
    def keys(self) -> set[str]:
        """Answer the keys of its metadata."""
        return {key for key, _ in self.metadata}


@dataclass(slots=True)
class Telling:
    """Notes what handlers know; by whichever world's servicer."""

    reached: list[Reached] = field(default_factory=list)

    def note(self, method: str, rpc: Any) -> None:
        """Note what is known in a handler."""
        metadata, came = tuple(rpc.invocation_metadata()), context.incoming.get()
        self.reached.append(Reached(method, servicelink.current_link(), metadata, came, came.deadline))

    def note_again(self) -> None:
        """Note who is known later in the same call."""
        last = self.reached[-1]
        last.in_order = (*last.in_order, servicelink.current_link())


class AioUsers(Telling):
    """The users' service of coroutines; `AddUsers` reads and `Chat` writes by the context."""

    async def GetUser(self, request: Any, rpc: Any) -> Any:  # noqa: N802 - as generated
        """Answer the user."""
        self.note("GetUser", rpc)
        return generated()[0].User(user_id=request.user_id)

    async def CreateUser(self, request: Any, rpc: Any) -> Any:  # noqa: N802 - as above
        """Answer the user."""
        self.note("CreateUser", rpc)
        return request

    async def ListUsers(self, request: Any, rpc: Any) -> AsyncIterator[Any]:  # noqa: N802 - as above
        """Answer so many users."""
        self.note("ListUsers", rpc)
        for number in range(request.count):
            self.note_again()
            yield generated()[0].User(user_id=str(number))

    async def AddUsers(self, requests: Any, rpc: Any) -> Any:  # noqa: N802 - as above
        """Answer how many users came."""
        self.note("AddUsers", rpc)
        count = 0
        while (await rpc.read()) is not grpc.aio.EOF:
            count += 1
            self.note_again()
        return generated()[0].Added(count=count)

    async def Chat(self, lines: AsyncIterator[Any], rpc: Any) -> None:  # noqa: N802 - as above
        """Answer each line in capitals."""
        self.note("Chat", rpc)
        async for line in lines:
            self.note_again()
            await rpc.write(generated()[0].Line(text=line.text.upper()))


class ThreadUsers(Telling):
    """The users' service of functions and generators."""

    def GetUser(self, request: Any, rpc: Any) -> Any:  # noqa: N802 - as generated
        """Answer the user."""
        self.note("GetUser", rpc)
        return generated()[0].User(user_id=request.user_id)

    def CreateUser(self, request: Any, rpc: Any) -> Any:  # noqa: N802 - as above
        """Answer the user."""
        self.note("CreateUser", rpc)
        return request

    def ListUsers(self, request: Any, rpc: Any) -> Iterator[Any]:  # noqa: N802 - as above
        """Answer so many users."""
        self.note("ListUsers", rpc)
        for number in range(request.count):
            self.note_again()
            yield generated()[0].User(user_id=str(number))

    def AddUsers(self, requests: Iterator[Any], rpc: Any) -> Any:  # noqa: N802 - as above
        """Answer how many users came."""
        self.note("AddUsers", rpc)
        count = 0
        for _ in requests:
            count += 1
            self.note_again()
        return generated()[0].Added(count=count)

    def Chat(self, lines: Iterator[Any], rpc: Any) -> Iterator[Any]:  # noqa: N802 - as above
        """Answer each line in capitals."""
        self.note("Chat", rpc)
        for line in lines:
            self.note_again()
            yield generated()[0].Line(text=line.text.upper())


@dataclass(slots=True)
class Served:
    """A server that runs: grpcio's own or ours is in `server`."""

    users: Telling
    port: int
    server: Any

    @property
    def address(self) -> str:
        """Where it is."""
        return f"127.0.0.1:{self.port}"

    def counts(self) -> servicelink.Counts:
        """Answer what it decided."""
        counts: servicelink.Counts = self.server.counts()
        return counts


# Of grpc.aio with coroutines, of grpc.aio with functions, and of grpcio's threads.
KINDS = ("aio", "aio-threads", "threads")


@asynccontextmanager
async def serving(kind: str, **options: Any) -> AsyncIterator[Served]:
    """Serve by a kind of server; options as `grpc_server`."""
    users: Telling = AioUsers() if kind == "aio" else ThreadUsers()
    given = {"host": "127.0.0.1", "port": 0, **options}
    async with AsyncExitStack() as stack:
        server: Any
        if kind == "threads":
            server = await in_thread(lambda: sync.grpc_server({ADD: users}, **given))
            stack.push_async_callback(in_thread, server.stop)
        else:
            server = await stack.enter_async_context(await servicelink.grpc_server({ADD: users}, **given))
        yield Served(users, server.port, server)


def write_grpc_verifier(root: Path, verifier: Verifier = VERIFIER) -> None:
    """Swap a verifier in below a root of verifiers."""
    write_verifier(root / "users", verifier)


def plain_stub(channel: Any) -> Any:
    """Answer grpcio's own client."""
    return generated()[1].UserServiceStub(channel)
