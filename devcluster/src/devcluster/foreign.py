"""Clusters that something else runs: kind with Docker, or whatever a given kubeconfig speaks to."""

import shutil
from pathlib import Path

from devcluster import host
from devcluster.cluster import Cluster, Provider
from devcluster.errors import DevclusterError
from devcluster.progress import Progress


def kind_up(cluster: Cluster, kubernetes_version: str | None, progress: Progress) -> None:
    """Create a kind cluster; kind's own Kubernetes version unless one is asked for (it then pulls that node image).

    Raises DevclusterError when kind or Docker is missing, or Docker's engine does not answer.
    """
    _require_kind()
    cluster.create_folders(Provider.KIND)
    image = [f"--image=kindest/node:v{kubernetes_version}"] if kubernetes_version else []
    with progress.step("kind", f"creating {kind_name(cluster)}", expected="about 1 min"):
        host.run(
            [
                *("kind", "create", "cluster", f"--name={kind_name(cluster)}", "--wait=180s"),
                *(f"--kubeconfig={cluster.kubeconfig}", *image),
            ]
        )


def kind_down(cluster: Cluster) -> None:
    """Delete the kind cluster of that name."""
    _require_kind()
    host.run(["kind", "delete", "cluster", f"--name={kind_name(cluster)}", f"--kubeconfig={cluster.kubeconfig}"])


def kind_load(cluster: Cluster, archive: Path) -> None:
    """Give the kind cluster's nodes the images of an archive."""
    host.run(["kind", "load", "image-archive", archive, f"--name={kind_name(cluster)}"])


def kind_name(cluster: Cluster) -> str:
    """Answer the name that kind knows the cluster by."""
    return f"servicelink-{cluster.name}"


def adopt(cluster: Cluster, kubeconfig: Path, kubectl: Path) -> None:
    """Use the cluster of a kubeconfig's current context; a self-contained copy of that context is kept.

    Raises DevclusterError when the file cannot be read or the cluster does not answer.
    """
    minified = minify(kubeconfig, kubectl)
    cluster.create_folders(Provider.KUBECONFIG)
    cluster.kubeconfig.touch(mode=0o600)
    cluster.kubeconfig.write_text(minified)
    try:
        host.run([kubectl, "get", "--raw=/readyz", f"--kubeconfig={cluster.kubeconfig}", "--request-timeout=15s"])
    except DevclusterError as error:
        shutil.rmtree(cluster.folder)
        raise DevclusterError(
            f"the cluster of {kubeconfig} does not answer",
            evidence=error.evidence,
            mend=f"try: kubectl --kubeconfig={kubeconfig} get --raw=/readyz",
        ) from error


def minify(kubeconfig: Path, kubectl: Path) -> str:
    """Answer a kubeconfig's current context alone, with all files it names drawn in.

    Raises DevclusterError when the file is missing or no kubeconfig.
    """
    if not kubeconfig.is_file():
        raise DevclusterError(f"there is no file {kubeconfig}", mend="name an existing kubeconfig with --kubeconfig")
    try:
        return host.run([kubectl, "config", "view", "--raw", "--flatten", "--minify", f"--kubeconfig={kubeconfig}"])
    except DevclusterError as error:
        raise DevclusterError(
            f"{kubeconfig} cannot be used", evidence=error.evidence, mend="give a kubeconfig that has a current context"
        ) from error


def _require_kind() -> None:
    missing = [name for name in ("kind", "docker") if shutil.which(name) is None]
    if missing:
        raise DevclusterError(
            f"--provider kind needs programs that are missing: {', '.join(missing)}",
            mend="install kind (go install sigs.k8s.io/kind@latest) and Docker; --provider native needs neither",
        )
    if not host.succeeds(["docker", "info"]):
        raise DevclusterError(
            "--provider kind needs Docker's engine, and `docker info` gets no answer from one",
            mend="start Docker, or leave --provider out: the native provider needs none",
        )
