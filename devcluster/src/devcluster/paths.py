"""Where this tool keeps things: one folder under the user's cache, and nothing outside it.

<cache>/servicelink/devcluster/
  programs/<module>-<version>-<fingerprint>/<program>    built once per machine
  images/          base images and built image archives; buildah's own storage
  clusters/<name>/ a cluster's state, gone after `down`
  locks/
"""

from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
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
def locked(name: str) -> Iterator[None]:
    """Hold the machine-wide lock of that name; waits as long as another process holds it.

    The kernel drops the lock with its holder, so a killed command leaves nothing to clean up.
    """
    folder = cache_folder() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as file:
        flock(file, LOCK_EX)
        yield
