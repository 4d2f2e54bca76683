"""httpx's requests and responses over httpcore, synchronously: the engine beneath httpx.Client, without its client.

A request is sent once, as it is; the credential joins it only on the wire.
"""

import math
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpcore
import httpx

from servicelink import forks
from servicelink.binding import Binding
from servicelink.calls.call import Call, Outcome, Result
from servicelink.calls.failures import where
from servicelink.calls.flow import Send
from servicelink.errors import ServiceError
from servicelink.otel import each_resumed
from servicelink.rest.bodies import BROKEN_ENCODING, Ending, Streamed
from servicelink.rest.connections import ConnectionPool
from servicelink.rest.exchange import ERROR_BODY, FIRST_ERROR, require_sendable, settle
from servicelink.rest.fields import Measure, beside
from servicelink.rest.limits import CROWDED, Pool
from servicelink.rest.sockets import Patience, PatientBackend, Sockets

_TLS_PORT = 443
_PORT = 80

Tls = Callable[[Binding], ssl.SSLContext | None]


@dataclass(slots=True, eq=False)
class _Shared:
    """A pool, and how many calls are under way in it."""

    pool: ConnectionPool
    sockets: Sockets
    calls: int = 0


class HttpcoreWire:
    """One pool of connections per process and TLS context, opened on first use."""

    def __init__(self, pool: Pool, tls: Tls, *, wall: Callable[[], float] = time.time) -> None:
        self._pool = pool
        self._tls = tls
        self._wall = wall
        self._lock = forks.Lock()
        self._generation = forks.generation()
        self._pools: dict[ssl.SSLContext | None, _Shared] = {}

    def send(self, send: Send) -> Outcome:
        """Make one attempt; a unary answer is read whole."""
        call = send.call
        request: httpx.Request = call.message
        require_sendable(send.binding, call)
        started = time.monotonic()
        patience = Patience(started + send.limit, self._pool.write_timeout)
        shared, streams = self._open(self._tls(send.binding)), False
        try:
            answer = self._begin(send, request, patience, shared.pool)
            if call.streamed and not _is_short_error(answer):
                # Until headers, then idle time.
                patience.until, patience.each = math.inf, send.idle
                body = HttpcoreBody(answer, call, send.idle, partial(self._end, shared))
                response, streams = _response(answer, request, body), True
            else:
                response = _response(answer, request, _read(answer))
            return settle(response, self._wall(), time.monotonic() - started)
        # What these errors say may quote what was sent or received, so only their kind goes on.
        except httpcore.ConnectError as error:
            return Outcome(Result.UNSENT, problem=f"not connected: {error}")
        except httpcore.PoolTimeout:
            return Outcome(Result.TIMEOUT, problem=CROWDED, blameless=True)
        except (httpcore.TimeoutException, TimeoutError):
            return Outcome(Result.TIMEOUT, problem="no whole answer in time")
        except httpcore.LocalProtocolError:
            # Told below: an error keeps the one in whose `except` it is raised, whose frames hold the headers.
            pass
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            problem = f"the connection broke before the answer was whole: {type(error).__name__}"
            return Outcome(Result.CUT, problem=problem)
        except httpx.DecodingError:
            return Outcome(Result.CUT, problem=BROKEN_ENCODING)
        finally:
            if not streams:
                self._end(shared)
        # Of the caller's doing: it speaks against no server.
        problem = "what is to be sent is no HTTP, so it was not sent"
        raise ServiceError(problem, **where(call, "See whether the headers are what a server can read"))

    def discard(self, outcome: Outcome) -> None:
        """Let go of a stream that has begun."""
        outcome.response.close()

    def close(self) -> None:
        """Close all connections; calls still under way fail."""
        with self._lock:
            pools, self._pools = self._pools, {}
        if self._generation == forks.generation():
            for shared in pools.values():
                shared.sockets.cut()
                with self._lock:
                    is_over = not shared.calls
                if is_over:
                    # Else the last call does it.
                    shared.pool.close()

    def _begin(
        self, send: Send, request: httpx.Request, patience: Patience, pool: httpcore.ConnectionPool
    ) -> httpcore.Response:
        url = request.url
        target = httpcore.URL(
            scheme=url.raw_scheme,
            host=url.raw_host,
            port=url.port or (_TLS_PORT if url.scheme == "https" else _PORT),
            target=url.raw_path,
        )
        waits = {"connect": patience, "read": patience, "write": patience, "pool": patience.left(math.inf)}
        outgoing = httpcore.Request(
            request.method.encode(),
            target,
            headers=_headers(send, request),
            content=_content(send.call, request),
            extensions={"timeout": waits},
        )
        return pool.handle_request(outgoing)

    def _open(self, tls: ssl.SSLContext | None) -> _Shared:
        """Answer the pool for a context, counting a call in it; an earlier context's goes once it is not used."""
        with self._lock:
            if self._generation != forks.generation():
                # The parent's connections are neither used nor closed here.
                self._generation, self._pools = forks.generation(), {}
            shared = self._pools.get(tls)
            idle = []
            if shared is None:
                idle = [one for one in self._pools.values() if not one.calls]
                shared = self._make(tls)
                self._pools = {tls: shared}
            shared.calls += 1
        for one in idle:
            one.pool.close()
        return shared

    def _end(self, shared: _Shared) -> None:
        """Count a call out; the last one closes the connections of an earlier context."""
        with self._lock:
            shared.calls -= 1
            is_over = not shared.calls and shared not in self._pools.values()
        if is_over:
            shared.pool.close()

    def _make(self, tls: ssl.SSLContext | None) -> _Shared:
        idle, backend = self._pool.idle, PatientBackend()
        pool = ConnectionPool(
            ssl_context=tls,
            max_connections=self._pool.connections or None,
            max_keepalive_connections=None if idle == math.inf else int(idle),
            keepalive_expiry=self._pool.idle_for,
            network_backend=backend,
        )
        return _Shared(pool, backend.sockets)


