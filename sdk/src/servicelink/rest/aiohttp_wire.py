"""httpx's requests and responses over aiohttp, and nothing added on the way.

An adapter of our own because what is between the two elsewhere re-sends by itself, rewrites encoded paths and keeps
cookies. Here a request is sent once, as it is; the credential joins it only on the wire, so that no request object that
an application may log ever holds it.
"""

import asyncio
import math
import os
import socket
import ssl
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx
import yarl

from servicelink import forks
from servicelink.binding import Binding
from servicelink.calls.call import Call, Outcome, Result
from servicelink.calls.flow import Send
from servicelink.otel import each_resumed_async
from servicelink.rest.bodies import BROKEN_ENCODING, Ending, Streamed
from servicelink.rest.exchange import ERROR_BODY, FIRST_ERROR, require_sendable, settle
from servicelink.rest.fields import Measure, beside
from servicelink.rest.limits import CROWDED, Pool
from servicelink.rest.upload import PIECE, Deadline, Upload, split

_OWN_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
Tls = Callable[[Binding], ssl.SSLContext | None]
Answers = weakref.WeakSet[aiohttp.ClientResponse]


@dataclass(slots=True, eq=False)
class _Engine:
    """What an event loop has: a session, its sockets, the answers that may still be read from them, and who closes it.

    The guard is an asynchronous generator because an event loop ends those before itself (`asyncio.run` does), so that
    an application need not close a client that it made when it was imported.
    """

    session: aiohttp.ClientSession
    sockets: "weakref.WeakSet[socket.socket]"
    answers: Answers
    guard: AsyncGenerator[None, None]


async def _guard(session: aiohttp.ClientSession, answers: Answers) -> AsyncGenerator[None, None]:
    """Close a session when it is told to; whoever waits for an answer or for more of one hears of it.

    aiohttp does not tell them. A forked child closes nothing: it is the parent's.
    """
    generation = forks.generation()
    try:
        yield
    finally:
        if generation == forks.generation():
            for answer in answers:
                answer.content.set_exception(aiohttp.ClientConnectionError("closed"))
            await session.close()


