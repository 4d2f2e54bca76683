"""Outages of the API server itself, and of what it remembers."""

import base64
import http.client
import json
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psutil

from devcluster import processes
from devcluster.cluster import Cluster
from devcluster.testing import Client, wait_until

API_SERVER, CONTROLLERS = "kube-apiserver", "kube-controller-manager"
_START = """
import pathlib, sys
from devcluster import processes
processes.start(pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
"""


@dataclass(frozen=True, slots=True)
class _Component:
    """A component that runs: its process, and the words that start it."""

    cluster: Cluster
    name: str
    process: psutil.Process
    words: list[str]

    @classmethod
    def find(cls, cluster: Cluster, name: str) -> "_Component":
        """Find it among all processes, which takes a moment."""
        process = processes.components(cluster.folder)[name]
        return cls(cluster, name, process, process.cmdline())

    def flag(self, name: str) -> str:
        """Answer what it was told by a flag."""
        return next(word for word in self.words if word.startswith(f"--{name}=")).partition("=")[2]

    @contextmanager
    def gone(self) -> Iterator[None]:
        """Kill it, and start it again after the block."""
        with _held(self.flag("bind-address"), int(self.flag("secure-port"))):
            self.process.kill()
            # It is no child of ours: whoever adopted it takes it off the table.
            psutil.wait_procs([self.process], timeout=10)
            try:
                yield
            finally:
                # By a process of its own, as `devcluster up` does: it must not be a child of this one.
                start = [sys.executable, "-c", _START, str(self.cluster.folder), self.name, *self.words]
                subprocess.run(start, check=True)


def api_server_gone(admin: Client) -> AbstractContextManager[None]:
    """Kill the API server, and start it again after the block; connections are refused meanwhile.

    It is looked up with this call, so that it goes the moment that the block begins.
    """
    return _gone(admin, _Component.find(admin.cluster, API_SERVER))


def api_server_hangs(admin: Client) -> AbstractContextManager[None]:
    """Stop the API server: what is sent to it waits, and is carried out after the block. As `api_server_gone`."""
    return _stopped(_Component.find(admin.cluster, API_SERVER))


@contextmanager
def control_plane_gone(admin: Client) -> Iterator[None]:
    """Kill the API server and those that end by themselves without it, and start all again after the block.

    A controller manager cannot renew its own Lease then, and ends (the development cluster's has none). One that stayed
    might take nodes, whose news it had no way to hear, for silent, and their Pods off the Services.
    """
    with _Component.find(admin.cluster, CONTROLLERS).gone(), api_server_gone(admin):
        yield


def forget_history(admin: Client) -> None:
    """Have etcd and the API server forget every version but the newest, so that older watches are told 410."""
    etcd = _Component.find(admin.cluster, API_SERVER).flag("etcd-servers")
    newest = _ask_etcd(admin.cluster, etcd, "range", {"key": base64.b64encode(b"/").decode()})["header"]["revision"]
    _ask_etcd(admin.cluster, etcd, "compaction", {"revision": newest, "physical": True})
    # What its watch cache remembers goes with the process.
    with api_server_gone(admin):
        pass


def _ask_etcd(cluster: Cluster, address: str, call: str, body: dict[str, Any]) -> dict[str, Any]:
    """Call etcd by its JSON gateway (https://etcd.io/docs/v3.6/dev-guide/api_grpc_gateway)."""
    pki, where = cluster.folder / "pki", urlsplit(address)
    context = ssl.create_default_context(cafile=str(pki / "etcd-ca.crt"))
    context.load_cert_chain(pki / "etcd-client.crt", pki / "etcd-client.key")
    connection = http.client.HTTPSConnection(where.hostname or "", where.port, context=context, timeout=10)
    try:
        connection.request("POST", f"/v3/kv/{call}", json.dumps(body))
        answer = connection.getresponse()
        said = answer.read().decode()
        assert answer.status == http.client.OK, said
        found: dict[str, Any] = json.loads(said)
        return found
    finally:
        connection.close()


@contextmanager
def _gone(admin: Client, api_server: _Component) -> Iterator[None]:
    try:
        with api_server.gone():
            yield
    finally:
        wait_until(lambda: admin.kubectl("get", "--raw=/readyz"), deadline=90)


@contextmanager
def _stopped(component: _Component) -> Iterator[None]:
    component.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        component.process.send_signal(signal.SIGCONT)


@contextmanager
def _held(host: str, port: int) -> Iterator[None]:
    """Keep a port for whoever comes back to it, as `devcluster.ports` does; connections to it are refused."""
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        keeper.bind((host, port))
        yield
