"""The fence: a write goes out only while the Lease is ours by this process's own clock.

A leader that was stopped longer than its Lease lasts, and goes on, has writes under way whose workers know nothing of
it; the task that renews the Lease learns of its loss only with the answer to its next request. So every write looks at
the clock itself, at the last moment there is: when a connection was waited for, and the first byte would be handed to
it (docs/decisions/0015-a-fence-on-writes.md).
"""

import time

from aiohttp import BytesPayload
from aiohttp.abc import AbstractStreamWriter

from servicelink_operator.cluster.errors import FencedError

# Unlike the monotonic clock, Linux' boot-time clock goes on while the machine is suspended, as other machines' do.
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def fence_clock() -> float:
    """Answer the fence's time: seconds that nobody can set, counted also while process or machine are stopped."""
    return time.clock_gettime(_CLOCK)


class Fence:
    """Closed until it is opened; then open until a time of `fence_clock`, which may be put off or taken back."""

    def __init__(self) -> None:
        self._until = float("-inf")

    def open_until(self, until: float) -> None:
        """Let writes through until then."""
        self._until = until

    def close(self) -> None:
        """Let no write through."""
        self._until = float("-inf")

    def require_open(self) -> None:
        """Raise FencedError where no write may go out."""
        if fence_clock() >= self._until:
            raise FencedError("the Lease was not renewed in time; another process may lead")


class FencedBody(BytesPayload):
    """A request's body that is not sent, nor the headers before it, once the fence is closed.

    aiohttp holds the headers back until the body's first bytes are written, so that both go in one packet. Raised in
    here, FencedError arrives at the sender as the cause of an aiohttp.ClientConnectionError.
    """

    def __init__(self, value: bytes, fence: Fence) -> None:
        super().__init__(value)
        self._fence = fence

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Write the body, unless the fence is closed."""
        # Nothing may come between the two: any await lets others run, and the time they take is the window.
        self._fence.require_open()
        await super().write_with_length(writer, content_length)
