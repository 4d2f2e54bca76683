"""Users deploy as they are used to, over and over, and neither their tools nor ours undo what the other has done.

There are no Pods on this cluster: what counts is what stands in the workload, that nobody takes turns in changing it,
and that `kubectl diff` of the user's own manifest stays empty.
"""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devcluster.testing import CommandFailedError, wait_until

if TYPE_CHECKING:
    from installation import Product
    from tests.cluster.product.conftest import Shop, Writer

LINK = "checkout-to-notification"
Body = dict[str, Any]

CHECKOUT = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: checkout}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: checkout}}}}
  template:
    metadata: {{labels: {{app: checkout}}}}
    spec:
      containers:
      - name: {container}
        image: {image}
        env: [{{name: OWN, value: "1"}}]
        volumeMounts: [{{name: own, mountPath: /own}}]
      volumes: [{{name: own, emptyDir: {{}}}}]
"""
CLIENT_SIDE = ("apply",)
AS_AUTOSCALER = "--as=system:serviceaccount:kube-system:horizontal-pod-autoscaler"
# What helm adds to whatever it installs.
OF_HELM = """metadata:
  name: checkout
  labels: {{app.kubernetes.io/managed-by: Helm}}
  annotations: {{meta.helm.sh/release-name: checkout, meta.helm.sh/release-namespace: {namespace}}}
"""
SERVER_SIDE = ("apply", "--server-side", "--field-manager=flux", "--force-conflicts")


def checkout(container: str = "app", image: str = "a:1", replicas: int | None = 2) -> str:
    """Write the manifest; without `replicas` as whoever leaves them to an autoscaler."""
    manifest = CHECKOUT.format(container=container, image=image)
    return manifest.replace("  replicas: 2\n", "" if replicas is None else f"  replicas: {replicas}\n")


def assert_no_diff(shop: "Shop", way: tuple[str, ...], manifest: str) -> None:
    """`kubectl diff`, as the same manager and in the same way, finds nothing; a controller may write in between."""
    words = ("diff", f"--namespace={shop.namespace}", *way[1:], "--filename=-")
    wait_until(lambda: shop.admin.kubectl(*words, stdin=manifest) == "", deadline=5)


def deploy(shop: "Shop", way: tuple[str, ...], manifest: str) -> None:
    shop.admin.kubectl(way[0], f"--namespace={shop.namespace}", *way[1:], "--filename=-", stdin=manifest)


def injected(shop: "Shop", container: str = "app") -> bool:
    """Answer whether the binding stands in a container, beside what is the user's own."""
    pod = shop.pod_spec("checkout")
    (found,) = [one for one in pod["containers"] if one["name"] == container] or [None]
    if found is None:
        return False
    variables = {one["name"] for one in found.get("env", ())}
    paths = {one["mountPath"] for one in found.get("volumeMounts", ())}
    volumes = {one["name"] for one in pod.get("volumes", ())}
    assert ("OWN" in variables, "/own" in paths, "own" in volumes) == (True, True, True)
    return "NOTIFICATION_URL" in variables and f"/bindings/{LINK}" in paths and f"slk-link-{LINK}" in volumes


def generation(shop: "Shop") -> int:
    found: int = shop.read("deployment", "checkout")["metadata"]["generation"]
    return found


def write_scale(shop: "Shop", replicas: int) -> bool:
    """Write the scale as an autoscaler's controller does; False where somebody else wrote at that moment."""
    path = f"/apis/apps/v1/namespaces/{shop.namespace}/deployments/checkout/scale"
    scale = json.loads(shop.admin.kubectl("get", f"--raw={path}", AS_AUTOSCALER))
    scale["spec"]["replicas"] = replicas
    try:
        shop.admin.kubectl("replace", f"--raw={path}", AS_AUTOSCALER, "--filename=-", stdin=json.dumps(scale))
    except CommandFailedError as error:
        if "(Conflict)" not in error.stderr:
            raise
        return False
    return True


