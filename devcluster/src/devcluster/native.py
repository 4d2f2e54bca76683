"""Clusters run by this tool itself."""

from contextlib import ExitStack

from devcluster import host, node, processes
from devcluster.build import Programs
from devcluster.cluster import Cluster, Provider
from devcluster.controlplane import Addresses, ControlPlane
from devcluster.programs import CONTROL_PLANE_PROGRAMS, NODE_PROGRAMS
from devcluster.progress import Progress

CONTROL_PLANE_COMPONENTS = frozenset({"etcd", "kube-apiserver", "kube-controller-manager"})
NODE_COMPONENTS = frozenset({"holder", "kube-scheduler", "containerd", "kubelet", "kube-proxy"})


def up(cluster: Cluster, programs: Programs, progress: Progress, *, with_node: bool, audit: bool) -> None:
    """Start a cluster; where a step fails, what was started is stopped, and the folder stays for its logs.

    Raises DevclusterError naming the step that failed and the mend.
    """
    if with_node:
        host.require_linux_root("a node")
        host.require_programs(host.NODE_PACKAGES, "a node")
    names = [*CONTROL_PLANE_PROGRAMS, *(NODE_PROGRAMS if with_node else ())]
    found = programs.find_all(names)
    with ExitStack() as undo:
        undo.callback(stop, cluster)
        cluster.create_folders(Provider.NATIVE)
        for name, path in found.items():
            cluster.put_program(name, path)
        _start(cluster, programs.kubernetes_version, progress, with_node=with_node, audit=audit)
        undo.pop_all()


def _start(cluster: Cluster, version: str, progress: Progress, *, with_node: bool, audit: bool) -> None:
    if not with_node:
        ControlPlane(cluster, Addresses(), progress, audit=audit).start()
        return
    its_node = node.Node(cluster, version, progress)
    control_plane = ControlPlane(cluster, its_node.hold(), progress, audit=audit)
    control_plane.start()
    its_node.start(control_plane)


def stop(cluster: Cluster) -> None:
    """End the cluster's processes and take away what its node left on the host; the folder stays."""
    processes.end_all(cluster.folder)
    node.remove(cluster)


def missing(cluster: Cluster, *, with_node: bool) -> set[str]:
    """Answer the components that should be living processes of the cluster and are not."""
    expected = CONTROL_PLANE_COMPONENTS | (NODE_COMPONENTS if with_node else frozenset())
    return set(expected - set(processes.components(cluster.folder)))
