"""Names, addresses and records of clusters."""

import ipaddress
from itertools import combinations
from pathlib import Path

import pytest

from devcluster.cluster import Cluster, Provider, Record
from devcluster.errors import DevclusterError
from devcluster.network import SLOTS, NodeNetwork, interface_of


@pytest.mark.parametrize("name", ["", "Big", "a_b", "-a", "a-", "../x", "a" * 33])
def test_a_name_that_could_be_no_folder_or_cgroup_is_refused_with_the_rule(name: str) -> None:
    with pytest.raises(DevclusterError, match="1 to 32 lower-case letters, digits and dashes"):
        Cluster(name)


@pytest.mark.parametrize("name", ["a", "default", "ci-2", "a" * 32])
def test_an_ordinary_name_is_taken(name: str) -> None:
    assert Cluster(name).folder.name == name


def test_no_two_nodes_share_an_address() -> None:
    ranges = [
        ipaddress.ip_network(cidr)
        for network in map(NodeNetwork, range(SLOTS))
        for cidr in (network.link, network.pods, network.services)
    ]

    assert not any(one.overlaps(other) for one, other in combinations(ranges, 2))


def test_the_name_of_an_interface_fits_the_kernel() -> None:
    """IFNAMSIZ leaves 15 characters."""
    assert len(interface_of(Path("/a/b/c"))) <= 15
    assert interface_of(Path("/a/b/c")) != interface_of(Path("/a/b/d"))


def test_tools_for_a_cluster_that_others_run_do_not_depend_on_its_version() -> None:
    """Theirs may be one that nothing is pinned for here."""
    assert Record(Provider.KUBECONFIG, "1.20.15", node=True, audit=False).built_version is None
    assert Record(Provider.NATIVE, "1.36.3", node=True, audit=False).built_version == "1.36.3"
