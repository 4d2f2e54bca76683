"""What takes the place of grpcio's synchronous wire where the server is mocked."""

import threading
from collections.abc import Callable, Iterable
from typing import Any

from grpc import StatusCode

from servicelink.calls.call import CANCELLED, Outcome
from servicelink.calls.flow import Send
from servicelink.grpc.exchange import FINE, answered
from servicelink.grpc.methods import GrpcMessage
from servicelink.grpc.mocked import GrpcScript, Played
from servicelink.otel import each_resumed

# Seconds that requests may still come in when all has been answered.
_MOMENT = 0.1


class MockRpc:
    """What stands for grpcio's synchronous call of an attempt."""

    def __init__(self, played: Played, limit: float) -> None:
        self._played = played
        self._limit = limit
        self._over = threading.Event()
        self._callbacks: list[Callable[[], None]] = []

    def end(self) -> None:
        """Take note that it has ended."""
        if not self._over.is_set():
            self._over.set()
            for callback in self._callbacks:
                callback()

    def cancel(self) -> bool:
        """End it, as its caller's."""
        self._played.end(CANCELLED)
        self.end()
        return True

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call back at its end; answers False where that has been."""
        if self._over.is_set():
            return False
        self._callbacks.append(callback)
        return True

    def time_remaining(self) -> float | None:
        """Answer the seconds that the attempt may take."""
        return None if self._limit == float("inf") else self._limit

    def initial_metadata(self) -> tuple[()]:
        """Answer none."""
        return ()

    def trailing_metadata(self) -> tuple[()]:
        """Answer none, at the end."""
        self._over.wait()
        return ()

    def code(self) -> StatusCode:
        """Answer the status, at the end."""
        self._over.wait()
        return self._played.status

    def details(self) -> str:
        """Answer nothing, at the end."""
        self._over.wait()
        return ""


class MockStream:
    """A stream of answers that has begun; `taking` is the thread that takes its requests."""

    def __init__(self, rpc: MockRpc, played: Played, first: Outcome | None, taking: threading.Thread | None) -> None:
        self.rpc = rpc
        self._played = played
        self._first = first
        self._taking = taking

    def read(self) -> Outcome:
        """Answer the next message, or how the stream ended."""
        first, self._first = self._first, None
        if self._taking is not None and not self._played.answers:
            self._taking.join(_MOMENT)
        outcome = self._played.next() if first is None else first
        if self._played.ended is not None:
            self.rpc.end()
        return outcome


class MockWire:
    """Takes the place of grpcio's synchronous wire."""

    def __init__(self, script: GrpcScript) -> None:
        self._script = script

    def send(self, send: Send) -> Outcome:
        """Play one attempt."""
        message: GrpcMessage = send.call.message
        played = self._script.play(send)
        rpc = MockRpc(played, send.limit)
        if message.attached is not None:
            message.attached(rpc)
        kind = message.method.kind
        taking = _take_requests(message.request, played, in_thread=kind.streams_out) if kind.streams_in else None
        if not kind.streams_out:
            outcome = played.only()
            rpc.end()
            return outcome
        first = played.next()
        if played.ended is None or first is FINE:
            return answered(MockStream(rpc, played, None if first is FINE else first, taking))
        rpc.end()
        return first

    def discard(self, outcome: Outcome) -> None:
        """Let go of a stream that has begun."""
        if isinstance(outcome.response, MockStream):
            outcome.response.rpc.cancel()


def _take_requests(requests: Iterable[Any], played: Played, *, in_thread: bool) -> threading.Thread | None:
    def take() -> None:
        try:
            for request in each_resumed(requests):
                played.take(request)
        except Exception as error:  # noqa: BLE001 - whoever reads the answers is told
            played.problems.append(error)

    if not in_thread:
        take()
        return None
    taking = threading.Thread(target=take, name="servicelink-mock", daemon=True)
    taking.start()
    taking.join(_MOMENT)
    return taking
