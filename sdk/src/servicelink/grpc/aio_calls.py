"""Calls under way, as grpc.aio's calls look to the code that made them.

A call begins when it is made, in a task: it may take several attempts. So what grpcio tells of a call is that of its
last attempt. The task does not refer to the call, so that a stream which nobody holds any more is cancelled, as in
grpc.aio.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc
import grpc.aio

from servicelink.calls.call import CANCELLED, Outcome
from servicelink.calls.drive import AsyncDriver, Ended
from servicelink.calls.flow import Flow, flow
from servicelink.calls.line import Line
from servicelink.grpc.aio_wire import AioStream
from servicelink.grpc.exchange import GrpcExchange
from servicelink.grpc.methods import GrpcMessage

Request = TypeVar("Request")
Response = TypeVar("Response")


class _Attached:
    """grpcio's call of the newest attempt, once there is one."""

    __slots__ = ("_future",)

    def __init__(self) -> None:
        self._future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def attach(self, rpc: Any) -> None:
        if self._future.done():
            self._future = asyncio.get_running_loop().create_future()
        self._future.set_result(rpc)

    def note_end(self, task: asyncio.Task[Any]) -> None:
        """Take note that there will be no further one; nobody is told of an error that nobody asked for."""
        problem = None if task.cancelled() else task.exception()
        if not self._future.done():
            self._future.set_exception(problem or asyncio.CancelledError())
            self._future.exception()

    def __await__(self) -> Generator[Any, None, Any]:
        return (yield from asyncio.shield(self._future).__await__())

    def current(self) -> Any:
        """Answer it, None where there was never one."""
        done = self._future.done() and not self._future.cancelled() and self._future.exception() is None
        return self._future.result() if done else None


