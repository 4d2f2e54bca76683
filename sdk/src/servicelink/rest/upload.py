"""Bodies on their way to the server in pieces, and the time that each may take."""

import asyncio
import math
from collections.abc import AsyncIterator

from servicelink.rest.fields import Measure

# Bytes. What a socket takes without waiting; larger bodies go in pieces, to notice a server that stops reading.
PIECE = 65536


class Deadline:
    """Until when an attempt may last, None where it may for ever; it does not move once that `is_over`."""

    __slots__ = ("_limit", "_until", "is_over")

    def __init__(self, limit: asyncio.Timeout) -> None:
        self._limit = limit
        self._until = limit.when()
        self.is_over = False

    def bring_forward(self, when: float) -> None:
        """Have the attempt end at a time of the event loop, if that is earlier."""
        self._move(when if self._until is None else min(self._until, when))

    def restore(self) -> None:
        """Have it end when it was to end."""
        self._move(self._until)

    def _move(self, when: float | None) -> None:
        if not self.is_over and not self._limit.expired():
            self._limit.reschedule(when)


class Upload:
    """A body in pieces; whoever takes one must come back for the next within `write_timeout` seconds.

    `problem` is what the application raised while it made them, which aiohttp takes for a connection that broke.
    """

    __slots__ = ("_measure", "_pieces", "_write_timeout", "deadline", "problem")

    deadline: Deadline

    def __init__(self, pieces: AsyncIterator[bytes], measure: Measure, write_timeout: float) -> None:
        self._pieces = pieces
        self._measure = measure
        self._write_timeout = write_timeout
        self.problem: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._pieces:
                self._measure.count(piece)
                self._wait_no_longer()
                yield piece
                self.deadline.restore()
            self._measure.finish()
        except Exception as error:
            self.problem = error
            raise

    def _wait_no_longer(self) -> None:
        if self._write_timeout < math.inf:
            self.deadline.bring_forward(asyncio.get_running_loop().time() + self._write_timeout)


async def split(content: bytes) -> AsyncIterator[bytes]:
    """Hand out bytes in such pieces."""
    view = memoryview(content)
    for start in range(0, len(view), PIECE):
        yield bytes(view[start : start + PIECE])
