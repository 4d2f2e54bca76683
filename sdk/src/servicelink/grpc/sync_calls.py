"""Calls under way, as grpcio's synchronous calls look to the code that made them.

A stream begins when it is made, in a thread until its first answer: it may take several attempts, and its caller may
have to write before the server answers. What grpcio tells of a call is that of its last attempt.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc

from servicelink.calls.call import CANCELLED, Outcome
from servicelink.calls.drive import Driver, Ended
from servicelink.calls.flow import Flow, flow
from servicelink.calls.line import Line
from servicelink.errors import ServiceError
from servicelink.forks import Lock
from servicelink.grpc.exchange import GrpcExchange
from servicelink.grpc.methods import GrpcMessage
from servicelink.grpc.sync_wire import SyncStream

Request = TypeVar("Request")
Response = TypeVar("Response")


class _Attached:
    """grpcio's call of the newest attempt, once there is one; those of a cancelled call are cancelled as they come."""

    __slots__ = ("_lock", "is_cancelled", "rpc")

    def __init__(self) -> None:
        self._lock = Lock()
        self.rpc: Any = None
        self.is_cancelled = False

    def attach(self, rpc: Any) -> None:
        with self._lock:
            self.rpc = rpc
            cancelled = self.is_cancelled
        if cancelled:
            rpc.cancel()

    def cancel(self) -> None:
        with self._lock:
            self.is_cancelled = True
            rpc = self.rpc
        if rpc is not None:
            rpc.cancel()