@pytest.fixture(params=[CLIENT_SIDE, SERVER_SIDE], ids=["client side", "server side"])
def way(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """How the user applies."""
    found: tuple[str, ...] = request.param
    return found


@pytest.fixture
def linked(shop: "Shop", write: "Writer", way: tuple[str, ...]) -> "Shop":
    """A shop whose checkout was deployed that way, and linked."""
    deploy(shop, way, checkout())
    assert_no_diff(shop, way, checkout())
    shop.apply(write.service(), write.link())
    shop.settle(LINK)
    assert injected(shop)
    return shop


def test_the_same_manifest_again_changes_nothing(linked: "Shop", way: tuple[str, ...]) -> None:
    before = linked.read("deployment", "checkout")
    assert_no_diff(linked, way, checkout())

    deploy(linked, way, checkout())

    after = linked.read("deployment", "checkout")
    assert (after["spec"], generation(linked)) == (before["spec"], before["metadata"]["generation"])


def test_another_image_keeps_the_binding(linked: "Shop", way: tuple[str, ...]) -> None:
    deploy(linked, way, checkout(image="a:2"))

    assert injected(linked)
    assert linked.pod_spec("checkout")["containers"][0]["image"] == "a:2"
    assert_no_diff(linked, way, checkout(image="a:2"))


def test_a_renamed_container_gets_the_binding_under_its_new_name(linked: "Shop", way: tuple[str, ...]) -> None:
    deploy(linked, way, checkout(container="web"))

    wait_until(lambda: injected(linked, "web"))
    linked.settle(LINK)
    assert [one["name"] for one in linked.pod_spec("checkout")["containers"]] == ["web"]
    assert_no_diff(linked, way, checkout(container="web"))


def test_a_workload_that_is_deleted_and_created_again_gets_the_binding_again(
    linked: "Shop", way: tuple[str, ...]
) -> None:
    key = linked.secret(LINK)["api-key"]
    linked.kubectl("delete", "deployment", "checkout")
    linked.says(LINK, "Ready", "Unknown", "ClientNotFound")
    deploy(linked, way, checkout())

    linked.settle(LINK)
    assert injected(linked)
    assert linked.secret(LINK)["api-key"] == key
    assert_no_diff(linked, way, checkout())


def test_deleting_the_link_leaves_the_user_s_own_manifest(linked: "Shop", way: tuple[str, ...]) -> None:
    linked.kubectl("delete", "slink", LINK)

    wait_until(lambda: len(linked.pod_spec("checkout")["volumes"]) == 1)
    assert not injected(linked)
    assert_no_diff(linked, way, checkout())
    marks = linked.read("deployment", "checkout")["metadata"]
    assert not [key for key in (*marks.get("labels", {}), *marks["annotations"]) if "servicelink" in key]


def test_replace_takes_the_binding_out_and_it_comes_back(linked: "Shop", way: tuple[str, ...]) -> None:
    linked.admin.kubectl("replace", f"--namespace={linked.namespace}", "--filename=-", stdin=checkout(image="a:2"))

    wait_until(lambda: injected(linked))
    linked.settle(LINK)
    assert linked.pod_spec("checkout")["containers"][0]["image"] == "a:2"
    assert_no_diff(linked, way, checkout(image="a:2"))


def test_an_undone_rollout_gets_the_binding_again(shop: "Shop", write: "Writer", way: tuple[str, ...]) -> None:
    """The revision before knows neither the binding nor that it was added."""
    deploy(shop, way, checkout())
    wait_until(lambda: shop.kubectl("get", "replicasets", "--output=name").split())
    shop.apply(write.service(), write.link())
    shop.settle(LINK)
    wait_until(lambda: len(shop.kubectl("get", "replicasets", "--output=name").split()) == 2)

    shop.kubectl("rollout", "undo", "deployment/checkout")

    wait_until(lambda: generation(shop) >= 4 and injected(shop))
    shop.settle(LINK)
    assert_no_diff(shop, way, checkout())
    shop.kubectl("delete", "slink", LINK)
    wait_until(lambda: len(shop.pod_spec("checkout")["volumes"]) == 1)
    assert_no_diff(shop, way, checkout())


def test_kubectl_set_image_and_scale_keep_the_binding(linked: "Shop", way: tuple[str, ...]) -> None:
    entry = linked.entries("notification")

    linked.kubectl("set", "image", "deployment/checkout", "app=a:2")
    linked.kubectl("scale", "deployment/checkout", "--replicas=0")

    linked.settle(LINK)
    assert injected(linked)
    assert linked.entries("notification") == entry
    assert_no_diff(linked, way, checkout(image="a:2", replicas=0))


def test_an_autoscaler_that_scales_keeps_the_binding(shop: "Shop", write: "Writer", way: tuple[str, ...]) -> None:
    """As its controller does, with its rights: it writes the scale of the workload, and nothing else of it."""
    deploy(shop, way, checkout(replicas=None))
    shop.kubectl("autoscale", "deployment/checkout", "--min=1", "--max=9", "--cpu=80%")
    shop.apply(write.service(), write.link())
    shop.settle(LINK)
    template, entry = shop.pod_spec("checkout"), shop.entries("notification")

    for replicas in (7, 3):
        wait_until(partial(write_scale, shop, replicas))

    shop.settle(LINK)
    after = shop.read("deployment", "checkout")
    assert after["spec"]["replicas"] == 3
    assert (shop.pod_spec("checkout"), shop.entries("notification")) == (template, entry)
    assert injected(shop)
    assert_no_diff(shop, way, checkout(replicas=None))


def test_a_paused_workload_gets_the_binding_and_says_that_it_waits(
    shop: "Shop", write: "Writer", way: tuple[str, ...]
) -> None:
    deploy(shop, way, checkout())
    shop.kubectl("rollout", "pause", "deployment/checkout")
    shop.apply(write.service(), write.link())

    shop.settle(LINK)
    assert injected(shop)
    assert shop.conditions(LINK)["RolledOut"][1] == "Paused"
    assert_no_diff(shop, way, checkout())


def test_a_container_that_was_chosen_and_is_removed_is_named(shop: "Shop", write: "Writer") -> None:
    two = checkout().replace("      volumes:", "      - {name: helper, image: b}\n      volumes:")
    deploy(shop, CLIENT_SIDE, two)
    shop.apply(write.service(), write.link(client="kind: Deployment, name: checkout, containers: [helper]"))
    shop.settle(LINK)

    deploy(shop, CLIENT_SIDE, checkout())

    shop.says(LINK, "Injected", "False", "InjectionConflict")
    assert "helper" in shop.conditions(LINK)["Injected"][2]
    assert "spec.client.containers" in shop.conditions(LINK)["Injected"][2]
    assert_no_diff(shop, CLIENT_SIDE, checkout())


@pytest.mark.parametrize("helm", ["helm", "helm3"])
def test_helm_upgrades_its_release_and_keeps_the_binding(
    shop: "Shop", write: "Writer", tmp_path: Path, helm: str
) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("{apiVersion: v2, name: checkout, version: 0.1.0}")
    (tmp_path / "templates" / "checkout.yaml").write_text(checkout(image="{{ .Values.image }}"))

    def upgrade(image: str) -> None:
        words = ("upgrade", "--install", "checkout", str(tmp_path), f"--namespace={shop.namespace}")
        shop.admin.helm(*words, f"--set=image={image}", program=helm)

    upgrade("a:1")
    shop.apply(write.service(), write.link())
    shop.settle(LINK)
    upgrade("a:2")

    assert injected(shop)
    assert shop.pod_spec("checkout")["containers"][0]["image"] == "a:2"
    settled = generation(shop)
    upgrade("a:2")
    shop.settle(LINK)
    assert generation(shop) == settled
    # Not what the chart says alone: whoever applies as helm does takes out what only helm has added.
    said = checkout(image="a:2").replace("metadata: {name: checkout}\n", OF_HELM.format(namespace=shop.namespace))
    assert_no_diff(shop, CLIENT_SIDE, said)
    assert_no_diff(shop, ("apply", "--server-side", "--field-manager=helm", "--force-conflicts"), said)


def test_a_service_that_is_renamed_ends_where_the_link_says_so(shop: "Shop", write: "Writer") -> None:
    deploy(shop, CLIENT_SIDE, checkout())
    shop.apply(write.service(), write.link())
    shop.settle(LINK)
    key = shop.secret(LINK)["api-key"]

    shop.kubectl("delete", "service", "notification")
    shop.apply(write.service("notifications"))
    shop.says(LINK, "Resolved", "False", "ServerNotFound")

    assert injected(shop)
    assert "kubectl get service" in shop.conditions(LINK)["Resolved"][2]
    shop.apply(write.service())
    shop.settle(LINK)
    assert shop.secret(LINK)["api-key"] == key


def test_a_namespace_is_deleted_with_everything_in_it(shop: "Shop", write: "Writer", product: "Product") -> None:
    shop.apply(checkout(), write.workload("notification"), write.service(), write.link(), write.policy())
    shop.settle(LINK)

    product.admin.kubectl("delete", "namespace", shop.namespace, "--timeout=60s")

    left = json.loads(product.admin.kubectl("get", "slink,secret,configmap", "--all-namespaces", "--output=json"))
    assert shop.namespace not in {one["metadata"]["namespace"] for one in left["items"]}