class AioCall:
    """What all four kinds have: the face of grpc.aio.Call."""

    def __init__(self, line: Line, driver: AsyncDriver, exchange: GrpcExchange, message: GrpcMessage) -> None:
        self._driver = driver
        self._exchange = exchange
        self._rpc = _Attached()
        message.attached = self._rpc.attach
        self._pack = message.method.pack
        self._flow: Flow[Any] = flow(line, exchange)
        self._task: asyncio.Task[Any] = asyncio.ensure_future(self._runs(driver, self._flow))
        self._task.add_done_callback(self._rpc.note_end)

    @staticmethod
    async def _runs(driver: AsyncDriver, running: Flow[Any]) -> Any:
        return await driver.run(running)

    def cancelled(self) -> bool:
        """Say whether it was cancelled."""
        return self._task.cancelled()

    def done(self) -> bool:
        """Say whether it has ended."""
        return self._task.done()

    def time_remaining(self) -> float | None:
        """Answer the seconds until its deadline, None where there is none, or none yet."""
        rpc = self._rpc.current()
        return None if rpc is None else rpc.time_remaining()

    def cancel(self) -> bool:
        """Cancel it; answers whether there was anything left to cancel."""
        return self._task.cancel()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back once it has ended."""
        self._task.add_done_callback(lambda _: callback(self))

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """Wait for what the server sends before its first answer."""
        found: grpc.aio.Metadata = await (await self._rpc).initial_metadata()
        return found

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """Wait for the end, and answer what the server sent with it."""
        rpc = await self._last()
        return grpc.aio.Metadata() if rpc is None else await rpc.trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        """Wait for the end, and answer its status; UNAVAILABLE where nothing was sent."""
        rpc = await self._last()
        if rpc is None:
            return grpc.StatusCode.CANCELLED if self.cancelled() else grpc.StatusCode.UNAVAILABLE
        code: grpc.StatusCode = await rpc.code()
        return code

    async def details(self) -> str:
        """Wait for the end, and answer what the server said of it."""
        rpc = await self._last()
        return "" if rpc is None else await rpc.details() or ""

    async def wait_for_connection(self) -> None:
        """Wait until it has been sent; raises ServiceError where it never was."""
        await (await self._rpc).wait_for_connection()

    async def _last(self) -> Any:
        await asyncio.wait([self._task])
        return self._rpc.current()


class _Writer(AioCall):
    """What calls with a stream of requests have."""

    async def write(self, request: Any) -> None:
        """Send one message; raises ServiceError where the call has ended."""
        rpc = await self._rpc
        try:
            await rpc.write(self._pack(request))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self._raise_end()
            raise

    async def done_writing(self) -> None:
        """Say that no more messages come."""
        await (await self._rpc).done_writing()

    async def _raise_end(self) -> None:
        """Raise the error of the end, if it was one."""
        await self._task


class UnaryCall(AioCall, grpc.aio.UnaryUnaryCall[Request, Response], Generic[Request, Response]):
    """A call with one request and one answer: await it. Raises ServiceError."""

    def __await__(self) -> Generator[Any, None, Response]:
        response: Response = yield from self._task
        return response


class CollectedCall(_Writer, grpc.aio.StreamUnaryCall[Request, Response], Generic[Request, Response]):
    """A call with many requests and one answer: await it. Raises ServiceError."""

    def __await__(self) -> Generator[Any, None, Response]:
        response: Response = yield from self._task
        return response


class _Reader(AioCall):
    """What calls with a stream of answers have; the flow ends when the stream does."""

    _ended: Outcome | None = None

    @staticmethod
    async def _runs(driver: AsyncDriver, running: Flow[Any]) -> Any:
        delivered = await driver.advance(running)
        assert not isinstance(delivered, Ended), "a call that is streamed delivers or raises"
        return delivered.value

    async def read(self) -> Any:
        """Answer the next message, grpc.aio.EOF after the last one; raises ServiceError where it breaks off."""
        stream: AioStream = await self._task
        if self._ended is None:
            try:
                outcome = await stream.read()
            except BaseException:
                await self._end(CANCELLED)
                raise
            if outcome.response is not None and not outcome.status:
                return outcome.response
            await self._end(outcome)
        return self._conclude()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        message = await self.read()
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        return message

    def _conclude(self) -> Any:
        outcome, call = self._ended, self._exchange.call
        assert outcome is not None
        assert call is not None
        if outcome is CANCELLED:
            raise asyncio.CancelledError
        self._exchange.conclude(call, outcome)
        return grpc.aio.EOF

    async def _end(self, outcome: Outcome) -> None:
        """Tell the flow how the stream ended."""
        if self._ended is None:
            self._ended = outcome
            await self._driver.advance(self._flow, outcome)

    def cancel(self) -> bool:
        """Cancel it; answers whether there was anything left to cancel."""
        if not self._task.done():
            return self._task.cancel()
        if self.done():
            return False
        self._ended = CANCELLED
        self._task.result().rpc.cancel()
        ending = asyncio.ensure_future(self._driver.advance(self._flow, CANCELLED))
        _endings.add(ending)
        ending.add_done_callback(_endings.discard)
        return True

    def cancelled(self) -> bool:
        """Say whether it was cancelled."""
        return self._task.cancelled() or self._ended is CANCELLED

    def done(self) -> bool:
        """Say whether it has ended."""
        if self._ended is not None:
            return True
        return self._task.done() and (self._task.cancelled() or self._task.exception() is not None)

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back once it has ended."""

        def attend(task: asyncio.Task[Any]) -> None:
            if task.cancelled() or task.exception() is not None:
                callback(self)
            else:
                task.result().rpc.add_done_callback(lambda _: callback(self))

        self._task.add_done_callback(attend)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()
        await asyncio.wait([self._task, *_endings])

    def __del__(self) -> None:
        # As grpc.aio's: whoever lets go of a stream does not want the rest of it.
        if self._ended is not None:
            return
        if not self._task.done():
            with suppress(RuntimeError):
                self._task.cancel()
        elif not self._task.cancelled() and self._task.exception() is None:
            self._task.result().rpc.cancel()
            with suppress(RuntimeError):
                self._flow.close()


# Ends of streams that were cancelled; a task that nobody refers to may vanish.
_endings: set[asyncio.Future[Any]] = set()


class StreamedCall(_Reader, grpc.aio.UnaryStreamCall[Request, Response], Generic[Request, Response]):
    """A call with one request and many answers: iterate over it. Raises ServiceError."""


class BothStreamedCall(_Reader, _Writer, grpc.aio.StreamStreamCall[Request, Response], Generic[Request, Response]):
    """A call with many requests and many answers. Raises ServiceError."""

    async def _raise_end(self) -> None:
        await self.read()
