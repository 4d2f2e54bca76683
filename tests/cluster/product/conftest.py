"""The operator as a process with its own rights, on a control plane that no other test uses.

The chart is installed by helm without Pods, and the operator runs here as the ServiceAccount that the chart made. There
is no node, so these tests look at objects; what Pods see, the end-to-end tests show.
"""

import base64
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from devcluster.cluster import Cluster
from devcluster.testing import Client, CommandFailedError, wait_until

ROOT = Path(__file__).parents[3]
SYSTEM = "servicelink-system"
USER = f"system:serviceaccount:{SYSTEM}:servicelink"
Body = dict[str, Any]


@dataclass(slots=True)
class Operator:
    """One process of the operator; `port` is where it answers about its health."""

    process: subprocess.Popen[str]
    port: int
    log: Path

    def is_ready(self) -> bool:
        """Answer whether it says that it is."""
        return self.readiness()[0] == 200

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

    def start(self, *flags: str) -> Operator:
        """Start an operator with the chart's rights; it need not be ready yet."""
        port = _free_port()
        log = self.folder / f"operator-{len(self.started)}.log"
        words = [
            *(str(Path(sys.executable).parent / "servicelink-operator"), "run"),
            *(f"--kubeconfig={self.account.kubeconfig}", f"--lease-namespace={SYSTEM}", "--log-format=json"),
            *(f"--bind=127.0.0.1:{port}", "--propagation-wait=2s", *flags),
        ]
        with log.open("w") as stream:
            process = subprocess.Popen(words, stdout=stream, stderr=stream, text=True)
        operator = Operator(process, port, log)
        self.started.append(operator)
        return operator


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """The chart, installed in a cluster of this module's own; nothing runs yet."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    devcluster = [sys.executable, "-m", "devcluster"]
    up = [*devcluster, "up", "--audit", f"--while={os.getpid()}", f"--name={name}"]
    subprocess.run(up, check=True, capture_output=True)
    cluster = Cluster(name)
    admin = Client(cluster, cluster.kubeconfig)
    chart = ("install", "servicelink", str(ROOT / "charts" / "servicelink"), f"--namespace={SYSTEM}")
    admin.helm(*chart, "--create-namespace", "--set=replicas=0")
    made = Product(admin, admin.as_service_account(SYSTEM, "servicelink"), tmp_path_factory.mktemp("operator"))
    yield made
    for operator in made.started:
        operator.kill()
    subprocess.run([*devcluster, "down", f"--name={name}"], check=True, capture_output=True)


@pytest.fixture(scope="module")
def operator(product: Product) -> Operator:
    """A running operator that leads."""
    made = product.start()
    wait_until(lambda: made.readiness()[1] if "lease: leading" in made.readiness()[1] else None)
    assert made.is_ready(), made.readiness()[1]
    return made


@dataclass(frozen=True, slots=True)
class Shop:
    """A namespace of users, and what they see there."""

    admin: Client
    namespace: str

    def kubectl(self, *words: str) -> str:
        """Run kubectl in the namespace."""
        return self.admin.kubectl(words[0], f"--namespace={self.namespace}", *words[1:])

    def read(self, kind: str, name: str) -> Body:
        """Answer an object."""
        body: Body = json.loads(self.kubectl("get", kind, name, "--output=json"))
        return body

    def apply(self, *documents: str) -> None:
        """Apply YAML documents."""
        self.admin.apply("\n---\n".join(documents), f"--namespace={self.namespace}")

    def sh(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command line as a user pastes it."""
        path = f"{self.admin.cluster.bin}:{os.environ['PATH']}"
        env = {**os.environ, "PATH": path, "KUBECONFIG": str(self.admin.kubeconfig)}
        return subprocess.run(["sh", "-c", command], env=env, capture_output=True, text=True, check=False)

    def settle(self, *names: str) -> None:
        """Wait until links are Ready."""
        for name in names:
            self.kubectl("wait", f"slink/{name}", "--for=condition=Ready", "--timeout=30s")

    def conditions(self, link: str) -> dict[str, tuple[str, str, str]]:
        """Answer a link's conditions by type: status, reason, message."""
        status = self.read("slink", link).get("status") or {}
        found = status.get("conditions") or ()
        return {one["type"]: (one["status"], one["reason"], one["message"]) for one in found}

    def says(self, link: str, kind: str, status: str, reason: str) -> None:
        """Wait until a link's condition is that."""

        def said() -> bool:
            return self.conditions(link).get(kind, ())[:2] == (status, reason)

        wait_until(said, deadline=45)

    def secret(self, name: str) -> dict[str, str]:
        """Answer a Secret's data in plain text."""
        data = self.read("secret", name).get("data") or {}
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def entries(self, service: str) -> dict[str, Body]:
        """Answer a verifier's entries by link; none where there is no verifier."""
        try:
            shards = self.read("configmap", f"servicelink-verifier-{service}")
        except CommandFailedError as error:
            if "NotFound" in error.stderr:
                return {}
            raise
        return {entry["link"]: entry for text in shards["data"].values() for entry in json.loads(text)["links"]}

    def pod_spec(self, workload: str) -> Body:
        """Answer the Pods' spec of a Deployment, or of `kind/name`."""
        kind, _, name = workload.rpartition("/")
        spec: Body = self.read(kind or "deployment", name)["spec"]
        if kind == "cronjob":
            spec = spec["jobTemplate"]["spec"]
        found: Body = spec["template"]["spec"]
        return found


