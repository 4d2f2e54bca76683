"""A node's address ranges and the one link that joins it to the host.

Each node takes a slot; slot k owns 10.213.k.0/30 (the link), 10.214.k.0/24 (Pods) and 10.215.k.0/24 (Services). A slot
that the host already routes into is passed over, so that clusters never overlap one another or a network that this
machine is joined to.
"""

import hashlib
import ipaddress
import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from devcluster.errors import DevclusterError
from devcluster.host import run

SLOTS = 64


@dataclass(frozen=True, slots=True)
class NodeNetwork:
    """The addresses of the node in that slot."""

    slot: int

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


def interface_of(folder: Path) -> str:
    """Answer the name of the host's end of the link of the cluster in that folder.

    Named after the cluster and not after its slot: a slot is free again once its node is dead, and whoever clears the
    dead one away must not cut the link of the next.
    """
    return f"dc-{hashlib.sha256(str(folder).encode()).hexdigest()[:10]}"


def free_network() -> NodeNetwork:
    """Answer the first slot that nothing on this host uses; hold `host_locked` until it is plugged in.

    A route into a slot, or to a part of one, says that it is used. A wider one, such as a company's 10.0.0.0/8, does
    not: the slot's own routes are more specific, and win.
    """
    routed = _routed()
    for slot in range(SLOTS):
        network = NodeNetwork(slot)
        ours = [ipaddress.IPv4Network(cidr) for cidr in (network.link, network.pods, network.services)]
        if not any(theirs.subnet_of(mine) for mine in ours for theirs in routed):
            return network
    raise DevclusterError(
        f"all {SLOTS} address ranges for nodes are in use on this host",
        mend="take clusters down (python -m devcluster status lists them), or look at `ip route`",
    )


def plug_in(network: NodeNetwork, interface: str, node_pid: int) -> None:
    """Join the network namespace of that process to the host by `interface`; the node's end is called eth0."""
    outside = (
        f"link add {interface} type veth peer name eth0 netns {node_pid}",
        f"address add {network.host}/30 dev {interface}",
        f"link set {interface} up",
    )
    for arguments in outside:
        run(["ip", *arguments.split()])
    inside = (
        "link set lo up",
        f"address add {network.node}/30 dev eth0",
        "link set eth0 up",
        f"route add default via {network.host}",
    )
    enter = ["nsenter", f"--target={node_pid}", "--net"]
    for arguments in inside:
        run([*enter, "ip", *arguments.split()])
    run([*enter, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])
    for cidr in (network.pods, network.services):
        run(["ip", "route", "add", cidr, "via", network.node, "dev", interface])


def unplug(interface: str) -> None:
    """Take the link off the host, and with it its routes; waits until a dying node's kernel has let go of it."""
    until = time.monotonic() + 10
    while interface in _interfaces():
        # The node's end may be going down with its namespace at this very moment: then this says "cannot find device".
        subprocess.run(["ip", "link", "delete", interface], capture_output=True, check=False)
        if time.monotonic() > until:
            raise DevclusterError(f"the interface {interface} does not go away", mend="look at `ip link`")


def _routed() -> list[ipaddress.IPv4Network]:
    routes = json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"]))
    destinations = [route["dst"] for route in routes if route["dst"] != "default"]
    return [ipaddress.IPv4Network(destination, strict=False) for destination in destinations]


def _interfaces() -> set[str]:
    return {link["ifname"] for link in json.loads(run(["ip", "-json", "link", "show"]))}
