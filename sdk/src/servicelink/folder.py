"""A folder that somebody else swaps under us: noticed on use, read as one, the last good state kept.

The kubelet writes a mounted Secret, ConfigMap or projected volume into a new folder and swaps one symbolic link,
`..data`, to it. So one readlink tells whether anything changed, and files read through its target belong together; read
through the outer names they might not. Where there is no `..data` (a laptop, a test) modification times tell, which
cannot say that files belong together. No thread and no inotify: neither survives a fork, and use is the only time that
matters.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from servicelink import forks

T = TypeVar("T")

# Seconds. Well below what a person notices, and rare enough not to show in a profile.
CHECK_EVERY = 0.05
_DATA = "..data"
# How often a state is read anew because it was swapped while it was read; then the last good one serves a while longer.
_TRIES = 4


class SwappedFolder(Generic[T]):
    """What `parse` makes of the files of a folder, checked on use at most every 50 ms.

    `parse` is given the folder to read from; it raises ValueError or OSError for files that are no good, and then, as
    with any other error, the last good state stays. `pattern` names the files that are looked at where there is no
    `..data`, `title` what a problem is said of (the folder). What `is_large` is parsed in a thread while the state
    before is answered. Thread-safe.
    """

    def __init__(
        self,
        folder: Path,
        parse: Callable[[Path], T],
        *,
        pattern: str = "*",
        title: str = "",
        clock: Callable[[], float] = time.monotonic,
        is_large: Callable[[Path], bool] | None = None,
    ) -> None:
        self._folder = folder
        self._link = folder / _DATA
        self._parse = parse
        self._pattern = pattern
        self._title = title or str(folder)
        self._clock = clock
        self._lock = forks.Lock()
        self._checked: float | None = None
        self._mark: object = None
        self._good: T | None = None
        self._problem: str | None = None
        self._is_large = is_large
        # In which process a thread is reading: a forked child has none.
        self._reading_in: int | None = None

    @property
    def folder(self) -> Path:
        """The folder that is looked at."""
        return self._folder

    @property
    def problem(self) -> str | None:
        """Why the newest state could not be taken, in words; None when it was."""
        return self._problem

    def current(self) -> T | None:
        """Answer the newest good state, at most 50 ms old; None while there has been none."""
        is_due = self._is_unread() or self._checked is None or self._clock() - self._checked >= CHECK_EVERY
        if is_due and (self._good is None or self._is_large is None or not self._read_aside()):
            self.reload()
        return self._good

    def reload(self) -> T | None:
        """As `current`, but checked now."""
        with self._lock:
            self._checked = self._clock()
            self._refresh()
        return self._good

    def _is_unread(self) -> bool:
        """Say whether another thread is reading for the first time: there is nothing yet that could be answered."""
        return self._good is None and self._problem is None

    def _read_aside(self) -> bool:
        """Say whether a thread reads what is new, or nothing is: then nobody has to wait."""
        assert self._is_large is not None
        self._checked = self._clock()
        if self._reading_in == forks.generation():
            return True
        try:
            folder, mark = self._observe()
            if mark == self._mark:
                return True
            if not self._is_large(folder):
                return False
        except OSError:
            return False
        return self._start_reading()

    def _start_reading(self) -> bool:
        self._reading_in = forks.generation()
        try:
            threading.Thread(target=self._reload_aside, name="servicelink-reload", daemon=True).start()
        except RuntimeError:
            # No thread to be had: a request that waits is better than a revoked key that stays accepted.
            self._reading_in = None
            return False
        return True

    def _reload_aside(self) -> None:
        try:
            with forks.uncollected():
                self.reload()
        finally:
            self._reading_in = None

    def _refresh(self) -> None:
        for _ in range(_TRIES):
            try:
                folder, mark = self._observe()
                if mark == self._mark:
                    return
                found = self._parse(folder)
            except (OSError, MemoryError) as error:
                # The mark stays as it was, so that the next check tries again: it may have been swapped meanwhile, and
                # what was too much for this moment may hold a revocation.
                place, reason = getattr(error, "filename", None), getattr(error, "strerror", None)
                self._problem = f"{place or self._folder} cannot be read: {reason or type(error).__name__}"
            except Exception as error:  # noqa: BLE001 - whatever is wrong with files of others, no call may fail by it
                if self._stands(mark):
                    # The words of an error that nobody foresaw might quote a key.
                    reason = error if isinstance(error, ValueError) else type(error).__name__
                    self._mark, self._problem = mark, f"{self._title} is not understood: {reason}"
                    return
            else:
                if self._stands(mark):
                    self._good, self._mark, self._problem = found, mark, None
                    return

    def _stands(self, mark: object) -> bool:
        """Say whether what was read is still there: a file that went away with its folder looks like an absent one."""
        try:
            return self._observe()[1] == mark
        except OSError:
            return False

    def _observe(self) -> tuple[Path, object]:
        try:
            target = self._link.readlink()
        except FileNotFoundError:
            return self._folder, self._times()
        return self._folder / target, target

    def _times(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        # Without this an absent folder would look like an empty one.
        self._folder.stat()
        return tuple(filter(None, map(_time, sorted(self._folder.glob(self._pattern)))))


def _time(path: Path) -> tuple[str, tuple[int, ...]] | None:
    try:
        stat = path.stat()
    except OSError:
        # A link to nowhere, as editors make one to lock a file, says nothing of the files that are there.
        return None
    # Whoever writes a file may set its time of modification back, but not that of its last change.
    return path.name, (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)
