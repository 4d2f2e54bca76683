"""The one cgroup under which everything of a node runs, in every hierarchy that this host mounts (v1, v2 or both)."""

import hashlib
import time
from pathlib import Path

from devcluster.errors import DevclusterError


def group_name(folder: Path) -> str:
    """Answer the cgroup of the node of the cluster in that folder, relative to each hierarchy's root.

    With the folder's hash, since clusters of two users or caches may share a name.
    """
    return f"servicelink-devcluster-{folder.name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:6]}"


def create(folder: Path) -> None:
    """Make the node's cgroup; kubelet does not start under a root that is missing in any hierarchy."""
    try:
        for hierarchy in _hierarchies():
            _create_in(hierarchy, group_name(folder))
    except OSError as error:
        raise DevclusterError(
            f"the node's cgroup cannot be made: {error}",
            mend="a node needs writable cgroups; a container has them with --cgroupns=private and --privileged",
        ) from error


def _create_in(hierarchy: Path, name: str) -> None:
    group = hierarchy / name
    group.mkdir(exist_ok=True)
    _inherit_cpuset(group)
    if (hierarchy / "cgroup.controllers").exists():
        _delegate(hierarchy)
        _delegate(group)


def remove(folder: Path) -> None:
    """Remove the node's cgroup and all below it, once its processes have ended."""
    for hierarchy in _hierarchies():
        group = hierarchy / group_name(folder)
        if group.exists():
            _remove_tree(group)


def _hierarchies() -> list[Path]:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return [Path(mount[1]) for mount in mounts if mount[2] in ("cgroup", "cgroup2")]


def _delegate(group: Path) -> None:
    """Let the children of a v2 group have its controllers."""
    controllers = (group / "cgroup.controllers").read_text().split()
    if controllers:
        (group / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))


def _inherit_cpuset(group: Path) -> None:
    """Give a v1 cpuset its parent's cores and memory nodes: a new one has none and takes no process."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (group / name).exists() and not (group / "cgroup.controllers").exists():
            (group / name).write_text((group.parent / name).read_text())


def _remove_tree(group: Path) -> None:
    until = time.monotonic() + 10
    for child in sorted(group.rglob("*/"), key=lambda path: len(path.parts), reverse=True):
        if child.is_dir():
            _remove(child, until)
    _remove(group, until)


def _remove(group: Path, until: float) -> None:
    # A process that was just killed keeps its group busy until the kernel has taken it down.
    while group.exists():
        try:
            group.rmdir()
        except OSError as error:
            if time.monotonic() > until:
                raise DevclusterError(f"the cgroup {group} cannot be removed: {error}") from error
            time.sleep(0.05)