class AiohttpWire:
    """One pool of connections per event loop and process, opened on first use: a client may be made at import time."""

    def __init__(self, pool: Pool, tls: Tls, *, wall: Callable[[], float] = time.time) -> None:
        self._pool = pool
        self._tls = tls
        self._wall = wall
        self._generation = forks.generation()
        self._engines: dict[asyncio.AbstractEventLoop, _Engine] = {}
        # The parent's: neither used nor closed here.
        self._abandoned: list[Any] = []

    async def send(self, send: Send) -> Outcome:
        """Make one attempt; a unary answer is read whole."""
        call = send.call
        request: httpx.Request = call.message
        require_sendable(send.binding, call)
        started, queue = time.monotonic(), _Queue()
        data = self._data(call, request)
        try:
            async with asyncio.timeout(None if send.limit == math.inf else send.limit) as limit:
                deadline = Deadline(limit)
                if isinstance(data, Upload):
                    data.deadline = deadline
                answer = await self._begin(send, data, queue)
                if call.streamed and not _is_short_error(answer):
                    response = _response(answer, request, AiohttpBody(answer, call, send.idle))
                else:
                    response = _response(answer, request, await answer.read())
                # What is still sent of the body may last.
                deadline.is_over = True
            return settle(response, self._wall(), time.monotonic() - started)
        # What these errors say may quote what was sent or received, so only their kind goes on.
        except aiohttp.ClientConnectorError as error:
            return Outcome(Result.UNSENT, problem=f"not connected: {_tell(error.os_error)}")
        except TimeoutError:
            problem = CROWDED if queue.is_in else "no whole answer in time"
            return Outcome(Result.TIMEOUT, problem=problem, blameless=queue.is_in)
        except (aiohttp.ClientError, OSError) as error:
            if not isinstance(data, Upload) or data.problem is None:
                problem = f"the connection broke before the answer was whole: {type(error).__name__}"
                return Outcome(Result.CUT, problem=problem)
        except httpx.DecodingError:
            return Outcome(Result.CUT, problem=BROKEN_ENCODING)
        except BaseException as error:  # noqa: BLE001 - a cancellation above all
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and not task.cancelling():
                # Nobody cancelled the caller: the client was closed while it waited.
                return Outcome(Result.CUT, problem="the client was closed before the answer was whole")
            # Without the engine's frames: who reports errors with what their frames hold would report the headers.
            raise error.with_traceback(None)  # noqa: B904 - it is the same error
        # Not where aiohttp's error is at hand, which it would keep, with frames that hold the headers.
        raise data.problem

    async def discard(self, outcome: Outcome) -> None:
        """Let go of a stream that has begun."""
        await outcome.response.aclose()

    async def aclose(self) -> None:
        """Close the connections of this event loop; calls still under way fail."""
        self._notice_fork()
        engine = self._engines.pop(asyncio.get_running_loop(), None)
        if engine is not None:
            await engine.guard.aclose()
        await self._close_ended()

    async def _begin(self, send: Send, data: "bytes | Upload | None", queue: "_Queue") -> aiohttp.ClientResponse:
        request: httpx.Request = send.call.message
        url = yarl.URL(str(request.url).partition("#")[0], encoded=True)
        tls = self._tls(send.binding)
        engine = await self._engine()
        answer = await engine.session.request(
            request.method,
            url,
            headers=_headers(send, request),
            data=data,
            allow_redirects=False,
            ssl=True if tls is None else tls,
            trace_request_ctx=queue,
        )
        engine.answers.add(answer)
        return answer

    def _data(self, call: Call, request: httpx.Request) -> "bytes | Upload | None":
        if isinstance(request.stream, httpx.ByteStream):
            content = request.content
            if len(content) <= PIECE:
                return content or None
            return Upload(split(content), Measure(call), self._pool.write_timeout)
        assert isinstance(request.stream, httpx.AsyncByteStream)
        return Upload(aiter(each_resumed_async(request.stream)), Measure(call), self._pool.write_timeout)

    async def _engine(self) -> _Engine:
        if self._generation != forks.generation():
            self._notice_fork()
        loop = asyncio.get_running_loop()
        engine = self._engines.get(loop)
        if engine is None or engine.session.closed:
            # At once, so that of two calls which come together none opens another.
            engine = self._engines[loop] = _open_engine(self._pool)
            await anext(engine.guard)
            await self._close_ended()
        return engine

    async def _close_ended(self) -> None:
        """Close what loops have left behind that ended without `aclose`, such as those of `asyncio.run`."""
        for loop in [one for one in tuple(self._engines) if one.is_closed()]:
            engine = self._engines.pop(loop, None)
            if engine is not None:
                # Its transports can do nothing any more, not even close their sockets.
                for sock in engine.sockets:
                    sock.close()
                # Of calls that wait in it: their loop would have to tell them.
                with suppress(RuntimeError):
                    await engine.session.close()

    def _notice_fork(self) -> None:
        if self._generation != forks.generation():
            self._abandoned.append(dict(self._engines))
            self._engines.clear()
            self._generation = forks.generation()


class AiohttpBody(httpx.AsyncByteStream):
    """A streamed answer; raises ServiceUnavailable where it breaks off, ServiceTimeout after `idle` silent seconds."""

    def __init__(self, answer: aiohttp.ClientResponse, call: Call, idle: float) -> None:
        self.ending = Ending(call)
        self._answer = answer
        self._idle = None if idle == math.inf else idle

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self._next():
            yield piece

    async def _next(self) -> bytes:
        try:
            async with asyncio.timeout(self._idle):
                return await self._answer.content.readany()
        except TimeoutError:
            raise self.ending.fail(Result.TIMEOUT, f"the answer stopped coming ({self._idle:g} s)") from None
        except (aiohttp.ClientError, OSError) as error:
            problem = f"the connection broke before the answer was whole: {type(error).__name__}"
            raise self.ending.fail(Result.CUT, problem) from None

    async def aclose(self) -> None:
        """Give the connection back, or close it where the answer was not read to its end."""
        if self._answer.content.at_eof():
            self._answer.release()
        else:
            self._answer.close()


