"""The node runs real Pods: they find, reach and watch each other as on any cluster."""

import re
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devcluster import images, lifecycle
from devcluster.progress import Progress
from devcluster.testing import Client, wait_until

IMAGE = "two-services:dev"
TWO_SERVICES = Path(__file__).parent / "two-services"
PORT_FORWARD = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")


@pytest.fixture(scope="session")
def image(node_cluster: Client) -> str:
    """An image built here and loaded into the node."""
    archive = images.build(TWO_SERVICES / "Dockerfile", IMAGE, TWO_SERVICES, Progress.on_stderr())
    lifecycle.load(node_cluster.cluster, archive)
    return IMAGE


@pytest.fixture
def pods(node_cluster: Client, namespace: str, image: str) -> Client:
    """A namespace under the restricted Pod Security Standard with the Deployments `caller` and `server`, available."""
    node_cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    node_cluster.kubectl("apply", f"--namespace={namespace}", f"--filename={TWO_SERVICES / 'pods.yaml'}")
    node_cluster.kubectl(
        *("wait", "deployment", "--all", f"--namespace={namespace}"), "--for=condition=Available", "--timeout=120s"
    )
    # An available Deployment is not yet a reachable Service: kube-proxy learns of its Pods a moment later.
    wait_until(lambda: len({ask_server(node_cluster, namespace) for _ in range(5)}) == 2)
    return node_cluster


def ask_server(client: Client, namespace: str) -> str:
    """Call the Service from a Pod of `caller` by its name; answers the name of the Pod that answered."""
    fetch = f"import urllib.request as u; print(u.urlopen('http://server.{namespace}.svc/').read().decode())"
    return in_caller(client, namespace, "python", "-c", fetch).strip()


def in_caller(client: Client, namespace: str, *command: str) -> str:
    return client.kubectl("exec", f"--namespace={namespace}", "deployment/caller", "--", *command)


def test_the_node_is_ready_at_the_version_asked_for(node_cluster: Client) -> None:
    node = node_cluster.kubectl_json("get", "nodes")["items"][0]
    ready = next(condition for condition in node["status"]["conditions"] if condition["type"] == "Ready")

    assert ready["status"] == "True"
    assert node["status"]["nodeInfo"]["kubeletVersion"].startswith("v1.37.")


def test_a_pod_calls_another_through_a_service_by_its_name(pods: Client, namespace: str) -> None:
    answers = {ask_server(pods, namespace) for _ in range(20)}

    # Both of the server's Pods answer: kube-proxy spreads the calls.
    names = pods.kubectl("get", "pods", f"--namespace={namespace}", "--selector=app=server", "--output=name").split()
    assert answers <= {name.removeprefix("pod/") for name in names}
    assert len(answers) == 2


def test_the_host_reaches_a_service(pods: Client, namespace: str) -> None:
    address = pods.kubectl_json("get", "service", "server", f"--namespace={namespace}")["spec"]["clusterIP"]

    with urllib.request.urlopen(f"http://{address}/", timeout=10) as answer:
        assert answer.read().decode().startswith("server-")


def test_a_pod_runs_as_nobody_in_particular(pods: Client, namespace: str) -> None:
    identity = in_caller(pods, namespace, "python", "-c", "import os; print(os.getuid(), os.access('/', os.W_OK))")

    assert identity.split() == ["65532", "False"]


def test_a_changed_secret_reaches_the_mounted_file(pods: Client, namespace: str) -> None:
    def mounted() -> str:
        return in_caller(pods, namespace, "cat", "/etc/secret/word")

    assert mounted() == "first"
    pods.kubectl("patch", "secret", "word", f"--namespace={namespace}", '--patch={"stringData": {"word": "second"}}')

    wait_until(lambda: mounted() == "second", deadline=60)


def test_a_pod_speaks_to_the_api_server_as_its_service_account(pods: Client, namespace: str) -> None:
    script = """
import json, pathlib, ssl, urllib.request
mount = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")
url = "https://kubernetes.default.svc/apis/authentication.k8s.io/v1/selfsubjectreviews"
body = json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).encode()
headers = {"Authorization": "Bearer " + (mount / "token").read_text(), "Content-Type": "application/json"}
context = ssl.create_default_context(cafile=mount / "ca.crt")
answer = urllib.request.urlopen(urllib.request.Request(url, body, headers), context=context)
print(json.load(answer)["status"]["userInfo"]["username"])
"""

    assert in_caller(pods, namespace, "python", "-c", script).strip() == f"system:serviceaccount:{namespace}:default"


def test_logs_show_what_a_container_wrote(pods: Client, namespace: str) -> None:
    wait_until(lambda: "GET /" in pods.kubectl("logs", f"--namespace={namespace}", "deployment/server"))


@contextmanager
def port_forward(client: Client, namespace: str) -> Iterator[str]:
    kubectl = client.cluster.bin / "kubectl"
    words = ["port-forward", f"--namespace={namespace}", "service/server", ":80", "--address=127.0.0.1"]
    with subprocess.Popen(
        [kubectl, f"--kubeconfig={client.kubeconfig}", *words], stdout=subprocess.PIPE, text=True
    ) as it:
        assert it.stdout is not None
        try:
            found = PORT_FORWARD.match(it.stdout.readline())
            assert found
            yield f"http://127.0.0.1:{found[1]}/"
        finally:
            it.kill()


def test_a_forwarded_port_leads_to_a_pod(pods: Client, namespace: str) -> None:
    with port_forward(pods, namespace) as url, urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.read().decode().startswith("server-")
