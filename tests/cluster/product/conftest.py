"""The operator as a process with its own rights, on a control plane that no other test uses.

There is no node, so these tests look at objects; what Pods see, the end-to-end tests show.
"""

import base64
import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from installation import Operator, Product, install

from devcluster.testing import Client, CommandFailedError, wait_until

Body = dict[str, Any]


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """The chart, installed in a cluster of this module's own; nothing runs yet."""
    with install(tmp_path_factory.mktemp("operator")) as made:
        yield made


@pytest.fixture(scope="module")
def operator(product: Product) -> Operator:
    """A running operator that leads."""
    made = product.start()
    wait_until(lambda: "lease: leading" in made.readiness()[1] and made.is_ready())
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
        return {entry["link"]: entry for entry in self.all_entries(service)}

    def all_entries(self, service: str) -> list[Body]:
        """Answer a verifier's entries; a link that was recreated may have two."""
        try:
            shards = self.read("configmap", f"servicelink-verifier-{service}")
        except CommandFailedError as error:
            if "NotFound" in error.stderr:
                return []
            raise
        return [entry for text in shards["data"].values() for entry in json.loads(text)["links"]]

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
