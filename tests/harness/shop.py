"""A namespace of users: what they write there, and what they see."""

import asyncio
import base64
import json
import os
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from devcluster.testing import Client, CommandFailedError, wait_until
from servicelink_operator.cluster.api import Api
from servicelink_operator.cluster.kinds import SERVICE_LINK

Body = dict[str, Any]
# The annotations of a binding Secret that name keys.
KIDS = ("servicelink.dev/kid", "servicelink.dev/candidate-kid")


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

    def create(self, *documents: str) -> None:
        """Create links from YAML documents, all at once."""
        asyncio.run(self._create([yaml.safe_load(document) for document in documents]))

    async def _create(self, bodies: list[Body]) -> None:
        api = await Api.connect(str(self.admin.kubeconfig))
        await asyncio.gather(*(api.create(SERVICE_LINK, self.namespace, body) for body in bodies))
        await api.close()

    def sh(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command line as a user pastes it."""
        path = f"{self.admin.cluster.bin}:{os.environ['PATH']}"
        env = {**os.environ, "PATH": path, "KUBECONFIG": str(self.admin.kubeconfig)}
        return subprocess.run(["sh", "-c", command], env=env, capture_output=True, text=True, check=False)

    def settle(self, *names: str, deadline: int = 30) -> None:
        """Wait until links are Ready, for `deadline` seconds each."""
        for name in names:
            self.kubectl("wait", f"slink/{name}", "--for=condition=Ready", f"--timeout={deadline}s")

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

    def disagreements(self, *services: str) -> list[str]:
        """Answer each link whose Secret's key is not the one, and the only one, that its server accepts for it."""
        accepted: dict[str, list[tuple[str, str]]] = {}
        for entry in (entry for service in services for entry in self.all_entries(service)):
            accepted.setdefault(entry["link"], []).extend((one["kid"], one["sha256"]) for one in entry["keys"])
        held = {}
        for secret in json.loads(self.kubectl("get", "secrets", "--output=json"))["items"]:
            name, marks = secret["metadata"]["name"], secret["metadata"]["annotations"]
            held[f"{self.namespace}/{name}"] = [(marks["servicelink.dev/kid"], marks["servicelink.dev/sha256"])]
        return sorted(link for link in {*accepted, *held} if accepted.get(link) != held.get(link))

    @contextmanager
    def watched_kids(self) -> Iterator[dict[str, set[str]]]:
        """Give a table that holds, after the block, every kid that each binding Secret had while it ran, by name."""
        flags = ("--watch", "--output-watch-events", "--output=json", f"--namespace={self.namespace}")
        words = [
            str(self.admin.cluster.bin / "kubectl"),
            f"--kubeconfig={self.admin.kubeconfig}",
            "get",
            "secrets",
            *flags,
        ]
        found: dict[str, set[str]] = {}
        with tempfile.NamedTemporaryFile("a") as file, subprocess.Popen(words, stdout=file) as watch:
            said = Path(file.name)
            try:
                self._mark_secrets(said)
                yield found
                self._mark_secrets(said)
            finally:
                watch.terminate()
            for event in _documents(said.read_text()):
                marks = event["object"]["metadata"].get("annotations", {})
                kids = {marks[name] for name in KIDS if name in marks}
                if kids:
                    found.setdefault(event["object"]["metadata"]["name"], set()).update(kids)

    def _mark_secrets(self, said: Path) -> None:
        """Make a Secret and wait until a watch shows it, and so all that came before."""
        mark = f"mark-{uuid.uuid4().hex}"
        self.kubectl("create", "secret", "generic", mark)
        wait_until(lambda: mark in said.read_text())
        self.kubectl("delete", "secret", mark)

    def pod_spec(self, workload: str) -> Body:
        """Answer the Pods' spec of a Deployment, or of `kind/name`."""
        kind, _, name = workload.rpartition("/")
        spec: Body = self.read(kind or "deployment", name)["spec"]
        if kind == "cronjob":
            spec = spec["jobTemplate"]["spec"]
        found: Body = spec["template"]["spec"]
        return found


def _documents(text: str) -> Iterator[Body]:
    """Answer JSON documents that stand one after the other."""
    decoder, at = json.JSONDecoder(), 0
    while (start := text.find("{", at)) >= 0:
        document, at = decoder.raw_decode(text, start)
        yield document


@contextmanager
def open_shops(admin: Client, *, until_gone: bool = False) -> Iterator[Callable[[], Shop]]:
    """Give a function that makes namespaces; all of them go in the end, which may be waited for."""
    names: list[str] = []

    def make() -> Shop:
        names.append(f"t-{uuid.uuid4().hex[:8]}")
        admin.kubectl("create", "namespace", names[-1])
        return Shop(admin, names[-1])

    yield make
    if names:
        admin.kubectl("delete", "namespace", *names, f"--wait={str(until_gone).lower()}", "--ignore-not-found")


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

    def policy(
        self, mode: str = "Audit", more: str = "", services: str = "notification", *, name: str = "owner"
    ) -> str:
        """Write a policy; `more` is further fields of its spec."""
        spec = f"services: [{services}], mode: {mode}{more and f', {more}'}"
        head = "apiVersion: servicelink.dev/v1alpha1, kind: ServiceLinkPolicy"
        return f"{{{head}, metadata: {{name: {name}}}, spec: {{{spec}}}}}"
