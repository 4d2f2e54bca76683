"""Where this tool keeps things: one folder under the user's cache, and nothing outside it.

<cache>/servicelink/devcluster/
  programs/<module>-<version>-<fingerprint>/<program>    built once per machine
  images/          base images and built image archives; buildah's own storage
  clusters/<name>/ a cluster's state, gone after `down`
  locks/
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

from platformdirs import user_cache_path


def cache_folder() -> Path:
    """Answer the root of everything; `XDG_CACHE_HOME` moves it."""
    return user_cache_path("servicelink") / "devcluster"


def programs_folder() -> Path:
    """Answer where built programs are kept."""
    return cache_folder() / "programs"


def images_folder() -> Path:
    """Answer where images are kept."""
    return cache_folder() / "images"


def clusters_folder() -> Path:
    """Answer where clusters keep their state."""
    return cache_folder() / "clusters"


@contextmanager
def locked(name: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock of that name, among all who share this cache; `waiting` is called once if another holds it.

    The kernel drops the lock with its holder, so a killed command leaves nothing to clean up.
    """
    folder = cache_folder() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as file:
        _take(file.fileno(), waiting)
        yield


@contextmanager
def host_locked() -> Iterator[None]:
    """Hold the lock for this host's network, among all users and caches of the machine.

    It is on a folder that every Linux has, so that there is no lock file to leave behind.
    """
    descriptor = os.open("/run", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _take(descriptor, None)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, waiting: Callable[[], None] | None) -> None:
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        if waiting:
            waiting()
        flock(descriptor, LOCK_EX)
