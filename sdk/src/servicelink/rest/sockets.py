"""Sockets for httpcore that keep a deadline: the time for a whole answer, not for each of its pieces.

httpcore hands its timeouts through to the stream untouched, so what arrives here is a `Patience`, which is asked at
every single operation. With plain numbers a server that sends a byte a second would hold a call for ever.
"""

import math
import select
import socket
import ssl
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import httpcore

from servicelink import forks

_LARGEST_WRITE = 65536


class Patience:
    """How long a socket may wait: until a moment of the monotonic clock, and `each` seconds for one operation."""

    __slots__ = ("_clock", "each", "until", "write")

    def __init__(self, until: float, write: float = math.inf, clock: Callable[[], float] = time.monotonic) -> None:
        self.until = until
        self.each = math.inf
        self.write = write
        self._clock = clock

    def left(self, longest: float) -> float | None:
        """Answer the seconds for one operation, None for no limit; raises TimeoutError when there are none."""
        seconds = min(self.until - self._clock(), longest)
        if seconds <= 0:
            raise TimeoutError
        return None if seconds == math.inf else seconds


class Sockets:
    """The sockets of one pool, which another thread than theirs may cut."""

    def __init__(self) -> None:
        self._lock = forks.Lock()
        self._open: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self.is_cut = False

    def add(self, sock: socket.socket) -> None:
        """Take note of a socket; raises NetworkError, and closes it, where all were cut."""
        with self._lock:
            if not self.is_cut:
                self._open.add(sock)
                return
        sock.close()
        raise httpcore.NetworkError

    def cut(self) -> None:
        """Have everything that waits for one of them fail, and no more be opened.

        They are closed by the threads that use them: another's close would let go of a number that the system gives to
        the next socket, and a thread that is about to read would read from that one.
        """
        with self._lock:
            self.is_cut = True
            for sock in self._open:
                with suppress(OSError):
                    # Not TLS's own, after which its socket would be read as if it were plain.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)


class PatientStream(httpcore.NetworkStream):
    """A connected socket."""

    def __init__(self, sock: socket.socket, sockets: Sockets) -> None:
        self._sock = sock
        self._sockets = sockets
        sockets.add(sock)

    def read(self, max_bytes: int, timeout: Any = None) -> bytes:
        """Read what there is; raises ReadTimeout, ReadError."""
        try:
            self._sock.settimeout(timeout.left(timeout.each))
            data = self._sock.recv(max_bytes)
        except TimeoutError:
            raise httpcore.ReadTimeout from None
        except OSError as error:
            raise httpcore.ReadError(type(error).__name__) from None
        if self._sockets.is_cut:
            # What was cut is no end, with which an answer of no stated length would be whole.
            raise httpcore.ReadError
        return data

    def write(self, buffer: bytes, timeout: Any = None) -> None:
        """Write all of it; raises WriteTimeout, WriteError."""
        view = memoryview(buffer)
        try:
            while view:
                self._sock.settimeout(timeout.left(timeout.write))
                view = view[self._sock.send(view[:_LARGEST_WRITE]) :]
        except TimeoutError:
            raise httpcore.WriteTimeout from None
        except OSError as error:
            raise httpcore.WriteError(type(error).__name__) from None

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: Any = None
    ) -> "PatientStream":
        """Answer the stream inside of TLS; raises ConnectTimeout, ConnectError."""
        try:
            self._sock.settimeout(timeout.left(math.inf))
            return PatientStream(ssl_context.wrap_socket(self._sock, server_hostname=server_hostname), self._sockets)
        except TimeoutError:
            self._sock.close()
            raise httpcore.ConnectTimeout from None
        except OSError as error:
            self._sock.close()
            raise httpcore.ConnectError(_reason(error)) from None

    def get_extra_info(self, info: str) -> Any:
        """Answer what httpcore asks a stream."""
        if info == "is_readable":
            return _is_readable(self._sock)
        if info == "ssl_object" and isinstance(self._sock, ssl.SSLSocket):
            return self._sock
        return None


class PatientBackend(httpcore.NetworkBackend):
    """Connects the sockets of one pool."""

    def __init__(self) -> None:
        self.sockets = Sockets()

    def connect_tcp(  # noqa: PLR0917 - httpcore's interface
        self,
        host: str,
        port: int,
        timeout: Any = None,
        local_address: str | None = None,  # noqa: ARG002 - httpcore's interface
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002 - as above
    ) -> PatientStream:
        """Answer a connected stream; raises ConnectTimeout, ConnectError."""
        try:
            return PatientStream(_connect(host, port, timeout), self.sockets)
        except TimeoutError:
            raise httpcore.ConnectTimeout from None
        except OSError as error:
            raise httpcore.ConnectError(_reason(error)) from None


def _connect(host: str, port: int, patience: Patience) -> socket.socket:
    """Connect to the first address that answers, one after the other: each has its share of the time that is left."""
    problem = OSError("the name has no address")
    addresses = _resolve(host, port, patience)
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = socket.socket(family, kind, protocol)
        try:
            left = patience.left(math.inf)
            sock.settimeout(left and left / (len(addresses) - number))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            sock.close()
            problem = error
        else:
            return sock
    raise problem


def _resolve(host: str, port: int, patience: Patience) -> list[Any]:
    """Look a name up. The system's resolver has no time limit, so it is left alone in a thread once ours is over."""
    answers: SimpleQueue[list[Any] | OSError] = SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM))
        except OSError as error:
            answers.put(error)

    Thread(target=look_up, name="servicelink-resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=patience.left(math.inf))
    except Empty:
        raise TimeoutError from None
    if isinstance(answer, OSError):
        raise answer
    return answer


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _is_readable(sock: socket.socket) -> bool:
    """Say whether an idle connection has something to read, which can only be its end."""
    if sock.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))
