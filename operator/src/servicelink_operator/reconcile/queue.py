"""A work queue after client-go's: each key once, never two reconciles of a key at a time, fair between namespaces.

A key that is rung while it is worked on is worked on again afterwards. A key has one deadline, the earliest asked for
since it was last taken.
Namespaces take turns, so that a tenant with a thousand keys delays another's one key by one reconcile, not a thousand.
"""

import asyncio
import heapq
import random
from collections import OrderedDict, deque
from contextlib import suppress

from servicelink_operator.reconcile.keys import Key

FIRST_BACKOFF = 0.2
LONGEST_BACKOFF = 60.0


class WorkQueue:
    """Keys that are due, keys with a deadline, keys being worked on; times in seconds of the running event loop."""

    def __init__(self) -> None:
        self._due: OrderedDict[str, deque[Key]] = OrderedDict()
        self._queued: set[Key] = set()
        self._working: set[Key] = set()
        self._again: set[Key] = set()
        self._deadlines: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._failures: dict[Key, int] = {}
        self._count = 0
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._queued)

    def add(self, key: Key, after: float = 0.0) -> None:
        """Ask for a reconcile, now or after so many seconds; an earlier deadline stays."""
        if after > 0:
            self._add_later(key, asyncio.get_running_loop().time() + after)
        elif key in self._working:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._due.setdefault(key.namespace, deque()).append(key)
            self._idle.clear()
            self._changed.set()

    async def take(self) -> Key:
        """Answer the next key, waiting for one; it is being worked on until `done`."""
        while True:
            self._collect_due()
            if self._due:
                return self._pop()
            self._changed.clear()
            await self._wait()

    def done(self, key: Key, *, failed: bool = False, pause: float = 0.0) -> None:
        """Say that the work on a key has ended; a failed one comes again, after backoff and no less than `pause`."""
        self._working.discard(key)
        if failed:
            self._failures[key] = self._failures.get(key, 0) + 1
            longest = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(self._failures[key], 12))
            after = max(random.uniform(longest / 2, longest), pause * random.uniform(1, 1.5))  # noqa: S311 (spreads retries)
            self.add(key, after)
        else:
            self._failures.pop(key, None)
        if key in self._again:
            self._again.discard(key)
            self.add(key)
        if not self._queued and not self._working:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Wait until nothing is due and nothing is being worked on; deadlines to come do not count."""
        await self._idle.wait()

    def _add_later(self, key: Key, when: float) -> None:
        if when < self._deadlines.get(key, float("inf")):
            self._deadlines[key] = when
            self._count += 1
            heapq.heappush(self._heap, (when, self._count, key))
            self._changed.set()

    def _collect_due(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._heap and self._heap[0][0] <= now:
            when, _, key = heapq.heappop(self._heap)
            if self._deadlines.get(key) == when:
                del self._deadlines[key]
                self.add(key)

    def _pop(self) -> Key:
        namespace, keys = self._due.popitem(last=False)
        key = keys.popleft()
        if keys:
            # To the end of the line: the next namespace is next.
            self._due[namespace] = keys
        self._queued.discard(key)
        self._working.add(key)
        # Whoever works on it says anew when it is to come again.
        self._deadlines.pop(key, None)
        return key

    async def _wait(self) -> None:
        # Not asyncio.wait_for, which before Python 3.12 swallows a cancellation that comes while its event is set: a
        # leader that lost its Lease would wait for its workers for ever.
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._heap[0][0] if self._heap else None):
                await self._changed.wait()
