"""What a fork must not share: connections, what another thread held at that moment, and what was counted.

A forked child (gunicorn's `preload_app`, multiprocessing) has its parent's memory and none of its threads. Whoever
keeps connections compares `generation()`; whoever needs a lock takes one of these, which the child finds open; whoever
counts has itself renewed.
"""

import gc
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol as Interface


class _Process:
    generation = 0
    # Whether it was we who keep the garbage collector away.
    is_uncollected = False


class Renewable(Interface):
    """What begins anew in a forked child."""

    def renew(self) -> None:
        """Forget what was in the parent."""


_renewables: "weakref.WeakSet[Renewable]" = weakref.WeakSet()


def renew_in_children(one: Renewable) -> None:
    """Have it renewed in every forked child, as long as somebody refers to it."""
    _renewables.add(one)


class Lock:
    """A lock that is open in a forked child, whoever held it in the parent.

    `with lock:` is how to hold it; `with lock.inner:` the quicker way, for what every call does.
    """

    __slots__ = ("__weakref__", "inner")

    def __init__(self) -> None:
        self.inner = threading.Lock()
        renew_in_children(self)

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


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the garbage collector away: it would walk a growing state again and again, and all threads wait for it.

    For what holds no cycles, so that nothing is lost by it. A forked child collects again.
    """
    if not gc.isenabled():
        yield
        return
    # Before it holds, so that no fork comes in between.
    _Process.is_uncollected = True
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        _Process.is_uncollected = False


def _begin_child() -> None:
    _Process.generation += 1
    if _Process.is_uncollected:
        # The thread that would have done so is in the parent.
        gc.enable()
        _Process.is_uncollected = False
    for one in tuple(_renewables):
        one.renew()


# Not where nothing forks (Windows).
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_child)
