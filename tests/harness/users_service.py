"""The service of users.proto: its generated modules, and a servicer that does what a test wants."""

import asyncio
import importlib.util
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import grpc.aio
import grpc_tools  # type: ignore[import-untyped] # it brings no types
from grpc_tools import protoc

PROTO = Path(__file__).with_name("users.proto")
PACKAGE, SERVICE = "servicelink.test.v1", "UserService"
FULL_NAME = f"{PACKAGE}.{SERVICE}"


@cache
def generated() -> tuple[ModuleType, ModuleType]:
    """Answer `users_pb2` and `users_pb2_grpc`, as protoc generates them."""
    known = Path(grpc_tools.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        words = ["protoc", f"-I{PROTO.parent}", f"-I{known}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
        assert protoc.main([*words, str(PROTO)]) == 0
        return _load(Path(folder) / "users_pb2.py"), _load(Path(folder) / "users_pb2_grpc.py")


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def descriptor_set(*, whole: bool = True) -> bytes:
    """Answer the descriptor set of users.proto; with what it imports, if it is to be whole."""
    known = Path(grpc_tools.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "set"
        words = ["protoc", f"-I{PROTO.parent}", f"-I{known}", f"--descriptor_set_out={made}"]
        assert protoc.main([*words, *(["--include_imports"] if whole else []), str(PROTO)]) == 0
        return made.read_bytes()


@dataclass(frozen=True, slots=True)
class Seen:
    """A call as the server saw it; `left` are the seconds until its deadline, None for none."""

    method: str
    metadata: tuple[tuple[str, str | bytes], ...] = field(repr=False)
    left: float | None
    peer: str = ""

    def all(self, key: str) -> list[str | bytes]:
        """Answer the values of a key."""
        return [value for name, value in self.metadata if name == key]


@dataclass(frozen=True, slots=True)
class Failure:
    """How a call is refused."""

    code: grpc.StatusCode
    details: str = "as the test said"
    trailing: tuple[tuple[str, str], ...] = ()


REFUSED = Failure(grpc.StatusCode.UNAUTHENTICATED, "no", (("x-servicelink-code", "INVALID_SERVICE_AUTH"),))
DENIED = Failure(grpc.StatusCode.PERMISSION_DENIED, "no", (("x-servicelink-code", "PERMISSION_DENIED"),))


def failing(name: str) -> Failure:
    """Answer a failure with the status of that name."""
    return Failure(grpc.StatusCode[name])


@dataclass(slots=True)
class Users:
    """An asynchronous servicer: what is in `failures` comes first, then answers; `silent` ones answer nothing.

    A stream of answers waits for `go` before each answer but the first.
    """

    failures: deque[Failure] = field(default_factory=deque)
    seen: list[Seen] = field(default_factory=list)
    silent: bool = False
    go: asyncio.Semaphore | None = None
    came: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for calls until something holds."""
        async with self.came:
            await self.came.wait_for(holds)

    async def _note(self, method: str, context: Any) -> None:
        left = context.time_remaining()
        metadata = tuple((key, value) for key, value in context.invocation_metadata())
        async with self.came:
            self.seen.append(Seen(method, metadata, left, context.peer()))
            self.came.notify_all()
        if self.failures:
            failure = self.failures.popleft()
            await context.abort(failure.code, failure.details, failure.trailing)
        if self.silent:
            await asyncio.Event().wait()

    async def GetUser(self, request: Any, context: Any) -> Any:  # noqa: N802 - as generated
        """Answer a user of that ID."""
        await self._note("GetUser", context)
        await context.send_initial_metadata((("x-seen", request.user_id),))
        context.set_trailing_metadata((("x-last", "yes"),))
        return generated()[0].User(user_id=request.user_id, email=f"{request.user_id}@example.com")

    async def CreateUser(self, request: Any, context: Any) -> Any:  # noqa: N802 - as above
        """Answer the user."""
        await self._note("CreateUser", context)
        return request

    async def ListUsers(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802 - as above
        """Answer so many users."""
        await self._note("ListUsers", context)
        for number in range(request.count):
            if number and self.go is not None:
                await self.go.acquire()
            yield generated()[0].User(user_id=str(number))
        if self.failures:
            failure = self.failures.popleft()
            await context.abort(failure.code, failure.details, failure.trailing)

    async def AddUsers(self, requests: AsyncIterator[Any], context: Any) -> Any:  # noqa: N802 - as above
        """Answer how many users came."""
        await self._note("AddUsers", context)
        count = 0
        async for _ in requests:
            count += 1
        return generated()[0].Added(count=count)

    async def Chat(self, lines: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: N802 - as above
        """Answer each line in capitals."""
        await self._note("Chat", context)
        async for line in lines:
            yield generated()[0].Line(text=line.text.upper())


def add_to(server: Any, users: Any) -> None:
    """Have a server of either world serve it."""
    generated()[1].add_UserServiceServicer_to_server(users, server)
