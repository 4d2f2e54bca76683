"""The pace of rollouts: each workload's at most once in a while, and not too many workloads' at once.

Of those many one namespace may have half, and none for longer than a minute: workloads that never become ready, all of
one tenant, would hold up everybody's otherwise.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from servicelink_operator.reconcile.keys import Key

# A rollout that takes longer no longer keeps others waiting.
FORGOTTEN_AFTER = 60.0
# How soon to look again whether one of those at work has finished.
LOOK_AGAIN = 5.0


class Rollouts:
    """When templates were changed; `pause` seconds between two of one workload, `at_a_time` 0 is without limit.

    Times are seconds of the event loop.
    """

    def __init__(self, pause: float, at_a_time: int) -> None:
        self._pause = pause
        self._at_a_time = at_a_time
        self._changed: dict[Key, float] = {}
        self._changing: set[Key] = set()

    def own_pause(self, key: Key, now: float) -> float:
        """Answer how long a workload's next change must wait since its last."""
        return max(0.0, self._changed.get(key, now - self._pause) + self._pause - now)

    def is_full(self, key: Key, now: float, rolls: Callable[[Key], bool]) -> bool:
        """Answer whether a workload must wait for others that are being rolled out; `rolls` says so of one."""
        if not self._at_a_time:
            return False
        recent = {one for one, at in self._changed.items() if now - at < FORGOTTEN_AFTER} - self._changing
        busy = [*self._changing, *filter(rolls, recent)]
        neighbours = sum(one.namespace == key.namespace for one in busy)
        return len(busy) >= self._at_a_time or neighbours >= max(1, self._at_a_time // 2)

    @contextmanager
    def changing(self, key: Key, clock: Callable[[], float]) -> Iterator[None]:
        """Count a workload while its template is being changed, and afterwards unless that failed."""
        self._changing.add(key)
        try:
            yield
            self._changed[key] = clock()
        finally:
            self._changing.discard(key)
        self._forget(clock() - max(self._pause, FORGOTTEN_AFTER))

    def _forget(self, oldest: float) -> None:
        for key in [key for key, at in self._changed.items() if at < oldest]:
            del self._changed[key]
