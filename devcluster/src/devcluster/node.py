"""One node: scheduler, containerd, kubelet, kube-proxy and DNS, in namespaces of their own under one holder process.

The holder is process 1 of the node's PID namespace; containerd, kubelet and kube-proxy enter its mount, network and PID
namespaces. Its death, however it comes, ends all of them and every Pod, and takes mounts, iptables rules and the link
to the host along. Only the (then empty) cgroups outlive it; `remove` takes those away too.

Each Pod has a routed link of its own (CNI's ptp): on a bridge, an answer between two Pods would bypass kube-proxy's
address translation wherever the kernel lacks br_netfilter.
"""

import string
from collections.abc import Sequence
from pathlib import Path

import psutil

from devcluster import cgroups, host, images, network, processes
from devcluster.cluster import Cluster
from devcluster.controlplane import LOOPBACK, Addresses, ControlPlane
from devcluster.errors import DevclusterError
from devcluster.paths import host_locked
from devcluster.ports import reserved
from devcluster.processes import Component
from devcluster.programs import programs
from devcluster.progress import Progress

PACKAGE = Path(__file__).parent
# The cluster's folder, as the node's own mount namespace shows it. Short, because socket paths end at 108 characters.
INSIDE = Path("/run/devcluster")
CONTAINERD = INSIDE / "node" / "containerd.sock"
READY_DEADLINE = 90.0


