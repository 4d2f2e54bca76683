"""What takes the place of grpc.aio's wire where the server is mocked."""

import asyncio
from collections.abc import AsyncIterable, Callable
from typing import Any

import grpc.aio
from grpc import StatusCode

from servicelink.calls.call import CANCELLED, Outcome
from servicelink.calls.flow import Send
from servicelink.grpc.exchange import FINE, answered
from servicelink.grpc.methods import GrpcMessage
from servicelink.grpc.mocked import GrpcScript, Played
from servicelink.otel import each_resumed, each_resumed_async


class AioMockRpc:
    """What stands for grpc.aio's call of an attempt."""

    def __init__(self, played: Played, limit: float) -> None:
        self._played = played
        self._limit = limit
        self._over = asyncio.Event()
        self._written = asyncio.Event()
        self.taking: asyncio.Future[None] | None = None
        self._callbacks: list[Callable[[Any], None]] = []

    def end(self) -> None:
        """Take note that it has ended."""
        if not self._over.is_set():
            self._over.set()
            for callback in self._callbacks:
                callback(self)

    async def until_written(self) -> None:
        """Wait until its caller has written all messages."""
        await self._written.wait()

    async def write(self, data: bytes) -> None:
        """Take a message."""
        self._played.take_written(data)

    async def done_writing(self) -> None:
        """Take no more messages."""
        self._written.set()

    def cancel(self) -> bool:
        """End it, as its caller's."""
        self._played.end(CANCELLED)
        self.end()
        return True

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back at its end."""
        if self._over.is_set():
            callback(self)
        else:
            self._callbacks.append(callback)

    def time_remaining(self) -> float | None:
        """Answer the seconds that the attempt may take."""
        return None if self._limit == float("inf") else self._limit

    async def wait_for_connection(self) -> None:
        """It is connected."""

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """Answer none."""
        return grpc.aio.Metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """Answer none, at the end."""
        await self._over.wait()
        return grpc.aio.Metadata()

    async def code(self) -> StatusCode:
        """Answer the status, at the end."""
        await self._over.wait()
        return self._played.status

    async def details(self) -> str:
        """Answer nothing, at the end."""
        await self._over.wait()
        return ""


class AioMockStream:
    """A stream of answers that has begun."""

    def __init__(self, rpc: AioMockRpc, played: Played, first: Outcome | None) -> None:
        self.rpc = rpc
        self._played = played
        self._first = first

    async def read(self) -> Outcome:
        """Answer the next message, or how the stream ended."""
        first, self._first = self._first, None
        # As over a network, others run meanwhile: requests go out.
        await asyncio.sleep(0)
        outcome = self._played.next() if first is None else first
        if self._played.ended is not None:
            self.rpc.end()
        return outcome


class AioMockWire:
    """Takes the place of grpc.aio's wire."""

    def __init__(self, script: GrpcScript) -> None:
        self._script = script

    async def send(self, send: Send) -> Outcome:
        """Play one attempt."""
        message: GrpcMessage = send.call.message
        played = self._script.play(send)
        rpc = AioMockRpc(played, send.limit)
        if message.attached is not None:
            message.attached(rpc)
        if message.method.kind.streams_in:
            await self._take_requests(message, played, rpc)
        if not message.method.kind.streams_out:
            outcome = played.only()
            rpc.end()
            return outcome
        first = played.next()
        if played.ended is None or first is FINE:
            return answered(AioMockStream(rpc, played, None if first is FINE else first))
        rpc.end()
        return first

    @staticmethod
    async def _take_requests(message: GrpcMessage, played: Played, rpc: AioMockRpc) -> None:
        if message.request is None:
            if not message.method.kind.streams_out:
                await rpc.until_written()
            return
        taking = asyncio.ensure_future(_take_all(message.request, played))
        # A task that nobody refers to may vanish.
        rpc.taking = taking
        if message.method.kind.streams_out:
            # The answers do not wait for them.
            await asyncio.sleep(0)
        else:
            await taking

    async def discard(self, outcome: Outcome) -> None:
        """Let go of a stream that has begun."""
        if isinstance(outcome.response, AioMockStream):
            outcome.response.rpc.cancel()


async def _take_all(requests: Any, played: Played) -> None:
    try:
        if isinstance(requests, AsyncIterable):
            async for request in each_resumed_async(requests):
                played.take(request)
        else:
            for request in each_resumed(requests):
                played.take(request)
    except Exception as error:  # noqa: BLE001 - whoever reads the answers is told
        played.problems.append(error)
