"""The example's shop as end-to-end tests use it: its files, a namespace to run them in, and images to run them from."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from devcluster import images, lifecycle
from devcluster.progress import Progress
from devcluster.testing import Client, wait_until

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "01-rest-api-key"
OPERATOR_IMAGE, EXAMPLE_IMAGE = "servicelink:dev", "servicelink-example:dev"
REFUSED = "403 INVALID_SERVICE_AUTH"
Document = dict[str, Any]

SHOW_COUNTS = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/counts').read().decode())"


@dataclass(frozen=True, slots=True)
class Shop:
    """The example's services in a namespace of a test's own."""

    client: Client
    namespace: str

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl in the namespace."""
        return self.client.kubectl(arguments[0], f"--namespace={self.namespace}", *arguments[1:])

    def apply(self, *documents: Document) -> None:
        """Apply documents to the namespace."""
        self.client.apply(yaml.safe_dump_all(documents), f"--namespace={self.namespace}")

    def run(self, pod: str, *command: str) -> str:
        """Run a command in a Pod; a Deployment stands for one of its Pods."""
        return self.kubectl("exec", pod, "--", *command).strip()

    def settle(self) -> None:
        """Wait until every link is Ready, and then for the Pods that are on their way."""
        self.kubectl("wait", "slink", "--all", "--for=condition=Ready", "--timeout=120s")
        self.roll_out("checkout", "notification", "stranger")

    def roll_out(self, *deployments: str) -> None:
        """Wait until these Deployments run as they are now."""
        for deployment in deployments:
            self.kubectl("rollout", "status", f"deployment/{deployment}", "--timeout=120s")

    def call(self, times: int) -> str:
        """Call over the link from the client's Pod, and answer what it says of it."""
        return self.run("deployment/checkout", "python", "checkout.py", "call", str(times))

    @property
    def url(self) -> str:
        """The address that a stranger knows."""
        return f"http://notification.{self.namespace}.svc:8080/notifications"

    def call_as_stranger(self) -> str:
        """Call once without a link, and answer the status and code."""
        return self.run("deployment/stranger", "python", "stranger.py", self.url)

    def verifier(self, service: str) -> list[dict[str, Any]]:
        """Answer the entries that a server is handed, from all shards."""
        shards = json.loads(self.kubectl("get", "configmap", f"servicelink-verifier-{service}", "--output=json"))
        return [link for shard in shards["data"].values() for link in json.loads(shard)["links"]]

    def notification_pods(self) -> list[str]:
        """Answer the names of the server's Pods."""
        return self.kubectl("get", "pods", "--selector=app=notification", "--output=name").split()

    def would_refuse(self) -> int:
        """Answer how many calls without a credential the server's Pods let through all the same."""
        # Pods that came before the verifier are on their way out, and count nothing.
        pods = wait_until(lambda: len(names := self.notification_pods()) == 2 and names)
        rows = [row for pod in pods or () for row in json.loads(self.run(pod, "python", "-c", SHOW_COUNTS))]
        wanted = ("would_refuse", "INVALID_SERVICE_AUTH")
        return sum(row["calls"] for row in rows if (row["outcome"], row["code"]) == wanted)


def load_images(node_cluster: Client, *operator_images: str) -> None:
    """Build the example's image, and the operator's under each of these names, and give them to the node."""
    dockerfiles = {EXAMPLE_IMAGE: EXAMPLE / "Dockerfile", **dict.fromkeys(operator_images, ROOT / "Dockerfile")}
    for image, dockerfile in dockerfiles.items():
        archive = images.build(dockerfile, image, ROOT, Progress.on_stderr())
        lifecycle.load(node_cluster.cluster, archive)


def documents(file: str, *kinds: str) -> list[Document]:
    """Answer the documents of the example's file that are of these kinds, without their namespace."""
    found = [one for one in yaml.safe_load_all((EXAMPLE / file).read_text()) if one["kind"] in kinds]
    for document in found:
        del document["metadata"]["namespace"]
    return found


def services() -> list[Document]:
    """Answer its Deployments and Services."""
    return documents("shop.yaml", "Deployment", "Service")


def links() -> list[Document]:
    """Answer its links."""
    return documents("link.yaml", "ServiceLink")


def policy(mode: str) -> Document:
    """Answer its policy with another mode."""
    (found,) = documents("link.yaml", "ServiceLinkPolicy")
    return {**found, "spec": {"services": ["notification"], "mode": mode}}
