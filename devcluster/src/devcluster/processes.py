"""A cluster's processes, found by a mark in their environment.

Nothing is written down about a process: its mark is there from its first instruction, so that a tool killed between
starting a component and recording it leaves nothing that `down` would not find. Only marked processes are ever ended.
"""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from devcluster.errors import DevclusterError

CLUSTER_MARK = "SERVICELINK_DEVCLUSTER"
COMPONENT_MARK = "SERVICELINK_DEVCLUSTER_COMPONENT"


@dataclass(frozen=True, slots=True)
class Component:
    """A component that was started, and the file its output goes to."""

    process: psutil.Popen
    log: Path


def start(folder: Path, component: str, argv: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Component:
    """Start a component of the cluster in `folder`, detached from this process, its output going to its log file."""
    path = log_path(folder, component)
    with path.open("ab") as log:
        process = psutil.Popen(
            [str(word) for word in argv],
            env={**os.environ, **(env or {}), CLUSTER_MARK: str(folder), COMPONENT_MARK: component},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return Component(process, path)


def log_path(folder: Path, component: str) -> Path:
    """Answer the log file of a component."""
    return folder / "logs" / f"{component}.log"


def components(folder: Path) -> dict[str, psutil.Process]:
    """Answer the living marked processes by component; of a parent and child with one mark, the parent."""
    marked = {process.pid: process for process in _marked(folder)}
    found = {}
    for process in marked.values():
        with suppress(psutil.NoSuchProcess):
            if process.ppid() not in marked:
                found[process.environ()[COMPONENT_MARK]] = process
    return found


def end_all(folder: Path, *, deadline: float = 20) -> None:
    """End every process of that cluster and wait until none is left, at most `deadline` seconds.

    They are killed outright: their state is thrown away with them. This process is spared: the one that takes a
    cluster down at its owner's end is marked itself.
    """
    until = time.monotonic() + deadline
    while alive := [process for process in _marked(folder) if process.pid != os.getpid()]:
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=1)
        if time.monotonic() > until:
            raise DevclusterError(
                f"processes of {folder.name} do not end: {[process.pid for process in alive]}",
                mend=f"look at them with ps, then run `python -m devcluster down --name {folder.name}` again",
            )


def wait_ready(component: Component, ready: Callable[[], bool], *, deadline: float) -> None:
    """Wait until `ready()`, at most `deadline` seconds.

    Raises DevclusterError with the end of the component's log when it dies or is late.
    """
    process, log = component.process, component.log
    until = time.monotonic() + deadline
    while not ready():
        if process.poll() is not None:
            raise _failed(f"{log.stem} ended with {process.returncode} while starting", log)
        if time.monotonic() > until:
            raise _failed(f"{log.stem} is not ready after {deadline:.0f} s", log)
        time.sleep(0.05)


def _failed(problem: str, log: Path) -> DevclusterError:
    return DevclusterError(problem, evidence="\n".join(tail(log, 12)), mend=f"read {log}, or try `up` again")


def tail(log: Path, lines: int) -> list[str]:
    """Answer the last lines of a log file, none if there is no such file."""
    return log.read_text(errors="replace").splitlines()[-lines:] if log.exists() else []


def _marked(folder: Path) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if _mark_of(process) == str(folder)]


def _mark_of(process: psutil.Process) -> str | None:
    try:
        # A zombie has ended; only its parent can take it off the table.
        return None if process.status() == psutil.STATUS_ZOMBIE else process.environ().get(CLUSTER_MARK)
    except (psutil.Error, OSError):
        return None
