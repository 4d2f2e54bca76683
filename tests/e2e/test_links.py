"""Links between real Pods: the chart and image built here, the example's services, the SDK at both ends."""

import json

import pytest
from charts import CHART
from example import OPERATOR_IMAGE, REFUSED, Shop, documents, links, load_images, policy, services

from devcluster.testing import Client, wait_until

SYSTEM = "servicelink-system"

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


@pytest.fixture(scope="session")
def installed(node_cluster: Client) -> Client:
    """The operator, installed as a user installs it; a kubelet of this cluster looks at mounted files every 10 s."""
    load_images(node_cluster, OPERATOR_IMAGE)
    values = ("--set=image.tag=dev", "--set=operator.propagationWait=25s")
    chart = ("upgrade", "--install", "servicelink", str(CHART), f"--namespace={SYSTEM}")
    node_cluster.helm(*chart, "--create-namespace", "--wait", "--timeout=2m", *values)
    return node_cluster


@pytest.fixture
def shop(installed: Client, namespace: str) -> Shop:
    """A namespace under the restricted Pod Security Standard, without a workload yet."""
    installed.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    return Shop(installed, namespace)


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
    (link,), (service,) = links(), documents("shop.yaml", "Service")
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
