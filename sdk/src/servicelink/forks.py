"""What a fork must not share: connections, and locks that another thread held at that moment.

A forked child (gunicorn's `preload_app`, multiprocessing) has its parent's memory and none of its threads. Whoever
keeps connections compares `generation()`; whoever needs a lock takes one of these, which the child finds open.
"""

import os
import threading
import weakref
from types import TracebackType


class _Process:
    generation = 0


_locks: "weakref.WeakSet[Lock]" = weakref.WeakSet()


class Lock:
    """A lock that is open in a forked child, whoever held it in the parent.

    `with lock:` is how to hold it; `with lock.inner:` the quicker way, for what every call does.
    """

    __slots__ = ("__weakref__", "inner")

    def __init__(self) -> None:
        self.inner = threading.Lock()
        _locks.add(self)

    def __enter__(self) -> None:
        self.inner.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.inner.release()

    def renew(self) -> None:
        """Forget who holds it."""
        self.inner = threading.Lock()


def generation() -> int:
    """Answer a number that differs between a process and its forked children."""
    return _Process.generation


def _begin_child() -> None:
    _Process.generation += 1
    for lock in tuple(_locks):
        lock.renew()


# Not where nothing forks (Windows).
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_child)