@pytest.fixture
def shops(product: Product, operator: Operator) -> Iterator[Callable[[], Shop]]:
    """`shops()` makes a namespace; all go after the test."""
    names: list[str] = []

    def make() -> Shop:
        names.append(f"t-{uuid.uuid4().hex[:8]}")
        product.admin.kubectl("create", "namespace", names[-1])
        return Shop(product.admin, names[-1])

    yield make
    for name in names:
        product.admin.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture
def shop(shops: Callable[[], Shop]) -> Shop:
    """A namespace of this test's own."""
    return shops()


@pytest.fixture
def write() -> "Writer":
    """Writes the YAML that users write."""
    return Writer()


class Writer:
    """The objects of these tests, short."""

    def workload(self, name: str = "checkout", kind: str = "Deployment", container: str = "name: app") -> str:
        """Write a workload of one container."""
        template = f"{{metadata: {{labels: {{app: {name}}}}}, spec: {{containers: [{{image: a, {container}}}]}}}}"
        specs = {
            "Deployment": f"selector: {{matchLabels: {{app: {name}}}}}, template: {template}",
            "DaemonSet": f"selector: {{matchLabels: {{app: {name}}}}}, template: {template}",
            "StatefulSet": f"serviceName: x, selector: {{matchLabels: {{app: {name}}}}}, template: {template}",
        }
        if kind == "CronJob":
            job = template.replace("spec: {containers", "spec: {restartPolicy: Never, containers")
            spec = f"schedule: '@yearly', jobTemplate: {{spec: {{template: {job}}}}}"
            return f"{{apiVersion: batch/v1, kind: CronJob, metadata: {{name: {name}}}, spec: {{{spec}}}}}"
        return f"{{apiVersion: apps/v1, kind: {kind}, metadata: {{name: {name}}}, spec: {{{specs[kind]}}}}}"

    def service(self, name: str = "notification") -> str:
        """Write a Service on port 80 of Pods on 8080."""
        spec = f"selector: {{app: {name}}}, ports: [{{port: 80, targetPort: 8080}}]"
        return f"{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{{spec}}}}}"

    def link(
        self,
        name: str = "checkout-to-notification",
        *,
        client: str = "kind: Deployment, name: checkout",
        server: str = "name: notification",
        protocol: str = "REST",
        more: str = "",
    ) -> str:
        """Write a link; `more` is further fields of its spec."""
        spec = f"client: {{{client}}}, server: {{{server}}}, protocol: {protocol}"
        head = f"apiVersion: servicelink.dev/v1alpha1, kind: ServiceLink, metadata: {{name: {name}}}"
        return f"{{{head}, spec: {{{spec}{more and f', {more}'}}}}}"

    def policy(self, mode: str = "Audit", more: str = "", services: str = "notification") -> str:
        """Write the policy `owner`; `more` is further fields of its spec."""
        spec = f"services: [{services}], mode: {mode}{more and f', {more}'}"
        head = "apiVersion: servicelink.dev/v1alpha1, kind: ServiceLinkPolicy, metadata: {name: owner}"
        return f"{{{head}, spec: {{{spec}}}}}"
