"""What a cluster is between two commands: a folder with a record of it.

The record is written when the cluster is ready; a folder without one belongs to an `up` that is under way or was
killed, and `down` clears it all the same.
"""

import dataclasses
import json
import os
import re
import shutil
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from devcluster import host
from devcluster.errors import DevclusterError
from devcluster.paths import clusters_folder

DEFAULT_NAME = "default"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


class Provider(StrEnum):
    """Who runs the cluster: this tool, an installed kind, or somebody else who gave a kubeconfig."""

    NATIVE = "native"
    KIND = "kind"
    KUBECONFIG = "kubeconfig"


@dataclass(frozen=True, slots=True)
class Record:
    """What `up` made: kept as JSON beside the cluster's other files."""

    provider: Provider
    kubernetes_version: str
    node: bool
    audit: bool

    @property
    def built_version(self) -> str | None:
        """The Kubernetes that was built here for the cluster; None where others run it, at a version of their own."""
        return self.kubernetes_version if self.provider is Provider.NATIVE else None


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster's name and folder; everything else about it is read from there."""

    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise DevclusterError(
                f"'{self.name}' cannot name a cluster",
                mend="use 1 to 32 lower-case letters, digits and dashes, a letter or digit at both ends",
            )

    @property
    def folder(self) -> Path:
        """Everything of this cluster."""
        return clusters_folder() / self.name

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.folder / "kubeconfig"

    @property
    def audit_log(self) -> Path:
        """The API server's audit log, one JSON event a line, where the cluster was started with one."""
        return self.folder / "logs" / "audit.jsonl"

    @property
    def bin(self) -> Path:
        """Links to the programs this cluster uses; meant for PATH."""
        return self.folder / "bin"

    def read_record(self) -> Record | None:
        """Answer what stands here, or None where nothing was finished."""
        try:
            fields = json.loads((self.folder / "cluster.json").read_text())
            record = Record(**{**fields, "provider": Provider(fields["provider"])})
            return record if isinstance(record.kubernetes_version, str) else None
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            # None, or none that this release wrote: whatever stands there is not known to be finished.
            return None

    def write_record(self, record: Record) -> None:
        """Declare the cluster finished."""
        unfinished = self.folder / "cluster.json.unfinished"
        unfinished.write_text(json.dumps(dataclasses.asdict(record)))
        unfinished.rename(self.folder / "cluster.json")

    def require_record(self) -> Record:
        """Answer what stands here, or raise with the command that starts it."""
        record = self.read_record()
        if record is None:
            raise DevclusterError(
                f"no cluster named '{self.name}' is running",
                mend=f"start one: python -m devcluster up --name {self.name}",
            )
        return record

    def create_folders(self, provider: Provider) -> None:
        """Make the folders; the whole is closed to other users, since it holds keys.

        The provider is written first, so that `down` knows whom to ask about a cluster that was never finished.
        """
        self.folder.mkdir(mode=0o700, parents=True)
        (self.folder / "provider").write_text(provider)
        for name in ("logs", "bin", "pki", "accounts"):
            (self.folder / name).mkdir()

    def is_of(self, provider: Provider) -> bool:
        """Answer whether that provider runs the cluster, or was about to."""
        path = self.folder / "provider"
        return path.exists() and path.read_text() == provider

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl as the administrator and answer its output; raises DevclusterError with what it said."""
        return host.run([self.bin / "kubectl", f"--kubeconfig={self.kubeconfig}", *arguments], stdin=stdin)

    def put_program(self, name: str, path: Path) -> Path:
        """Give the cluster a program of its own: a hard link where the file system allows it, else a copy.

        The node sees only this folder, and a cleared cache must not take a running cluster's programs away.
        """
        target = self.bin / name
        if not target.exists():
            # Under a name of this process's own first: another may be giving the same program at this moment.
            own = self.bin / f".{name}.{os.getpid()}"
            try:
                own.hardlink_to(path.resolve())
            except OSError:
                shutil.copy2(path, own)
            own.replace(target)
        return target


def known_clusters() -> list[Cluster]:
    """Answer all clusters that have a folder, finished or not."""
    folder = clusters_folder()
    found = sorted(folder.iterdir()) if folder.exists() else []
    return [Cluster(path.name) for path in found if path.is_dir() and _NAME.fullmatch(path.name)]
