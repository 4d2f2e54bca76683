"""What this host must be and have, and what it can do."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from devcluster.errors import DevclusterError

# Program to Debian package; each is part of what every distribution ships.
NODE_PACKAGES = {
    "runc": "runc",
    "iptables": "iptables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "mount": "mount",
    "buildah": "buildah",
}
IMAGE_PACKAGES = {"buildah": "buildah", "debootstrap": "debootstrap", "unshare": "util-linux"}


def require_linux_root(purpose: str) -> None:
    """Raise DevclusterError unless this is root on Linux."""
    if platform.system() != "Linux":
        raise DevclusterError(
            f"{purpose} needs Linux, and this is {platform.system()}",
            mend="leave --node out for a control plane, or use --provider kind with Docker",
        )
    if os.geteuid() != 0:
        raise DevclusterError(
            f"{purpose} needs root (namespaces, mounts and network links are made)",
            mend=f"run it as root, such as: sudo {sys.executable} -m devcluster …; a control plane needs no root",
        )


def require_programs(packages: dict[str, str], purpose: str) -> None:
    """Raise DevclusterError naming every missing program and the one command that installs them all."""
    missing = _missing(packages)
    if missing:
        raise DevclusterError(
            f"{purpose} needs programs that are missing: {', '.join(missing)}",
            mend=f"apt-get install --yes --no-install-recommends {' '.join(missing_packages(packages))}",
        )


def missing_packages(packages: dict[str, str]) -> list[str]:
    """Answer the packages, out of a table from program to package, whose programs are not installed."""
    return sorted({packages[name] for name in _missing(packages)})


def _missing(packages: dict[str, str]) -> list[str]:
    return [name for name in packages if shutil.which(name) is None]


def overlay_works(folder: Path) -> bool:
    """Answer whether an overlay file system can be mounted with its layers in `folder` (not on another overlay)."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        lower, upper, work, merged = (Path(scratch) / name for name in ("lower", "upper", "work", "merged"))
        for path in (lower, upper, work, merged):
            path.mkdir()
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        # In a mount namespace of its own, so that a kill at the wrong moment leaves no mount.
        return succeeds(
            [
                "unshare",
                "--mount",
                "--propagation=private",
                "mount",
                "-t",
                "overlay",
                "overlay",
                "-o",
                options,
                str(merged),
            ]
        )


def succeeds(argv: Iterable[str]) -> bool:
    """Run a program and answer whether it ended with 0."""
    return subprocess.run(list(argv), capture_output=True, check=False).returncode == 0


def run(argv: Iterable[str | Path], *, stdin: str | None = None, stdin_file: IO[bytes] | None = None) -> str:
    """Run a program and answer its standard output; raises DevclusterError with what it said when it fails."""
    words = [str(word) for word in argv]
    source: dict[str, Any] = {"stdin": stdin_file} if stdin_file else {"input": stdin or ""}
    done = subprocess.run(words, **source, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip()
        raise DevclusterError(f"`{' '.join(words)}` failed", evidence="\n".join(said.splitlines()[-12:]))
    return str(done.stdout)