def _tell(error: OSError) -> str:
    if isinstance(error, ConnectionError) and error.errno:
        # Not asyncio's words, which are "Connect call failed" whatever it was.
        return os.strerror(error.errno)
    return error.strerror or type(error).__name__


def _is_short_error(answer: aiohttp.ClientResponse) -> bool:
    length = answer.content_length
    return answer.status >= FIRST_ERROR and length is not None and length <= ERROR_BODY


def _headers(send: Send, request: httpx.Request) -> list[tuple[str, str]]:
    more: dict[str, Any] = dict(beside(send))
    headers = [
        (name, value.decode("latin-1"))
        for raw, value in request.headers.raw
        if (name := raw.decode("latin-1")).lower() not in more and name != "Transfer-Encoding"
    ]
    headers.extend(more.items())
    return headers


def _response(answer: aiohttp.ClientResponse, request: httpx.Request, body: bytes | AiohttpBody) -> httpx.Response:
    extensions = {"http_version": b"HTTP/1.1", "reason_phrase": (answer.reason or "").encode(errors="surrogateescape")}
    if isinstance(body, bytes):
        return httpx.Response(
            answer.status, headers=answer.raw_headers, content=body, request=request, extensions=extensions
        )
    return Streamed(answer.status, headers=answer.raw_headers, stream=body, request=request, extensions=extensions)


class _Connector(aiohttp.TCPConnector):
    """aiohttp's, with a bound on idle connections."""

    def __init__(self, most_idle: float, **options: Any) -> None:
        super().__init__(**options)
        self._most_idle = most_idle

    def _release(self, key: Any, protocol: Any, *, should_close: bool = False) -> None:
        # Private, and the only place where an idle connection is kept: aiohttp has no bound of its own.
        idle = sum(map(len, self._conns.values()))
        super()._release(key, protocol, should_close=should_close or idle >= self._most_idle)


class _Queue:
    """Whether an attempt is waiting for a connection, all being in use."""

    __slots__ = ("is_in",)

    def __init__(self) -> None:
        self.is_in = False


async def _enter_queue(_session: aiohttp.ClientSession, context: Any, _: Any) -> None:
    context.trace_request_ctx.is_in = True


async def _leave_queue(_session: aiohttp.ClientSession, context: Any, _: Any) -> None:
    context.trace_request_ctx.is_in = False


def _watch_queue() -> aiohttp.TraceConfig:
    watching = aiohttp.TraceConfig()
    watching.on_connection_queued_start.append(_enter_queue)
    watching.on_connection_queued_end.append(_leave_queue)
    return watching


def _open_engine(pool: Pool) -> _Engine:
    sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def open_socket(address: Any) -> socket.socket:
        family, kind, protocol, *_ = address
        sock = socket.socket(family, kind, protocol)
        sockets.add(sock)
        return sock

    options: dict[str, Any] = {
        "limit": pool.connections,
        "keepalive_timeout": pool.idle_for,
        "socket_factory": open_socket,
    }
    bounded = pool.idle < (pool.connections or math.inf)
    session = aiohttp.ClientSession(
        connector=_Connector(pool.idle, **options) if bounded else aiohttp.TCPConnector(**options),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        skip_auto_headers=_OWN_HEADERS,
        # httpx decodes by itself, and would decode a second time.
        auto_decompress=False,
        trust_env=False,
        trace_configs=[_watch_queue()],
    )
    session._retry_connection = False  # noqa: SLF001 - aiohttp re-sends dropped idempotent calls and has no switch for it
    answers: Answers = weakref.WeakSet()
    return _Engine(session, sockets, answers, _guard(session, answers))
