"""Find a program, or build it from its pinned Go module.

Looked up in `$KUBEBUILDER_ASSETS` (a Kubernetes program there only if it is of the version asked for), then in this
tool's cache, then built. A finished program appears in the cache by one rename; what an interrupted build had compiled
is in Go's own build cache, so that the next try goes on from there.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from devcluster.errors import DevclusterError
from devcluster.paths import locked, programs_folder
from devcluster.programs import Program, kubernetes_versions, programs
from devcluster.progress import Progress

# What Go's caches grow by while the largest program, the API server, is built for the first time, and some to spare.
DISK_FOR_A_BUILD = 6 * 2**30


class Programs:
    """The programs for one Kubernetes version (None: the newest), found or built when asked for."""

    def __init__(
        self, kubernetes_version: str | None, progress: Progress, environ: Mapping[str, str] = os.environ
    ) -> None:
        known = kubernetes_versions()
        kubernetes_version = kubernetes_version or known[0]
        if kubernetes_version not in known:
            raise DevclusterError(
                f"Kubernetes {kubernetes_version} has no committed go.mod here",
                mend=f"use one of {', '.join(known)}, or pin another with devcluster/pin.sh",
            )
        self.kubernetes_version = kubernetes_version
        self._progress = progress
        self._assets = environ.get("KUBEBUILDER_ASSETS")
        self._table = programs(kubernetes_version)

    def find(self, name: str) -> Path:
        """Answer the path of that program, after building it if need be.

        Raises DevclusterError when it cannot be built here, saying why and what helps.
        """
        program = self._table[name]
        return self._in_assets(program) or _in_cache(program) or self._build(program)

    def find_all(self, names: Iterable[str]) -> dict[str, Path]:
        """Answer the paths by name, building what is missing one after the other."""
        return {name: self.find(name) for name in names}

    def _in_assets(self, program: Program) -> Path | None:
        path = Path(self._assets) / program.name if self._assets else None
        if path is None or not os.access(path, os.X_OK):
            return None
        if program.module.startswith("kubernetes-") and f"v{program.version}" not in _version_of(path):
            self._progress.say("programs", f"{path} is not Kubernetes {program.version}: not used")
            return None
        return path

    def _build(self, program: Program) -> Path:
        name = f"build-{program.folder_name}"
        with locked(name, lambda: self._progress.say("build", f"waiting for another build of {program.module} …")):
            built_meanwhile = _in_cache(program)
            if built_meanwhile:
                return built_meanwhile
            check_build_possible(program)
            with self._progress.step("build", f"{program.name} {program.version}", expected=program.expected):
                return _go_build(program)


def _cached_path(program: Program) -> Path:
    return programs_folder() / program.folder_name / program.name


def _in_cache(program: Program) -> Path | None:
    path = _cached_path(program)
    return path if path.exists() else None


def _version_of(path: Path) -> str:
    arguments = ["version", "--client"] if path.name == "kubectl" else ["--version"]
    try:
        return subprocess.run([path, *arguments], capture_output=True, text=True, check=False).stdout
    except OSError as error:
        return str(error)


def _go_build(program: Program) -> Path:
    target = _cached_path(program)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".unfinished")
    tags = ["-tags", program.tags] if program.tags else []
    flags = ["-mod=readonly", "-trimpath", "-buildvcs=false", *tags, "-ldflags", program.linker_flags]
    done = subprocess.run(
        ["go", "build", *flags, "-o", unfinished, program.package],
        cwd=program.source,
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise DevclusterError(
            f"building {program.name} {program.version} failed (go build ended with {done.returncode})",
            evidence="\n".join(done.stderr.splitlines()[-15:]),
            mend="look at the lines above; what was compiled is kept, so running the command again goes on from there",
        )
    unfinished.rename(target)
    return target


def check_build_possible(program: Program) -> None:
    """Raise DevclusterError where Go is missing or too old, or the disk is too full to build."""
    go = shutil.which("go")
    wanted = _go_wanted(program)
    install = f"install Go {wanted} or newer, or put built programs into a folder named by KUBEBUILDER_ASSETS"
    if go is None:
        raise DevclusterError(f"{program.name} has to be built, and there is no `go` on PATH", mend=install)
    # Asked in the module's folder, because Go may switch to a newer toolchain there by itself (GOTOOLCHAIN=auto).
    have = subprocess.run([go, "version"], cwd=program.source, capture_output=True, text=True, check=False)
    found = re.search(r"go(\d+\.\d+(?:\.\d+)?)", have.stdout)
    if found is None or _numbers(found[1]) < _numbers(wanted):
        said = (have.stdout or have.stderr).strip()
        raise DevclusterError(f"{program.name} needs Go {wanted}, and {go} is older: {said}", mend=install)
    _check_disk(program)


def _check_disk(program: Program) -> None:
    free = shutil.disk_usage(programs_folder().parent).free
    if free < DISK_FOR_A_BUILD:
        raise DevclusterError(
            f"building {program.name} needs {DISK_FOR_A_BUILD >> 30} GiB of disk, {free / 2**30:.1f} GiB are free",
            mend=f"free some on the file system of {programs_folder().parent}, or move the cache with XDG_CACHE_HOME",
        )


def _go_wanted(program: Program) -> str:
    lines = (program.source / "go.mod").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("go "))


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]