class Node:
    """The node of one cluster; `hold` comes before the control plane starts, `start` after."""

    def __init__(self, cluster: Cluster, kubernetes_version: str, progress: Progress) -> None:
        self._cluster = cluster
        self._progress = progress
        self._folder = cluster.folder / "node"
        table = programs(kubernetes_version)
        self._images = {
            kind: f"servicelink.dev/devcluster/{kind}:{table[kind].version}" for kind in ("pause", "coredns")
        }

    @property
    def name(self) -> str:
        """The Node object's name."""
        return f"devcluster-{self._cluster.name}"

    def hold(self) -> Addresses:
        """Make the node's namespaces and its link; answers the addresses for the control plane."""
        self._folder.mkdir()
        with self._progress.step("node", "making its namespaces", done="its namespaces stand"):
            holder = self._start_holder()
            cgroups.create(self._cluster.folder)
            with host_locked():
                self.network = network.free_network()
                network.plug_in(self.network, network.interface_of(self._cluster.folder), holder)
            mounts = PACKAGE / "node_mounts.sh"
            host.run(["nsenter", f"--target={holder}", "--mount", "sh", mounts, self._cluster.folder])
        self._progress.say("node", f"{self.network.node}, Pods {self.network.pods}, Services {self.network.services}")
        return Addresses(host=self.network.host, services=self.network.services, pods=self.network.pods)

    def start(self, control_plane: ControlPlane) -> None:
        """Start the node's components and wait until the node is Ready and DNS answers."""
        with self._progress.step("scheduler", "starting", done="ready"), reserved(LOOPBACK, 1) as (port,):
            control_plane.start_controller("kube-scheduler", port, [])
        with self._progress.step("containerd", "starting", done="ready, its first images loaded"):
            self._start_containerd()
        with self._progress.step("kubelet", "starting", done=f"{self.name} is Ready"):
            self._start_kubelet(control_plane)
            self._start_kube_proxy(control_plane)
            self._cluster.kubectl("apply", "--filename=-", stdin=self._render("system.yaml"))
            self._wait_for("node", f"node/{self.name}", "--for=create")
            self._wait_for("node", f"node/{self.name}", "--for=condition=Ready")
        with self._progress.step("dns", "waiting for CoreDNS", done="answers"):
            self._wait_for("dns", "deployment/coredns", "--namespace=kube-system", "--for=condition=Available")

    def _start_holder(self) -> int:
        pause = self._cluster.bin / "pause"
        namespaces = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation=private"]
        holder = processes.start(self._cluster.folder, "holder", ["unshare", *namespaces, pause])
        # The child exists before it has made its own /proc; once it runs `pause`, its namespaces are complete.
        processes.wait_ready(holder, lambda: _has_child(holder.process, pause), deadline=10)
        return holder_pid(self._cluster)

    def _start_containerd(self) -> None:
        (self._folder / "cni").mkdir()
        (self._folder / "cni" / "pods.conflist").write_text(self._render("pods.conflist"))
        # An overlay cannot lie on another overlay, which is what a container's own disk usually is.
        snapshotter = "overlayfs" if host.overlay_works(self._folder) else "native"
        (self._folder / "containerd.toml").write_text(self._render("containerd.toml", snapshotter=snapshotter))
        containerd = self._start_inside("containerd", [f"--config={INSIDE / 'node' / 'containerd.toml'}"])
        version = [*ctr(self._cluster), "version"]
        processes.wait_ready(containerd, lambda: host.succeeds(version), deadline=READY_DEADLINE)
        for kind, image in self._images.items():
            load(self._cluster, images.build_from_program(self._cluster.bin / kind, image))

    def _start_kubelet(self, control_plane: ControlPlane) -> None:
        user, groups = f"system:node:{self.name}", ["system:nodes"]
        config = control_plane.credentials("kubelet", user=user, groups=groups)
        hosts = [self.name, self.network.node]
        control_plane.certificates.cluster.issue("kubelet-serving", user=user, groups=groups, hosts=hosts)
        (self._folder / "kubelet.yaml").write_text(self._render("kubelet.yaml"))
        (self._folder / "resolv.conf").write_text("# Nothing outside the cluster is resolved.\n")
        flags = [
            f"--config={INSIDE / 'node' / 'kubelet.yaml'}",
            f"--kubeconfig={INSIDE / config.name}",
            f"--root-dir={INSIDE / 'node' / 'kubelet'}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.network.node}",
        ]
        self._start_inside("kubelet", flags)

    def _start_kube_proxy(self, control_plane: ControlPlane) -> None:
        control_plane.credentials("kube-proxy", user="system:kube-proxy")
        (self._folder / "kube-proxy.yaml").write_text(self._render("kube-proxy.yaml"))
        self._start_inside("kube-proxy", [f"--config={INSIDE / 'node' / 'kube-proxy.yaml'}"])

    def _render(self, manifest: str, **more: str) -> str:
        return string.Template((PACKAGE / "manifests" / manifest).read_text()).substitute(
            inside=INSIDE,
            node=self.name,
            dns=self.network.dns,
            pods=self.network.pods,
            cgroup=cgroups.group_name(self._cluster.folder),
            pause_image=self._images["pause"],
            coredns_image=self._images["coredns"],
            **more,
        )

    def _wait_for(self, what: str, *arguments: str) -> None:
        try:
            self._cluster.kubectl("wait", f"--timeout={READY_DEADLINE:.0f}s", *arguments)
        except DevclusterError as error:
            log = processes.log_path(self._cluster.folder, "kubelet")
            raise DevclusterError(
                f"the {what} is not ready: {error.evidence}",
                evidence="\n".join(processes.tail(log, 12)),
                mend=f"read the logs beside {log}, or try `up` again",
            ) from error

    def _start_inside(self, program: str, flags: Sequence[str]) -> Component:
        # containerd looks for its shim, and kubelet and kube-proxy for mount and iptables, on PATH.
        env = {"PATH": f"{INSIDE / 'bin'}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        argv: list[str | Path] = [*enter(self._cluster), INSIDE / "bin" / program, *flags]
        return processes.start(self._cluster.folder, program, argv, env)


def enter(cluster: Cluster) -> list[str]:
    """Answer the words that run a program inside that cluster's node."""
    return ["nsenter", f"--target={holder_pid(cluster)}", "--mount", "--net", "--pid", "--"]


def ctr(cluster: Cluster) -> list[str]:
    """Answer the words that run containerd's command line on that cluster's node, on kubelet's images."""
    return [*enter(cluster), str(INSIDE / "bin" / "ctr"), f"--address={CONTAINERD}", "--namespace=k8s.io"]


def holder_pid(cluster: Cluster) -> int:
    """Answer the process that is number 1 in the node; raises DevclusterError when the cluster has no living node."""
    outer = processes.components(cluster.folder).get("holder")
    children = outer.children() if outer else []
    if not children:
        raise DevclusterError(
            f"cluster '{cluster.name}' has no node",
            mend=f"start it with one: python -m devcluster up --node --name {cluster.name}",
        )
    return int(children[0].pid)


def load(cluster: Cluster, archive: Path) -> None:
    """Give the node the images of an archive (docker or OCI), under the names that stand in it."""
    # By standard input: the node does not see every folder of the host.
    try:
        with archive.open("rb") as file:
            host.run([*ctr(cluster), "images", "import", "--all-platforms", "-"], stdin_file=file)
    except DevclusterError as error:
        raise DevclusterError(
            f"{archive} cannot be loaded",
            evidence=error.evidence.splitlines()[-1],
            mend="give a docker or OCI archive, such as `python -m devcluster image build` prints the path of",
        ) from error


def remove(cluster: Cluster) -> None:
    """Take away what outlives the node's processes: its link and its cgroups."""
    if (cluster.folder / "node").exists():
        network.unplug(network.interface_of(cluster.folder))
        cgroups.remove(cluster.folder)


def _has_child(parent: psutil.Popen, program: Path) -> bool:
    try:
        return any(child.exe() == str(program) for child in parent.children())
    except psutil.Error:
        return False
