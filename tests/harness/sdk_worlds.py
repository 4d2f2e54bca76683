"""The SDK's clients of both worlds behind one face, so that one test runs for each; and a server that misbehaves."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeVar

import httpx

import servicelink
from servicelink import sync
from servicelink.calls.drive import AsyncDriver, Driver
from servicelink.calls.line import Clock

# More than any test has calls at once; the loop's own executor has six on two cores.
_THREADS = ThreadPoolExecutor(64)
T = TypeVar("T")
P = ParamSpec("P")
WORLDS = ("asynchronous", "synchronous")


async def in_thread(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Answer what a function answers that runs in a thread, in this context."""
    bound = partial(copy_context().run, function, *arguments, **options)
    return await asyncio.get_running_loop().run_in_executor(_THREADS, bound)


@dataclass(slots=True)
class Hands:
    """The hands of a clock; waiting moves them."""

    seconds: float = 100.0
    slept: list[float] = field(default_factory=list)

    def now(self) -> float:
        """Answer the time."""
        return self.seconds

    def sleep(self, seconds: float) -> None:
        """Wait, at once."""
        self.slept.append(seconds)
        self.seconds += seconds

    async def async_sleep(self, seconds: float) -> None:
        """Wait, at once."""
        self.sleep(seconds)

    @property
    def clock(self) -> Clock:
        """A clock with these hands, and no chance: pauses are as long as they may be."""
        return Clock(now=self.now, wall=lambda: 1_700_000_000.0, chance=lambda: 1.0)


class Streamed(Protocol):
    """An answer that is read as it comes."""

    response: httpx.Response

    async def pieces(self) -> list[bytes]:
        """Read all of it."""

    async def first(self) -> bytes:
        """Read the first piece."""


@dataclass(slots=True)
class _Streamed:
    response: httpx.Response

    async def pieces(self) -> list[bytes]:
        return [piece async for piece in self.response.aiter_bytes()]

    async def first(self) -> bytes:
        return await anext(self.response.aiter_bytes())


@dataclass(slots=True)
class _SyncStreamed:
    response: httpx.Response

    async def pieces(self) -> list[bytes]:
        return await in_thread(list, self.response.iter_bytes())

    async def first(self) -> bytes:
        return await in_thread(next, self.response.iter_bytes())


class Caller:
    """An asynchronous client."""

    def __init__(self, client: Any, hands: Hands | None = None) -> None:
        self.client = client
        if hands is not None:
            client._line.clock = hands.clock  # noqa: SLF001 - time is the test's
            client._wire._wall = hands.clock.wall  # noqa: SLF001 - as above
            client._driver = self._driver(hands)  # noqa: SLF001 - as above

    def _driver(self, hands: Hands) -> Any:
        return AsyncDriver(self.client._wire, hands.async_sleep)  # noqa: SLF001 - as above

    async def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        """Make a call."""
        answer: httpx.Response = await self.client.request(method, url, **options)
        return answer

    async def get(self, url: str, **options: Any) -> httpx.Response:
        """GET."""
        return await self.request("GET", url, **options)

    async def post(self, url: str, **options: Any) -> httpx.Response:
        """POST."""
        return await self.request("POST", url, **options)

    def with_options(self, **options: Any) -> "Caller":
        """Answer a caller with other options."""
        return type(self)(self.client.with_options(**options))

    @asynccontextmanager
    async def stream(self, method: str, url: str, **options: Any) -> AsyncIterator[Streamed]:
        """Make a call whose answer is streamed."""
        async with self.client.stream(method, url, **options) as response:
            yield _Streamed(response)

    async def close(self) -> None:
        """Close the client."""
        await self.client.aclose()


class SyncCaller(Caller):
    """A synchronous client, in a thread."""

    def _driver(self, hands: Hands) -> Any:
        return Driver(self.client._wire, hands.sleep)  # noqa: SLF001 - as above

    async def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        """Make a call."""
        return await in_thread(self.client.request, method, url, **options)

    @asynccontextmanager
    async def stream(self, method: str, url: str, **options: Any) -> AsyncIterator[Streamed]:
        """Make a call whose answer is streamed."""
        manager = self.client.stream(method, url, **options)
        response = await in_thread(manager.__enter__)
        try:
            yield _SyncStreamed(response)
        except BaseException as error:
            if not await in_thread(manager.__exit__, type(error), error, error.__traceback__):
                raise
        else:
            await in_thread(manager.__exit__, None, None, None)

    async def close(self) -> None:
        """Close the client."""
        self.client.close()


def open_caller(world: str, hands: Hands | None = None, **options: Any) -> Caller:
    """Answer a client of a world; options as `ServiceClient`."""
    if world == "asynchronous":
        return Caller(servicelink.ServiceClient(**options), hands)
    return SyncCaller(sync.ServiceClient(**options), hands)


@dataclass(slots=True)
class Request:
    """A request as it came over the socket."""

    line: str
    headers: dict[str, str] = field(repr=False)
    body: bytes


class Peer:
    """One connection of the server that misbehaves, as its play sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        self._writer.write(data)
        await self._writer.drain()

    async def reply(self, status: int = 200, body: bytes = b"", **headers: str) -> None:
        """Send a whole answer."""
        named = {"content-length": str(len(body)), **{name.replace("_", "-"): text for name, text in headers.items()}}
        lines = "".join(f"{name}: {text}\r\n" for name, text in named.items())
        await self.send(f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + body)

    @property
    def serial(self) -> str:
        """The serial number of the certificate that the client showed, "" for none."""
        found = self._writer.get_extra_info("peercert") or {}
        return str(found.get("serialNumber", "")).lower().lstrip("0")

    async def until_gone(self) -> None:
        """Wait until the other side has closed the connection."""
        while await self._reader.read(65536):
            pass


Play = Callable[[Peer, Request], Awaitable[None]]


@dataclass(slots=True)
class Stage:
    """A server on loopback that does with each request what `play` says; EOFError ends the connection."""

    play: Play
    address: str = ""
    connections: int = 0
    requests: list[Request] = field(default_factory=list)
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        self._writers.append(writer)
        try:
            while request := await _read_request(reader):
                self.requests.append(request)
                await self.play(Peer(reader, writer), request)
        except (EOFError, ConnectionError):
            return
        finally:
            writer.close()

    async def end(self) -> None:
        """Cut what is left, and wait until it is gone."""
        for writer in self._writers:
            writer.transport.abort()
        for writer in self._writers:
            with suppress(OSError):
                await writer.wait_closed()


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    line, *rest = head.decode("latin-1").strip().split("\r\n")
    headers = {name.lower(): text.strip() for name, _, text in (one.partition(":") for one in rest)}
    if headers.get("transfer-encoding") == "chunked":
        return Request(line, headers, await _read_chunks(reader))
    return Request(line, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readline()).strip(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


@asynccontextmanager
async def staged(play: Play, tls: ssl.SSLContext | None = None) -> AsyncIterator[Stage]:
    """Serve a play on loopback."""
    stage = Stage(play)
    server = await asyncio.start_server(stage.serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    stage.address = f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}"
    async with server:
        yield stage
        await stage.end()
