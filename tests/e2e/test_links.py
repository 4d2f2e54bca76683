"""Links between real Pods: the chart and image built here, the example's services, the SDK at both ends."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import images, lifecycle
from devcluster.progress import Progress
from devcluster.testing import Client, wait_until

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "01-rest-api-key"
SYSTEM = "servicelink-system"
REFUSED = "403 INVALID_SERVICE_AUTH"

# Run in a client's Pod with the prefixes of links: what it was handed, without the key itself.
SHOW_BINDINGS = """
import hashlib, json, os, pathlib, sys
def binding(prefix):
    file = pathlib.Path(os.environ[prefix + "_API_KEY_FILE"])
    return {
        "folder": str(file.parent.relative_to(os.environ["SERVICE_BINDING_ROOT"])),
        "protocol": (file.parent / "protocol").read_text(),
        "scheme": os.environ[prefix + "_URL"].partition(":")[0],
        "kid": (file.parent / "api-key-id").read_text(),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
print(json.dumps([binding(prefix) for prefix in sys.argv[1:]]))
"""

# Run in any Pod with a URL and a key.
CALL_WITH_KEY = """
import sys, stranger, urllib.request
opener = urllib.request.build_opener()
opener.addheaders = [("x-service-auth", sys.argv[2])]
urllib.request.install_opener(opener)
print(stranger.call(sys.argv[1]))
"""

SHOW_COUNTS = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/counts').read().decode())"


@dataclass(frozen=True, slots=True)
class Shop:
    """The example's services in a namespace of a test's own."""

    client: Client
    namespace: str

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl in the namespace."""
        return self.client.kubectl(arguments[0], f"--namespace={self.namespace}", *arguments[1:])

    def apply(self, *documents: dict[str, object]) -> None:
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


@pytest.fixture(scope="session")
def installed(node_cluster: Client) -> Client:
    """The operator, installed as a user installs it; a kubelet of this cluster looks at mounted files every 10 s."""
    for image, dockerfile in (("servicelink", ROOT / "Dockerfile"), ("servicelink-example", EXAMPLE / "Dockerfile")):
        archive = images.build(dockerfile, f"{image}:dev", ROOT, Progress.on_stderr())
        lifecycle.load(node_cluster.cluster, archive)
    values = ("--set=image.tag=dev", "--set=operator.propagationWait=25s")
    chart = ("upgrade", "--install", "servicelink", str(ROOT / "charts" / "servicelink"), f"--namespace={SYSTEM}")
    node_cluster.helm(*chart, "--create-namespace", "--wait", "--timeout=2m", *values)
    return node_cluster


@pytest.fixture
def shop(installed: Client, namespace: str) -> Shop:
    """A namespace under the restricted Pod Security Standard, without a workload yet."""
    installed.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    return Shop(installed, namespace)


def example(file: str, *kinds: str) -> list[dict[str, object]]:
    """Answer the documents of the example's file that are of these kinds, without their namespace."""
    documents = [one for one in yaml.safe_load_all((EXAMPLE / file).read_text()) if one["kind"] in kinds]
    for document in documents:
        del document["metadata"]["namespace"]
    return documents


def services() -> list[dict[str, object]]:
    return example("shop.yaml", "Deployment", "Service")


def links() -> list[dict[str, object]]:
    return example("link.yaml", "ServiceLink")


def policy(mode: str) -> dict[str, object]:
    (found,) = example("link.yaml", "ServiceLinkPolicy")
    return {**found, "spec": {"services": ["notification"], "mode": mode}}


def test_the_operator_is_ready_when_helm_returns(installed: Client) -> None:
    deployment = installed.kubectl_json("get", "deployment", "servicelink", f"--namespace={SYSTEM}")

    assert deployment["status"]["readyReplicas"] == 1
    assert deployment["status"]["observedGeneration"] == deployment["metadata"]["generation"]


def test_a_new_link_to_a_server_that_refuses_loses_no_call_once_it_is_ready(shop: Shop) -> None:
    shop.apply(policy("Enforce"), *services())
    shop.roll_out("notification", "stranger")
    wait_until(lambda: shop.call_as_stranger() == REFUSED)

    shop.apply(*links())
    shop.settle()

    assert shop.call(300) == "300 of 300 answered"
    assert shop.call_as_stranger() == REFUSED


def test_a_server_that_only_audits_refuses_nobody_and_counts_what_it_would_have(shop: Shop) -> None:
    shop.apply(policy("Audit"), *services(), *links())
    shop.settle()
    wait_until(lambda: shop.call_as_stranger() == "202")
    before = shop.would_refuse()

    answers = [shop.call_as_stranger() for _ in range(5)]

    assert answers == ["202"] * 5
    assert shop.would_refuse() - before == 5
    assert shop.call(20) == "20 of 20 answered"
    assert shop.would_refuse() - before == 5


def test_the_key_of_a_deleted_link_is_refused(shop: Shop) -> None:
    shop.apply(policy("Enforce"), *services(), *links())
    shop.settle()
    template = '--output=go-template={{index .data "api-key" | base64decode}}'
    key = shop.kubectl("get", "secret", "checkout-to-notification", template)

    def call_with_stolen_key() -> str:
        return shop.run("deployment/stranger", "python", "-c", CALL_WITH_KEY, shop.url, key)

    wait_until(lambda: call_with_stolen_key() == "202")

    shop.kubectl("delete", "slink", "checkout-to-notification")

    wait_until(lambda: call_with_stolen_key() == REFUSED, deadline=60)


def test_links_of_all_protocols_hand_a_key_to_the_client_that_their_server_knows(shop: Shop) -> None:
    (link,), (service,) = links(), example("shop.yaml", "Service")
    wanted = {"notification": "REST", "users": "GRPC", "catalog": "GraphQL"}
    shop.apply(*services())
    for server, protocol in wanted.items():
        spec = {"client": {"kind": "Deployment", "name": "checkout"}, "server": {"name": server}, "protocol": protocol}
        shop.apply(
            {**service, "metadata": {"name": server}},
            {**link, "metadata": {"name": f"checkout-to-{server}"}, "spec": spec},
        )
    shop.kubectl("wait", "slink", "--all", "--for=condition=Ready", "--timeout=120s")
    shop.roll_out("checkout")

    prefixes = [server.upper() for server in wanted]
    handed = json.loads(shop.run("deployment/checkout", "python", "-c", SHOW_BINDINGS, *prefixes))

    assert [one["folder"] for one in handed] == [f"checkout-to-{server}" for server in wanted]
    assert [one["protocol"] for one in handed] == ["rest", "grpc", "graphql"]
    assert [one["scheme"] for one in handed] == ["http", "grpc", "http"]
    for server, one in zip(wanted, handed, strict=True):
        (entry,) = shop.verifier(server)
        (accepted,) = entry["keys"]
        assert entry["protocol"] == wanted[server]
        assert (accepted["kid"], accepted["sha256"]) == (one["kid"], one["sha256"])