class HttpcoreBody(httpx.SyncByteStream):
    """A streamed answer; raises ServiceUnavailable where it breaks off, ServiceTimeout after `idle` silent seconds."""

    def __init__(self, answer: httpcore.Response, call: Call, idle: float, end: Callable[[], None]) -> None:
        self.ending = Ending(call)
        self._answer = answer
        self._idle = idle
        self._end: Callable[[], None] | None = end

    def __iter__(self) -> Iterator[bytes]:
        assert not isinstance(self._answer.stream, bytes)
        try:
            yield from self._answer.stream  # type: ignore[misc] # the synchronous pool's
        except httpcore.TimeoutException:
            raise self.ending.fail(Result.TIMEOUT, f"the answer stopped coming ({self._idle:g} s)") from None
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            problem = f"the connection broke before the answer was whole: {type(error).__name__}"
            raise self.ending.fail(Result.CUT, problem) from None

    def close(self) -> None:
        """Give the connection back, or close it where the answer was not read to its end."""
        self._answer.close()
        end, self._end = self._end, None
        if end is not None:
            end()


def _read(answer: httpcore.Response) -> bytes:
    try:
        return b"".join(answer.stream)  # type: ignore[arg-type] # the synchronous pool's
    finally:
        answer.close()


def _is_short_error(answer: httpcore.Response) -> bool:
    if answer.status < FIRST_ERROR:
        return False
    length = next((value for name, value in answer.headers if name.lower() == b"content-length"), None)
    return length is not None and int(length) <= ERROR_BODY


def _headers(send: Send, request: httpx.Request) -> list[tuple[bytes, bytes]]:
    more = {name.encode(): _as_bytes(value) for name, value in beside(send).items()}
    headers = [(name, value) for name, value in request.headers.raw if name.lower() not in more]
    headers.extend(more.items())
    return headers


def _as_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1")


def _content(call: Call, request: httpx.Request) -> Any:
    if isinstance(request.stream, httpx.ByteStream):
        return request.content
    assert isinstance(request.stream, httpx.SyncByteStream)
    return _upload(request.stream, Measure(call))


def _upload(pieces: httpx.SyncByteStream, measure: Measure) -> Iterator[bytes]:
    for piece in each_resumed(pieces):
        measure.count(piece)
        yield piece
    measure.finish()


def _response(answer: httpcore.Response, request: httpx.Request, body: bytes | HttpcoreBody) -> httpx.Response:
    if isinstance(body, bytes):
        return httpx.Response(
            answer.status, headers=answer.headers, content=body, request=request, extensions=answer.extensions
        )
    return Streamed(answer.status, headers=answer.headers, stream=body, request=request, extensions=answer.extensions)
