"""What was worked out once and is asked for again: a dictionary that works out what it lacks, and stays small.

For decisions that depend on nothing but their key. It is bounded in number and, by `wants`, in what it keeps, because
its keys come from callers. Full, it forgets everything: the few that are asked for all the time are back at once, and
nothing has to be noted when one is found.
"""

from collections.abc import Callable
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

MOST = 4096


class Memo(dict[K, V]):
    """`memo[key]` is what `work_out(key)` answers; at most `most` are kept, and of those `wants(key)` says yes to.

    Threads may share it: two that ask for the same at once both work it out.
    """

    __slots__ = ("_most", "_wants", "_work_out")

    def __init__(self, work_out: Callable[[K], V], *, wants: Callable[[K], bool], most: int = MOST) -> None:
        super().__init__()
        self._work_out = work_out
        self._wants = wants
        self._most = most

    def __missing__(self, key: K) -> V:
        value = self._work_out(key)
        if self._wants(key):
            if len(self) >= self._most:
                self.clear()
            self[key] = value
        return value
