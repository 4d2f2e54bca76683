"""What a person sees while something takes time: a live line on a terminal, timestamped lines everywhere else.

Everything goes to standard error, so that standard output carries only what a command answers.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from rich.console import Console
from rich.progress import Progress as LiveProgress
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn


class Progress:
    """Announces steps and, when each ends, how long it took (seconds, wall clock)."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @classmethod
    def on_stderr(cls) -> Self:
        """Make one for this process's standard error."""
        return cls(Console(file=sys.stderr, highlight=False, soft_wrap=True))

    @contextmanager
    def step(self, name: str, detail: str, *, done: str = "", expected: str = "") -> Iterator[None]:
        """Show a step while the block runs, and `done` (else `detail`) with the seconds it took once it is over.

        `expected` is said beside the running step, such as "about 6 min". A block that raises leaves no final line.
        """
        started = time.monotonic()
        with self._live(name, f"{detail} ({expected})" if expected else detail):
            yield
        self._finished(name, done or detail, time.monotonic() - started)

    def say(self, name: str, detail: str) -> None:
        """Show one line that stands for no waiting."""
        self._console.print(self._format(name, detail), markup=False)

    @contextmanager
    def _live(self, name: str, announced: str) -> Iterator[None]:
        if not self._console.is_terminal:
            self.say(name, f"{announced} …")
            yield
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        with LiveProgress(*columns, console=self._console, transient=True) as live:
            live.add_task(f"{name:<12} {announced}", total=None)
            yield

    def _finished(self, name: str, detail: str, seconds: float) -> None:
        self._console.print(f"{self._format(name, f'{detail:<66}')} {seconds:6.1f} s", markup=False)

    def _format(self, name: str, detail: str) -> str:
        mark = "▸" if self._console.is_terminal else time.strftime("%H:%M:%S")
        return f"{mark} {name:<12} {detail}"
