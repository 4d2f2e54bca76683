"""A node leaves its host as it was: while it runs nothing of the host's changes, and after `down` nothing is left."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from devcluster import cgroups
from devcluster.cluster import Cluster
from devcluster.network import interface_of
from devcluster.processes import CLUSTER_MARK, components
from devcluster.testing import Client, wait_until

Devcluster = Callable[..., Any]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a node needs root")

# What kubelet and kube-proxy set for the whole machine when nobody stops them.
KERNEL_SETTINGS = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops", "net/netfilter/nf_conntrack_max")


def said(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def setting(name: str) -> str:
    path = Path("/proc/sys") / name
    return path.read_text() if path.exists() else "absent"


def iptables_rules() -> list[str]:
    """Answer the host's rules without comments and counters."""
    return [re.sub(r"\[\d+:\d+\]", "", line) for line in said("iptables-save").splitlines() if line[0] != "#"]


def untouched() -> dict[str, object]:
    """What must be the same before, during and after: rules, mounts, kernel settings."""
    return {
        "rules": iptables_rules(),
        "mounts": Path("/proc/self/mounts").read_text().splitlines(),
        "settings": {name: setting(name) for name in KERNEL_SETTINGS},
        "cni": [Path(path).exists() for path in ("/var/lib/kubelet", "/var/lib/cni", "/etc/cni/net.d/pods.conflist")],
    }


