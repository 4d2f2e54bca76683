"""A release on real Pods: tested by helm, upgraded and uninstalled while the shop calls over its link.

On a cluster of this module's own, since what it does to the operator would be felt by the tests of links.
"""

import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from charts import CHART, ROOT
from example import OPERATOR_IMAGE, Document, Shop, links, load_images, policy, services
from installation import SYSTEM, start_cluster
from releases import Release, standing

from devcluster import host
from devcluster.errors import DevclusterError
from devcluster.testing import Client, wait_until

NEXT_IMAGE = "servicelink:next"
VALUES = (
    *(f"--values={CHART / 'values-ha.yaml'}", "--set=operator.propagationWait=25s", "--set=image.tag=dev"),
    *("--create-namespace", "--wait", "--timeout=3m"),
)
UNGUARDED = "--set=crds.enabled=false,guards.enabled=false,operator.requireGuards=false"
CALLS = 100


@pytest.fixture(scope="module")
def node() -> Iterator[Client]:
    """A cluster that runs Pods, with the images of two versions."""
    try:
        host.require_linux_root("a node")
    except DevclusterError as error:
        pytest.skip(str(error))
    with start_cluster("--node") as client:
        load_images(client, OPERATOR_IMAGE, NEXT_IMAGE)
        yield client


