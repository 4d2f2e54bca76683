"""Bring clusters up and down under their names, whoever runs them. One command at a time per name."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from devcluster import foreign, native, node, processes
from devcluster.build import Programs
from devcluster.cluster import Cluster, Provider, Record
from devcluster.errors import DevclusterError
from devcluster.paths import locked
from devcluster.progress import Progress


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of `up`.

    `kubernetes_version` is without the v, None for the provider's own default. The cluster ends with the process
    `owner`, where one is named.
    """

    provider: Provider = Provider.NATIVE
    kubernetes_version: str | None = None
    with_node: bool = False
    audit: bool = False
    given_kubeconfig: Path | None = None
    owner: int | None = None


def up(cluster: Cluster, wish: Wish, progress: Progress) -> Record:
    """Bring a cluster up, or answer with the one that runs under this name.

    Raises DevclusterError when the running one lacks what is wished, or when a step fails.
    """
    # A cluster that others run has a version of its own; the programs for it are then tools only.
    programs = Programs(wish.kubernetes_version if wish.provider is Provider.NATIVE else None, progress)
    with _locked(cluster, progress):
        running = _running(cluster)
        if running:
            _require_suits(cluster, running, wish)
            if wish.given_kubeconfig is not None:
                _require_same(cluster, wish.given_kubeconfig, programs)
            if wish.owner is not None:
                _down_when_ended(cluster, wish.owner)
            progress.say("cluster", f"'{cluster.name}' is running already: {cluster.kubeconfig}")
            return running
        if cluster.folder.exists():
            progress.say("cluster", f"clearing what an earlier '{cluster.name}' left behind")
            _clear(cluster)
        # A failed `up` may have left its watcher, which must not take this one down.
        processes.end_all(cluster.folder)
        if wish.owner is not None:
            # Before anything starts: an owner killed half way must not leave half a cluster behind.
            _down_when_ended(cluster, wish.owner)
        record = _create(cluster, wish, programs, progress)
        cluster.write_record(record)
        return record


def down(cluster: Cluster, progress: Progress) -> bool:
    """Take a cluster down and everything of it away; answers whether there was anything.

    A cluster adopted by its kubeconfig is only forgotten.
    """
    # The lock before the look: an `up` that is still building has no folder yet, and is to be waited for.
    with _locked(cluster, progress):
        if not cluster.folder.exists():
            processes.end_all(cluster.folder)
            return False
        _clear(cluster)
        return True


def is_whole(cluster: Cluster, record: Record) -> bool:
    """Answer whether all of a cluster's components are alive; of clusters that others run that is not known here."""
    return record.provider is not Provider.NATIVE or not native.missing(cluster, with_node=record.node)


def _locked(cluster: Cluster, progress: Progress) -> AbstractContextManager[None]:
    waiting = partial(progress.say, "cluster", f"waiting for another command on '{cluster.name}' …")
    return locked(f"cluster-{cluster.name}", waiting)


def load(cluster: Cluster, archive: Path) -> None:
    """Give the cluster's node the images of an archive; raises DevclusterError where that cannot be done."""
    provider = cluster.require_record().provider
    if provider is Provider.KIND:
        foreign.kind_load(cluster, archive)
    elif provider is Provider.NATIVE:
        node.load(cluster, archive)
    else:
        raise DevclusterError(
            f"'{cluster.name}' is a cluster of your own; images come to its nodes by its own ways",
            mend="push the image to a registry that its nodes can pull from",
        )


def _down_when_ended(cluster: Cluster, pid: int) -> None:
    """Leave a process behind that takes the cluster down once the process `pid` has ended, however that ends.

    It is marked as one of the cluster's, so that it goes with it and never takes down the next of this name.
    """
    if not psutil.pid_exists(pid):
        raise DevclusterError(f"--while {pid}: there is no such process", mend="name one that is running")
    subprocess.Popen(
        [sys.executable, "-m", "devcluster", "down", f"--name={cluster.name}", f"--after={pid}"],
        env={**os.environ, processes.CLUSTER_MARK: str(cluster.folder), processes.COMPONENT_MARK: "watcher"},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_for_end(pid: int) -> None:
    """Wait until that process has ended; it need not be a child."""
    try:
        psutil.Process(pid).wait()
    except psutil.NoSuchProcess:
        return


def _create(cluster: Cluster, wish: Wish, programs: Programs, progress: Progress) -> Record:
    match wish.provider:
        case Provider.NATIVE:
            native.up(cluster, programs, progress, with_node=wish.with_node, audit=wish.audit)
            return Record(wish.provider, programs.kubernetes_version, node=wish.with_node, audit=wish.audit)
        case Provider.KIND:
            foreign.kind_up(cluster, wish.kubernetes_version, progress)
        case Provider.KUBECONFIG:
            assert wish.given_kubeconfig is not None
            foreign.adopt(cluster, wish.given_kubeconfig, kubectl_for(programs))
    # A plain link: an installed kubectl may look for others of its kind beside itself.
    (cluster.bin / "kubectl").symlink_to(kubectl_for(programs))
    return Record(wish.provider, _server_version(cluster), node=True, audit=False)


def _running(cluster: Cluster) -> Record | None:
    record = cluster.read_record()
    return record if record and is_whole(cluster, record) else None


def _require_same(cluster: Cluster, given: Path, programs: Programs) -> None:
    if foreign.minify(given, kubectl_for(programs)) != cluster.kubeconfig.read_text():
        raise DevclusterError(
            f"'{cluster.name}' already stands for another cluster than {given} does",
            mend=f"forget that one first (python -m devcluster down --name {cluster.name}), or choose another --name",
        )


def _require_suits(cluster: Cluster, running: Record, wish: Wish) -> None:
    lacks = [
        reason
        for wanted, reason in (
            (wish.with_node and not running.node, "it has no node"),
            (wish.audit and not running.audit, "it keeps no audit log"),
            (wish.provider is not running.provider, f"it is run by {running.provider}"),
            (
                wish.kubernetes_version not in (None, running.kubernetes_version),
                f"it is Kubernetes {running.kubernetes_version}",
            ),
        )
        if wanted
    ]
    if lacks:
        raise DevclusterError(
            f"'{cluster.name}' is running already, and {' and '.join(lacks)}",
            mend=f"take it down first (python -m devcluster down --name {cluster.name}), or choose another --name",
        )


def _clear(cluster: Cluster) -> None:
    if cluster.is_of(Provider.KIND):
        foreign.kind_down(cluster)
    native.stop(cluster)
    # The record first: killed half way, this must not look like a finished cluster.
    (cluster.folder / "cluster.json").unlink(missing_ok=True)
    shutil.rmtree(cluster.folder)


def kubectl_for(programs: Programs) -> Path:
    """Answer an installed kubectl for a cluster that is not built here, or build one."""
    installed = shutil.which("kubectl")
    return Path(installed) if installed else programs.find("kubectl")


def _server_version(cluster: Cluster) -> str:
    answer = json.loads(cluster.kubectl("get", "--raw=/version"))
    return str(answer["gitVersion"]).removeprefix("v")
