"""The two drivers of a flow: they do what it yields and send it what came of it, and know nothing of any protocol."""

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from typing import Protocol as Interface

from servicelink.calls.call import Outcome
from servicelink.calls.flow import Await, Deliver, Discard, Flow, OutOfTimeError, Send, Sleep, Step
from servicelink.otel import suppressed

T = TypeVar("T")


class Wire(Interface):
    """Makes attempts of one protocol; whatever goes wrong is an Outcome, and `limit` is kept."""

    def send(self, send: Send) -> Outcome:
        """Make one attempt."""

    def discard(self, outcome: Outcome) -> None:
        """Let go of a stream that has begun."""


class AsyncWire(Interface):
    """As `Wire`, asynchronously."""

    async def send(self, send: Send) -> Outcome:
        """Make one attempt."""

    async def discard(self, outcome: Outcome) -> None:
        """Let go of a stream that has begun."""


@dataclass(frozen=True, slots=True)
class Ended(Generic[T]):
    """A flow's end, and what it answers."""

    value: T


@dataclass(frozen=True, slots=True)
class Driver:
    """Runs flows over a wire; `sleep` waits seconds."""

    wire: Wire
    sleep: Callable[[float], None] = time.sleep

    def run(self, flow: Flow[T]) -> T:
        """Answer what a unary call answers."""
        ended = self.advance(flow)
        assert isinstance(ended, Ended), "a unary call delivers no stream"
        return ended.value

    def advance(self, flow: Flow[T], came: Outcome | None = None) -> Deliver | Ended[T]:
        """Go on until a stream is delivered or all is done; `came` is how a delivered stream ended."""
        try:
            step = flow.send(came)
            while not isinstance(step, Deliver):
                try:
                    done = self._do(step)
                except BaseException as error:  # noqa: BLE001 - the flow decides, and frees what it holds
                    step = flow.throw(error)
                else:
                    step = flow.send(done)
        except StopIteration as ended:
            return Ended(ended.value)
        return step

    def _do(self, step: Step) -> Any:
        if isinstance(step, Send):
            with suppressed():
                return self.wire.send(step)
        if isinstance(step, Sleep):
            return self.sleep(step.seconds)
        if isinstance(step, Discard):
            return self.wire.discard(step.outcome)
        raise TypeError("asynchronous interceptors need an asynchronous client")


async def _sleep(seconds: float) -> None:
    import asyncio  # noqa: PLC0415 - synchronous programs do without

    await asyncio.sleep(seconds)


async def _await(step: Await) -> Any:
    import asyncio  # noqa: PLC0415 - as above

    try:
        async with asyncio.timeout(None if step.limit == math.inf else step.limit) as limit:
            return await step.awaitable
    except TimeoutError as error:
        if limit.expired():
            raise OutOfTimeError from error
        raise


@dataclass(frozen=True, slots=True)
class AsyncDriver:
    """As `Driver`, asynchronously."""

    wire: AsyncWire
    sleep: Callable[[float], Awaitable[None]] = field(default=_sleep)

    async def run(self, flow: Flow[T]) -> T:
        """Answer what a unary call answers."""
        ended = await self.advance(flow)
        assert isinstance(ended, Ended), "a unary call delivers no stream"
        return ended.value

    async def advance(self, flow: Flow[T], came: Outcome | None = None) -> Deliver | Ended[T]:
        """Go on until a stream is delivered or all is done; `came` is how a delivered stream ended."""
        try:
            step = flow.send(came)
            while not isinstance(step, Deliver):
                try:
                    done = await self._do(step)
                except BaseException as error:  # noqa: BLE001 - the flow decides, and frees what it holds
                    step = flow.throw(error)
                else:
                    step = flow.send(done)
        except StopIteration as ended:
            return Ended(ended.value)
        return step

    async def _do(self, step: Step) -> Any:
        if isinstance(step, Send):
            with suppressed():
                return await self.wire.send(step)
        if isinstance(step, Sleep):
            return await self.sleep(step.seconds)
        if isinstance(step, Discard):
            return await self.wire.discard(step.outcome)
        assert isinstance(step, Await)
        return await _await(step)
