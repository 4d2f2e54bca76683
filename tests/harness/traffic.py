"""Traffic at a steady pace: calls that begin when it is their time, whether or not those before have ended."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

# Calls that are under way at most: a machine that falls behind makes fewer calls, not a heap of them.
MOST_OPEN = 48


@dataclass(slots=True)
class Traffic:
    """What came of calls: `answers` in the order of their coming, and what failed.

    `call` makes one, `rate` is how many begin in a second.
    """

    call: Callable[[], Awaitable[Any]]
    rate: float
    answers: list[Any] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    seconds: float = 0.0
    _ended: asyncio.Condition = field(default_factory=asyncio.Condition)
    _open: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def calls(self) -> int:
        """How many calls have ended."""
        return len(self.answers) + len(self.failures)

    async def turn(self, holds: Callable[[Any], bool] | None = None) -> None:
        """Wait until all that is under way has ended and one more was answered, with an answer of which this holds."""
        begun = set(self._open)
        if begun:
            await asyncio.wait(begun)
        seen = len(self.answers)
        async with self._ended:
            await self._ended.wait_for(
                lambda: any(holds is None or holds(answer) for answer in self.answers[seen:]) or self.failures
            )

    async def _one(self) -> None:
        try:
            answer = await self.call()
        except Exception as error:  # noqa: BLE001 - that one failed is what is counted
            async with self._ended:
                self.failures.append(error)
                self._ended.notify_all()
            return
        async with self._ended:
            self.answers.append(answer)
            self._ended.notify_all()

    async def _run(self) -> None:
        began, count = time.monotonic(), 0
        while True:
            due = int((time.monotonic() - began) * self.rate)
            while count < due:
                count += 1
                if len(self._open) < MOST_OPEN:
                    task = asyncio.create_task(self._one())
                    self._open.add(task)
                    task.add_done_callback(self._open.discard)
            await asyncio.sleep(1 / self.rate)


@asynccontextmanager
async def flowing(call: Callable[[], Awaitable[Any]], rate: float) -> AsyncIterator[Traffic]:
    """Have calls flow until the block ends, and those under way end."""
    traffic = Traffic(call, rate)
    began = time.monotonic()
    pacing = asyncio.create_task(traffic._run())  # noqa: SLF001 - its own
    try:
        yield traffic
    finally:
        pacing.cancel()
        await asyncio.gather(pacing, return_exceptions=True)
        await asyncio.gather(*traffic._open)  # noqa: SLF001 - as above
        traffic.seconds = time.monotonic() - began