@pytest.fixture
def release(node: Client) -> Release:
    """The chart with two replicas, as a user installs it, where Pods must obey the restricted standard."""
    made = Release(node, "helm", "servicelink", SYSTEM)
    made.install_or_upgrade(*VALUES)
    node.kubectl("label", "namespace", SYSTEM, "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    return made


@pytest.fixture
def shop(release: Release) -> Shop:
    """The example's shop, whose notification service refuses calls without a link; its links are Ready."""
    made = Shop(release.client, "shop")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
    # Once made, it is found as it is.
    made.apply(namespace, policy("Enforce"), *services(), *links())
    made.settle()
    return made


@pytest.fixture
def cluster(node: Client) -> Client:
    """Where `namespace` makes a namespace."""
    return node


@contextmanager
def calling(shop: Shop) -> Iterator[list[str]]:
    """Call over the shop's link while the block runs; the answers, a line for so many calls, are there after it."""
    said: list[str] = []
    over = threading.Event()

    def call() -> None:
        while not over.is_set():
            said.append(shop.call(CALLS))

    caller = threading.Thread(target=call)
    caller.start()
    try:
        yield said
    finally:
        over.set()
        caller.join()


def restarts(shop: Shop) -> dict[str, int]:
    """Answer the generation of every workload of the shop: what is not another generation was not restarted."""
    found = shop.client.kubectl_json("get", "deployments", f"--namespace={shop.namespace}")["items"]
    return {one["metadata"]["name"]: one["metadata"]["generation"] for one in found}


def handed_out(shop: Shop, kinds: str = "slink,secrets,configmaps") -> dict[str, object]:
    """Answer who the links are, and what Secrets and verifiers say."""
    found = shop.client.kubectl_json("get", kinds, f"--namespace={shop.namespace}")["items"]
    return {f"{one['kind']}/{one['metadata']['name']}": (one["metadata"]["uid"], one.get("data")) for one in found}


def link_of_stranger(name: str, inject: str = "None") -> Document:
    """Answer another link; with nothing injected it patches nobody, and once Ready shows that the operator works."""
    spec = {
        "client": {"kind": "Deployment", "name": "stranger"},
        "server": {"name": "notification"},
        "protocol": "REST",
        "binding": {"inject": inject},
    }
    (link,) = links()
    return {**link, "metadata": {"name": name}, "spec": spec}


@pytest.mark.parametrize("program", ["helm", "helm3"])
def test_helm_test_makes_a_call_and_leaves_nothing_behind(release: Release, program: str) -> None:
    def left() -> list[str]:
        kinds = "slink,pods,deployments,services,configmaps,secrets"
        found = release.client.kubectl("get", kinds, f"--namespace={SYSTEM}", "--output=name").split()
        return [name for name in found if "servicelink-test" in name]

    assert release.with_program(program).test().count("Succeeded") == 6

    wait_until(lambda: not left())


def test_helm_test_makes_a_call_where_the_operator_has_rights_in_one_namespace_only(
    release: Release, namespace: str
) -> None:
    release.uninstall()
    team = replace(release, name="team", system=namespace)
    team.install(*VALUES, UNGUARDED, f"--set=watch.namespaces={{{namespace}}}")

    assert team.test().count("Succeeded") == 6

    team.uninstall()


def test_an_upgrade_restarts_nobody_and_fails_no_call(release: Release, shop: Shop) -> None:
    before, keys = restarts(shop), handed_out(shop, "slink,secrets")

    with calling(shop) as said:
        release.upgrade(*VALUES, f"--set=image.tag={NEXT_IMAGE.partition(':')[2]}")
        shop.apply(link_of_stranger("after-the-upgrade"))
        shop.kubectl("wait", "slink", "--all", "--for=condition=Ready", "--timeout=120s")

    assert restarts(shop) == before
    assert handed_out(shop, "slink,secrets").items() >= keys.items()
    assert set(said) == {f"{CALLS} of {CALLS} answered"}


def test_an_uninstalled_release_leaves_links_that_work_and_is_installed_again(release: Release, shop: Shop) -> None:
    before, handed = restarts(shop), handed_out(shop)

    with calling(shop) as said:
        release.uninstall()

    assert handed_out(shop) == handed
    assert restarts(shop) == before
    assert set(said) == {f"{CALLS} of {CALLS} answered"}

    shop.kubectl("rollout", "restart", "deployment/checkout", "deployment/notification")
    shop.roll_out("checkout", "notification")
    assert shop.call(CALLS) == f"{CALLS} of {CALLS} answered"

    before = restarts(shop)
    release.install_or_upgrade(*VALUES)
    shop.apply(link_of_stranger("after-the-second-install"))
    shop.kubectl("wait", "slink", "--all", "--for=condition=Ready", "--timeout=120s")

    assert restarts(shop) == before
    assert (
        handed_out(shop, "slink,secrets").items()
        >= {name: one for name, one in handed.items() if "ConfigMap" not in name}.items()
    )


def test_the_page_s_way_in_ends_with_a_call(release: Release) -> None:
    release.uninstall()

    done = in_shell(release.client, commands_of_the_page()[0])

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_s_way_out_takes_everything_away(release: Release, namespace: str) -> None:
    """Of a client only: a server whose middleware has nothing to check calls with does not start."""
    node = release.client
    node.kubectl("delete", "namespace", "shop", "--ignore-not-found")
    shop, installed = Shop(node, namespace), release.manifests()
    shop.apply(*(one for one in services() if one["metadata"]["name"] == "stranger" or one["kind"] == "Service"))
    shop.apply(link_of_stranger("farewell", inject="Patch"))
    shop.kubectl("wait", "slink", "--all", "--for=condition=Ready", "--timeout=120s")
    shop.roll_out("stranger")
    assert "slk-" in shop.kubectl("get", "deployment", "stranger", "--output=yaml")

    done = in_shell(node, commands_of_the_page()[-1])

    assert done.returncode == 0, done.stdout + done.stderr
    shop.roll_out("stranger")
    assert "slk-" not in shop.kubectl("get", "deployment", "stranger", "--output=yaml")
    assert standing(node, installed) == set()
    wait_until(lambda: shop.kubectl("get", "secrets", "--output=name") == "")


def commands_of_the_page() -> list[str]:
    """Answer the blocks of commands of the chart's page."""
    return re.findall(r"```sh\n(.*?)```", (CHART / "README.md").read_text(), flags=re.DOTALL)


def in_shell(client: Client, script: str) -> subprocess.CompletedProcess[str]:
    """Run lines as somebody pastes them in the repository's root."""
    path = f"{client.cluster.bin}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "KUBECONFIG": str(client.kubeconfig)}
    words = ["bash", "-euo", "pipefail", "-c", script]
    return subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
