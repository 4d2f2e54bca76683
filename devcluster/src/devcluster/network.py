"""A node's address ranges and the one link that joins it to the host.

Each node takes a slot; slot k owns 10.213.k.0/30 (the link), 10.214.k.0/24 (Pods) and 10.215.k.0/24 (Services). A slot
whose ranges the host already routes somewhere is passed over, so that clusters never overlap one another or the
networks this machine is joined to.
"""

import ipaddress
import json
import subprocess
import time
from dataclasses import dataclass

from devcluster.errors import DevclusterError
from devcluster.host import run

SLOTS = 64


@dataclass(frozen=True, slots=True)
class NodeNetwork:
    """The addresses of the node in that slot."""

    slot: int

    @property
    def interface(self) -> str:
        """The host's end of the link."""
        return f"devcluster{self.slot}"

    @property
    def host(self) -> str:
        """The host's address on the link; the API server listens there."""
        return f"10.213.{self.slot}.1"

    @property
    def node(self) -> str:
        """The node's own address."""
        return f"10.213.{self.slot}.2"

    @property
    def link(self) -> str:
        """The link's range."""
        return f"10.213.{self.slot}.0/30"

    @property
    def pods(self) -> str:
        """The Pods' range; one /24, which is what a node is given."""
        return f"10.214.{self.slot}.0/24"

    @property
    def services(self) -> str:
        """The Services' range."""
        return f"10.215.{self.slot}.0/24"

    @property
    def dns(self) -> str:
        """The ClusterIP of the cluster's DNS."""
        return f"10.215.{self.slot}.10"


def free_network() -> NodeNetwork:
    """Answer the first slot that nothing on this host uses; hold the lock `network` until it is plugged in."""
    routed = _routed()
    for slot in range(SLOTS):
        network = NodeNetwork(slot)
        ours = [ipaddress.ip_network(cidr) for cidr in (network.link, network.pods, network.services)]
        if not any(mine.overlaps(theirs) for mine in ours for theirs in routed):
            return network
    raise DevclusterError(
        f"all {SLOTS} address ranges for nodes are in use on this host",
        mend="take clusters down (python -m devcluster status lists them), or look at `ip route`",
    )


def plug_in(network: NodeNetwork, node_pid: int) -> None:
    """Join the network namespace of that process to the host; the node's end is called eth0."""
    outside = (
        f"link add {network.interface} type veth peer name eth0 netns {node_pid}",
        f"address add {network.host}/30 dev {network.interface}",
        f"link set {network.interface} up",
    )
    for arguments in outside:
        run(["ip", *arguments.split()])
    inside = (
        "link set lo up",
        f"address add {network.node}/30 dev eth0",
        "link set eth0 up",
        f"route add default via {network.host}",
    )
    for arguments in inside:
        run(["nsenter", f"--target={node_pid}", "--net", "ip", *arguments.split()])
    run(["nsenter", f"--target={node_pid}", "--net", "sysctl", "--quiet", "--write", "net.ipv4.ip_forward=1"])
    for cidr in (network.pods, network.services):
        run(["ip", "route", "add", cidr, "via", network.node, "dev", network.interface])


def unplug(network: NodeNetwork) -> None:
    """Take the link off the host, and with it its routes; waits until a dying node's kernel has let go of it."""
    until = time.monotonic() + 10
    while network.interface in _interfaces():
        # The node's end may be going down with its namespace at this very moment: then this says "cannot find device".
        subprocess.run(["ip", "link", "delete", network.interface], capture_output=True, check=False)
        if time.monotonic() > until:
            raise DevclusterError(f"the interface {network.interface} does not go away", mend="look at `ip link`")


def _routed() -> list[ipaddress.IPv4Network]:
    routes = json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"]))
    destinations = [route["dst"] for route in routes if route["dst"] != "default"]
    return [ipaddress.IPv4Network(destination, strict=False) for destination in destinations]


def _interfaces() -> set[str]:
    return {link["ifname"] for link in json.loads(run(["ip", "-json", "link", "show"]))}
