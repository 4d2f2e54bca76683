"""Writing a folder as the kubelet writes a mounted Secret or ConfigMap, for tests of what follows one."""

import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

_DATA = "..data"


def swap(folder: Path, files: Mapping[str, str]) -> None:
    """Swap what a mounted folder holds, as the kubelet does it.

    A new folder is written, one rename leads `..data` to it, names are links through that, and the old folder goes
    (its atomic writer, pkg/volume/util/atomic_writer.go).
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = folder / (folder / _DATA).readlink() if (folder / _DATA).is_symlink() else None
    version = folder / f"..{secrets.token_hex(8)}"
    version.mkdir()
    for name, text in files.items():
        (version / name).write_text(text, encoding="utf-8")
    fresh = folder / f"{_DATA}_tmp"
    fresh.symlink_to(version.name)
    fresh.rename(folder / _DATA)
    for name in files:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path(_DATA) / name)
    for path in folder.iterdir():
        if path.is_symlink() and not path.exists():
            path.unlink()
    if before is not None:
        shutil.rmtree(before)