def traces(cluster: Cluster) -> dict[str, object]:
    """What a cluster has on the host; all of it is empty when it is gone."""
    return {
        "processes": [process.pid for process in psutil.process_iter() if is_of(process, cluster)],
        "cgroups": [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{cgroups.group_name(cluster.folder)}")],
        "files": [str(cluster.folder)] if cluster.folder.exists() else [],
    }


def is_of(process: psutil.Process, cluster: Cluster) -> bool:
    """Answer whether a process has to do with the cluster's folder, by its mark or by the words it was started with."""
    folder = str(cluster.folder)
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return process.environ().get(CLUSTER_MARK) == folder or any(folder in word for word in process.cmdline())
    except psutil.Error:
        return False


def network_namespace(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    except OSError:
        return ""


def own_namespaces(cluster: Cluster) -> set[str]:
    """The network namespaces of a cluster's processes: the host's and, with a node, its own."""
    return {network_namespace(process.pid) for process in psutil.process_iter() if is_of(process, cluster)}


def inhabited(namespaces: set[str]) -> set[str]:
    return namespaces & {network_namespace(process.pid) for process in psutil.process_iter()}


def links_and_routes(cluster: Cluster) -> list[str]:
    """The host's links and routes of that cluster's node; those of others come and go beside it."""
    lines = said("ip", "-oneline", "link").splitlines() + said("ip", "route", "show", "table", "all").splitlines()
    return [line for line in lines if interface_of(cluster.folder) in line]


@pytest.mark.parametrize("step", ["node", "etcd", "containerd", "kubelet"])
def test_up_killed_at_any_step_leaves_nothing_after_down(devcluster: Devcluster, cluster_name: str, step: str) -> None:
    cluster = Cluster(cluster_name)
    host = untouched()
    command = [sys.executable, "-m", "devcluster", "up", "--node", "--name", cluster_name]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as up:
        assert up.stderr is not None
        seen = ""
        while f" {step} " not in seen:
            line = up.stderr.readline()
            assert line, f"it ended before the step {step}:\n{seen}"
            seen += line
        up.kill()
    assert traces(cluster)["files"]
    namespaces = own_namespaces(cluster) - {network_namespace(os.getpid())}
    assert links_and_routes(cluster) or step == "node"

    assert devcluster("down", "--name", cluster_name).code == 0

    assert not any(traces(cluster).values())
    assert not links_and_routes(cluster)
    assert not inhabited(namespaces)
    assert untouched() == host


def test_the_death_of_the_holder_takes_the_node_along(devcluster: Devcluster, cluster_name: str) -> None:
    cluster = Cluster(cluster_name)
    host = untouched()
    assert devcluster("up", "--node", "--name", cluster_name).code == 0
    assert links_and_routes(cluster)
    assert untouched() == host
    holder = next(
        process for process in psutil.process_iter() if is_of(process, cluster) and process.name() == "unshare"
    )

    os.kill(holder.pid, signal.SIGKILL)

    wait_until(lambda: not links_and_routes(cluster), deadline=10)
    inside = ("containerd", "kubelet", "kube-proxy", "pause", "coredns")
    wait_until(lambda: not any(is_of(p, cluster) and p.name() in inside for p in psutil.process_iter()), deadline=10)
    assert devcluster("down", "--name", cluster_name).code == 0
    assert not any(traces(cluster).values())


def test_clearing_a_dead_node_away_spares_the_one_that_took_its_addresses(
    devcluster: Devcluster, cluster_name: str
) -> None:
    """Addresses are free again once their node is dead, and the next node takes them before `down` is called."""
    dead, next_name = Cluster(cluster_name), f"{cluster_name}-next"
    with subprocess.Popen(
        [sys.executable, "-m", "devcluster", "up", "--node", "--name", cluster_name], stderr=subprocess.PIPE, text=True
    ) as up:
        assert up.stderr is not None
        assert any(" etcd " in line for line in up.stderr)
        up.kill()
    for process in psutil.process_iter():
        if is_of(process, dead):
            process.kill()
    wait_until(lambda: not links_and_routes(dead), deadline=10)
    try:
        assert devcluster("up", "--node", "--name", next_name).code == 0
        devcluster("down", "--name", cluster_name)

        following = Client(Cluster(next_name), Cluster(next_name).kubeconfig)
        assert "Ready" in following.kubectl("get", "nodes")
    finally:
        devcluster("down", "--name", next_name)


def test_a_cluster_that_lost_a_component_is_started_anew(devcluster: Devcluster, cluster_name: str) -> None:
    cluster = Cluster(cluster_name)
    assert devcluster("up", "--node", "--name", cluster_name).code == 0
    # What enters the node is a child of what was started for it.
    components(cluster.folder)["containerd"].children()[0].kill()
    wait_until(lambda: "broken" in devcluster("status").out)

    said = devcluster("up", "--node", "--name", cluster_name)

    assert "clearing what an earlier" in said.err
    assert "Ready" in Client(cluster, cluster.kubeconfig).kubectl("get", "nodes")


def test_two_nodes_run_at_once_and_one_going_spares_the_other(
    devcluster: Devcluster, node_cluster: Client, cluster_name: str
) -> None:
    other = Cluster(cluster_name)
    assert devcluster("up", "--node", "--name", cluster_name).code == 0
    second = Client(other, other.kubeconfig)
    addresses = [client.kubectl_json("get", "nodes")["items"][0] for client in (node_cluster, second)]

    ranges = {node["spec"]["podCIDR"] for node in addresses}
    groups = {cgroups.group_name(client.cluster.folder) for client in (node_cluster, second)}
    devcluster("down", "--name", cluster_name)

    assert len(ranges) == 2
    assert len(groups) == 2
    assert not any(traces(other).values())
    dns = node_cluster.kubectl_json("get", "pods", "--namespace=kube-system", "--selector=k8s-app=kube-dns")["items"]
    assert all(pod["status"]["phase"] == "Running" for pod in dns)
    assert "ok" in node_cluster.kubectl("get", f"--raw=/api/v1/nodes/{addresses[0]['metadata']['name']}/proxy/healthz")
    assert all((Path(path) / cgroups.group_name(node_cluster.cluster.folder)).exists() for path in hierarchies())


def hierarchies() -> list[str]:
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return [mount[1] for mount in mounts if mount[2] in {"cgroup", "cgroup2"}]
