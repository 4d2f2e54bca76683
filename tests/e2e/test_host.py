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
from devcluster.processes import CLUSTER_MARK
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
    name = cgroups.group_name(cluster.name)
    return {
        "processes": [process.pid for process in psutil.process_iter() if is_of(process, cluster)],
        "cgroups": [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{name}")],
        "files": [str(cluster.folder)] if cluster.folder.exists() else [],
        "network namespaces": network_namespaces() - NAMESPACES,
    }


def is_of(process: psutil.Process, cluster: Cluster) -> bool:
    try:
        alive = process.status() != psutil.STATUS_ZOMBIE
        return alive and process.environ().get(CLUSTER_MARK) == str(cluster.folder)
    except psutil.Error:
        return False


def network_namespaces() -> set[str]:
    found = set()
    for process in psutil.process_iter():
        try:
            found.add(str(Path(f"/proc/{process.pid}/ns/net").readlink()))
        except OSError:
            continue
    return found


def links_and_routes() -> set[str]:
    links = {line.split(":")[1].strip() for line in said("ip", "-oneline", "link").splitlines()}
    return links | set(said("ip", "route", "show", "table", "all").splitlines())


NAMESPACES: set[str] = set()


@pytest.fixture(autouse=True)
def _know_what_was_there() -> None:
    NAMESPACES.clear()
    NAMESPACES.update(network_namespaces())


@pytest.mark.parametrize("step", ["node", "etcd", "containerd", "kubelet"])
def test_up_killed_at_any_step_leaves_nothing_after_down(devcluster: Devcluster, cluster_name: str, step: str) -> None:
    cluster = Cluster(cluster_name)
    host, network = untouched(), links_and_routes()
    command = [sys.executable, "-m", "devcluster", "up", "--node", "--name", cluster_name]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as up:
        assert up.stderr is not None
        assert any(f" {step} " in line for line in up.stderr)
        up.kill()
    assert traces(cluster)["files"]

    assert devcluster("down", "--name", cluster_name).code == 0

    wait_until(lambda: not any(traces(cluster).values()), deadline=10)
    assert untouched() == host
    assert links_and_routes() == network


def test_the_death_of_the_holder_takes_the_node_along(devcluster: Devcluster, cluster_name: str) -> None:
    cluster = Cluster(cluster_name)
    host, network = untouched(), links_and_routes()
    assert devcluster("up", "--node", "--name", cluster_name).code == 0
    assert untouched() == host
    holder = next(
        process for process in psutil.process_iter() if is_of(process, cluster) and process.name() == "unshare"
    )

    os.kill(holder.pid, signal.SIGKILL)

    wait_until(lambda: links_and_routes() == network, deadline=10)
    inside = ("containerd", "kubelet", "kube-proxy", "pause", "coredns")
    wait_until(lambda: not any(is_of(p, cluster) and p.name() in inside for p in psutil.process_iter()), deadline=10)
    assert devcluster("down", "--name", cluster_name).code == 0
    assert not any(traces(cluster).values())


def test_two_nodes_run_at_once_and_one_going_spares_the_other(
    devcluster: Devcluster, node_cluster: Client, cluster_name: str
) -> None:
    other = Cluster(cluster_name)
    assert devcluster("up", "--node", "--name", cluster_name).code == 0
    second = Client(other, other.kubeconfig)
    addresses = [client.kubectl_json("get", "nodes")["items"][0] for client in (node_cluster, second)]

    ranges = {node["spec"]["podCIDR"] for node in addresses}
    groups = {cgroups.group_name(client.cluster.name) for client in (node_cluster, second)}
    devcluster("down", "--name", cluster_name)

    assert len(ranges) == 2
    assert len(groups) == 2
    assert not any(traces(other).values())
    dns = node_cluster.kubectl_json("get", "pods", "--namespace=kube-system", "--selector=k8s-app=kube-dns")["items"]
    assert all(pod["status"]["phase"] == "Running" for pod in dns)
    assert "ok" in node_cluster.kubectl("get", f"--raw=/api/v1/nodes/{addresses[0]['metadata']['name']}/proxy/healthz")
    assert all((Path(path) / cgroups.group_name(node_cluster.cluster.name)).exists() for path in hierarchies())


def hierarchies() -> list[str]:
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return [mount[1] for mount in mounts if mount[2] in {"cgroup", "cgroup2"}]