class SyncCall(grpc.Call):
    """The face of grpc.Call, over work that a thread does."""

    def __init__(self, line: Line, driver: Driver, exchange: GrpcExchange, message: GrpcMessage) -> None:
        self._driver = driver
        self._exchange = exchange
        self._rpc = _Attached()
        message.attached = self._rpc.attach
        self._flow: Flow[Any] = flow(line, exchange)
        self._future: Future[Any] = Future()
        # Not bound to the call, so that one which nobody holds any more is cancelled.
        work = _work, self._runs, driver, self._flow, self._future
        threading.Thread(target=copy_context().run, args=work, name="servicelink-call", daemon=True).start()

    @staticmethod
    def _runs(driver: Driver, running: Flow[Any]) -> Any:
        return driver.run(running)

    def is_active(self) -> bool:
        """Say whether it has not ended yet."""
        return not self._future.done()

    def time_remaining(self) -> float:
        """Answer the seconds until its deadline, infinite where there is none, or none yet."""
        seconds = None if self._rpc.rpc is None else self._rpc.rpc.time_remaining()
        return float("inf") if seconds is None else seconds

    def cancel(self) -> bool:
        """Cancel it; answers whether there was anything left to cancel."""
        if not self.is_active():
            return False
        self._rpc.cancel()
        return True

    def cancelled(self) -> bool:
        """Say whether it was cancelled."""
        return self._rpc.is_cancelled

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call back once it has ended; answers False where it has."""
        if self._future.done():
            return False
        self._future.add_done_callback(lambda _: callback())
        return True

    def initial_metadata(self) -> Any:
        """Wait for what the server sends before its first answer."""
        return self._last(lambda rpc: rpc.initial_metadata(), ())

    def trailing_metadata(self) -> Any:
        """Wait for the end, and answer what the server sent with it."""
        return self._last(lambda rpc: rpc.trailing_metadata(), ())

    def code(self) -> grpc.StatusCode:
        """Wait for the end, and answer its status; UNAVAILABLE where nothing was sent."""
        unsent = grpc.StatusCode.CANCELLED if self._rpc.is_cancelled else grpc.StatusCode.UNAVAILABLE
        found: grpc.StatusCode = self._last(lambda rpc: rpc.code(), unsent)
        return found

    def details(self) -> str:
        """Wait for the end, and answer what the server said of it."""
        return self._last(lambda rpc: rpc.details(), "") or ""

    def _last(self, ask: Callable[[Any], Any], otherwise: Any) -> Any:
        with suppress(ServiceError):
            self._future.result()
        return otherwise if self._rpc.rpc is None else ask(self._rpc.rpc)


def _work(run: Callable[[Driver, Flow[Any]], Any], driver: Driver, running: Flow[Any], future: Future[Any]) -> None:
    try:
        found = run(driver, running)
    except BaseException as error:  # noqa: BLE001 - whoever asks for the answer hears of it
        future.set_exception(error)
    else:
        future.set_result(found)


class FutureCall(SyncCall, grpc.Future, Generic[Response]):  # type: ignore[type-arg] # generic for checkers only
    """A call that is answered later: grpc.Future."""

    def done(self) -> bool:
        """Say whether it has ended."""
        return self._future.done()

    def running(self) -> bool:
        """Say whether it has not ended yet."""
        return not self._future.done()

    def result(self, timeout: float | None = None) -> Response:
        """Wait for the answer; raises ServiceError, grpc.FutureTimeoutError, grpc.FutureCancelledError."""
        problem = self.exception(timeout)
        if problem is not None:
            raise problem
        answer: Response = self._future.result()
        return answer

    def exception(self, timeout: float | None = None) -> Exception | None:
        """Wait for the end, and answer its error; raises grpc.FutureTimeoutError, grpc.FutureCancelledError."""
        try:
            problem = self._future.exception(timeout)
        except TimeoutError:
            raise grpc.FutureTimeoutError from None
        if problem is not None and self._rpc.is_cancelled:
            raise grpc.FutureCancelledError
        return problem if problem is None or isinstance(problem, Exception) else RuntimeError(repr(problem))

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        """Wait for the end, and answer where its error comes from; raises as `exception`."""
        problem = self.exception(timeout)
        return None if problem is None else problem.__traceback__

    def add_done_callback(self, fn: Callable[["grpc.Future[Response]"], None]) -> None:
        """Call back once it has ended."""
        self._future.add_done_callback(lambda _: fn(self))


class StreamCall(SyncCall, Iterator[Response], Generic[Response]):
    """A call with many answers: iterate over it. Raises ServiceError."""

    _ended: Outcome | None = None

    def __init__(self, line: Line, driver: Driver, exchange: GrpcExchange, message: GrpcMessage) -> None:
        self._end_lock = Lock()
        super().__init__(line, driver, exchange, message)

    @staticmethod
    def _runs(driver: Driver, running: Flow[Any]) -> Any:
        delivered = driver.advance(running)
        assert not isinstance(delivered, Ended), "a call that is streamed delivers or raises"
        return delivered.value

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Response:
        stream: SyncStream = self._future.result()
        if self._ended is None:
            outcome = stream.read()
            if outcome.response is not None and not outcome.status:
                message: Response = outcome.response
                return message
            self._end(CANCELLED if self._rpc.is_cancelled else outcome)
        assert self._ended is not None
        assert self._exchange.call is not None
        self._exchange.conclude(self._exchange.call, self._ended)
        raise StopIteration

    def _end(self, outcome: Outcome) -> None:
        """Tell the flow how the stream ended."""
        with self._end_lock:
            if self._ended is not None:
                return
            self._ended = outcome
        self._driver.advance(self._flow, outcome)

    def is_active(self) -> bool:
        """Say whether it has not ended yet."""
        return self._ended is None and not (self._future.done() and self._future.exception() is not None)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call back once it has ended; answers False where it has."""
        if not self.is_active():
            return False

        def attend(future: Future[Any]) -> None:
            if future.exception() is not None or not future.result().rpc.add_callback(callback):
                callback()

        self._future.add_done_callback(attend)
        return True

    def cancel(self) -> bool:
        """Cancel it; answers whether there was anything left to cancel."""
        if not self.is_active():
            return False
        self._rpc.cancel()
        if self._future.done():
            self._end(CANCELLED)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def __del__(self) -> None:
        # As grpcio's: whoever lets go of a stream does not want the rest of it.
        if self._ended is None:
            self._rpc.cancel()
            with suppress(RuntimeError, ValueError):
                self._flow.close()
