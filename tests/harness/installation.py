"""An installation to try things on: a control plane of its own, the chart without Pods, and operators as processes.

The operators run here, as the ServiceAccount that the chart made, so that they have its rights and no others.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy import Proxy

from devcluster.cluster import Cluster
from devcluster.testing import Client, wait_until

ROOT = Path(__file__).parents[2]
SYSTEM = "servicelink-system"
USER = f"system:serviceaccount:{SYSTEM}:servicelink"
# What would be waited for in vain where there are no Pods.
_SHORT = ("--propagation-wait=2s", "--rollout-pause=0s", "--rollouts-at-a-time=0")
Body = dict[str, Any]


@dataclass(slots=True)
class Operator:
    """One process: `port` is where it answers about its health, `identity` its name in the Lease and the audit log."""

    process: subprocess.Popen[str]
    port: int
    log: Path
    identity: str

    def is_ready(self) -> bool:
        """Answer whether it says that it is."""
        return self.readiness()[0] == 200

    def leads(self) -> bool:
        """Answer whether it is ready and holds the Lease, as far as it knows."""
        return self.is_ready() and "lease: leading" in self.readiness()[1]

    def stands_by(self) -> bool:
        """Answer whether it is ready to take the Lease, which another holds."""
        return self.is_ready() and "lease: standby" in self.readiness()[1]

    def readiness(self) -> tuple[int, str]:
        """Answer what it says about itself: the HTTP status (0: nothing), and the page."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz?verbose", timeout=2) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def audits(self, link: str) -> list[Body]:
        """Answer the audit lines about a link, the oldest first."""
        lines = map(json.loads, self.log.read_text().splitlines())
        return [line for line in lines if line.get("logger") == "servicelink.audit" and line["link"] == link]

    def metric(self, name: str, which: str = "") -> float:
        """Answer the sum of a metric's series, or of those with such a label."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name}{{") and which in line)

    def suspend(self) -> None:
        """Stop it where it is, as a paused machine would; it does not notice."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask it to end, and answer its exit code."""
        self.process.terminate()
        return self.process.wait(timeout=20)


@dataclass(slots=True)
class Product:
    """An installation: the cluster's administrator, and what it takes to start the operator."""

    admin: Client
    account: Client
    folder: Path
    started: list[Operator] = field(default_factory=list)

    def start(self, *flags: str, through: Proxy | None = None, packages: Path | None = None) -> Operator:
        """Start an operator with the chart's rights; it need not be ready yet.

        `through` is its line to the API server; `packages` a folder whose packages are run instead of these.
        """
        port, identity = _free_port(), f"operator-{len(self.started)}"
        log, kubeconfig = self.folder / f"{identity}.log", self.account.kubeconfig
        if through is not None:
            kubeconfig = through.write_kubeconfig(kubeconfig, self.folder / f"{identity}.kubeconfig")
        words = [
            *(str(Path(sys.executable).parent / "servicelink-operator"), "run", f"--identity={identity}"),
            *(f"--kubeconfig={kubeconfig}", f"--lease-namespace={SYSTEM}", "--log-format=json"),
            *(f"--bind=127.0.0.1:{port}", *flags),
            *(flag for flag in _SHORT if flag.partition("=")[0] not in {one.partition("=")[0] for one in flags}),
        ]
        env = {**os.environ, **({"PYTHONPATH": str(packages)} if packages else {})}
        with log.open("w") as stream:
            process = subprocess.Popen(words, stdout=stream, stderr=stream, text=True, env=env)
        operator = Operator(process, port, log, identity)
        self.started.append(operator)
        return operator

    def eject(self, *flags: str) -> subprocess.CompletedProcess[str]:
        """Have all injections taken out with the chart's rights."""
        program = str(Path(sys.executable).parent / "servicelink-operator")
        words = [program, "eject", f"--kubeconfig={self.account.kubeconfig}", *flags]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    def start_pair(self, *flags: str, through: Proxy | None = None) -> tuple[Operator, Operator]:
        """Start two replicas, the first of which leads, over a line of its own; the other stands by."""
        leader = self.start(*flags, through=through)
        wait_until(leader.leads)
        standby = self.start(*flags)
        wait_until(standby.stands_by)
        return leader, standby

    def end_all(self) -> None:
        """End every operator, and let the Lease run out or be given back."""
        for operator in self.started:
            operator.kill()
        self.admin.kubectl("delete", "lease", "--all", f"--namespace={SYSTEM}")

    def line(self) -> Proxy:
        """Answer a line to the API server, to be opened as a context."""
        return Proxy.to_api_server(self.admin.kubeconfig)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def start_cluster(*flags: str) -> Iterator[Client]:
    """Start a cluster that no other test uses, with flags of `devcluster up`; the client is its administrator."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    devcluster = [sys.executable, "-m", "devcluster"]
    up = [*devcluster, "up", "--audit", f"--while={os.getpid()}", f"--name={name}", *flags]
    subprocess.run(up, check=True, capture_output=True)
    cluster = Cluster(name)
    try:
        yield Client(cluster, cluster.kubeconfig)
    finally:
        subprocess.run([*devcluster, "down", f"--name={name}"], check=True, capture_output=True)


@contextmanager
def install(folder: Path) -> Iterator[Product]:
    """Start a control plane with an audit log and install the chart; logs of operators go to `folder`."""
    with start_cluster() as admin:
        chart = ("install", "servicelink", str(ROOT / "charts" / "servicelink"), f"--namespace={SYSTEM}")
        admin.helm(*chart, "--create-namespace", "--set=replicas=0")
        made = Product(admin, admin.as_service_account(SYSTEM, "servicelink"), folder)
        try:
            yield made
        finally:
            for operator in made.started:
                operator.kill()
