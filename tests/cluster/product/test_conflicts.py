"""What is somebody else's stays as it is, and the link says what is in the way until it is gone."""

from typing import TYPE_CHECKING

import pytest

from devcluster.testing import wait_until

if TYPE_CHECKING:
    from tests.cluster.product.conftest import Shop, Writer

LINK = "checkout-to-notification"


def test_a_foreign_secret_is_left_alone_until_it_is_deleted(shop: "Shop", write: "Writer") -> None:
    shop.kubectl("create", "secret", "generic", LINK, "--from-literal=password=own")
    foreign = shop.read("secret", LINK)
    shop.apply(write.workload(), write.service(), write.link())
    shop.says(LINK, "Issued", "False", "SecretConflict")

    message = shop.conditions(LINK)["Issued"][2]
    assert shop.read("secret", LINK) == foreign
    assert "volumes" not in shop.pod_spec("checkout")
    assert shop.conditions(LINK)["Stalled"][0] == "True"
    command = message[message.index("kubectl delete") :]
    assert shop.sh(command).returncode == 0
    # Nobody tells the operator: it looks again every 30 s.
    shop.kubectl("wait", f"slink/{LINK}", "--for=condition=Ready", "--timeout=60s")
    assert shop.secret(LINK)["api-key"]


def test_a_foreign_config_map_is_left_alone_until_it_is_deleted(shop: "Shop", write: "Writer") -> None:
    shop.kubectl("create", "configmap", "servicelink-verifier-notification", "--from-literal=own=x")
    foreign = shop.read("configmap", "servicelink-verifier-notification")
    shop.apply(write.workload(), write.service(), write.link())
    shop.says(LINK, "Issued", "False", "VerifierConflict")

    assert shop.read("configmap", "servicelink-verifier-notification") == foreign
    shop.kubectl("delete", "configmap", "servicelink-verifier-notification")
    shop.kubectl("wait", f"slink/{LINK}", "--for=condition=Ready", "--timeout=60s")


@pytest.mark.parametrize(
    ("container", "named"),
    [
        ("name: app, env: [{name: NOTIFICATION_URL, value: own}]", "NOTIFICATION_URL"),
        ("name: app, envFrom: [{configMapRef: {name: own}}]", "NOTIFICATION_URL"),
        ("name: app, volumeMounts: [{name: own, mountPath: /bindings}]", "/bindings"),
        ("name: app, env: [{name: SERVICE_BINDING_ROOT, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]", "ROOT"),
    ],
)
def test_what_the_template_has_already_is_named_and_left_alone(
    shop: "Shop", write: "Writer", container: str, named: str
) -> None:
    shop.kubectl("create", "configmap", "own", "--from-literal=NOTIFICATION_URL=own")
    workload = write.workload(container=container)
    if "name: own, mountPath" in container:
        workload = workload.replace("spec: {containers", "spec: {volumes: [{name: own, emptyDir: {}}], containers")
    shop.apply(workload, write.service())
    before = shop.pod_spec("checkout")

    shop.apply(write.link())
    shop.says(LINK, "Injected", "False", "InjectionConflict")

    assert named in shop.conditions(LINK)["Injected"][2]
    assert shop.pod_spec("checkout") == before


def test_a_conflict_that_is_mended_in_the_template_mends_the_link(shop: "Shop", write: "Writer") -> None:
    taken = "name: app, env: [{name: NOTIFICATION_URL, value: own}]"
    shop.apply(write.workload(container=taken), write.service(), write.link())
    shop.says(LINK, "Injected", "False", "InjectionConflict")

    shop.apply(write.workload())
    shop.settle(LINK)

    assert "Stalled" not in shop.conditions(LINK)


def test_of_two_links_that_want_one_secret_the_second_is_told(shop: "Shop", write: "Writer") -> None:
    shop.apply(write.workload(), write.service(), write.link())
    shop.settle(LINK)
    before = shop.read("secret", LINK)

    shop.apply(write.link("second", more=f"binding: {{secretName: {LINK}, envPrefix: SECOND}}"))
    shop.says("second", "Accepted", "False", "Conflicted")

    assert LINK in shop.conditions("second")["Accepted"][2]
    assert shop.read("secret", LINK) == before
    assert shop.conditions(LINK)["Ready"][0] == "True"


def test_what_users_change_in_our_objects_is_put_right(shop: "Shop", write: "Writer") -> None:
    shop.apply(write.workload(), write.service(), write.link())
    shop.settle(LINK)
    entries = shop.entries("notification")

    shop.kubectl("scale", "deployment", "checkout", "--replicas=0")
    shop.kubectl("set", "env", "deployment/checkout", "NOTIFICATION_ADDRESS-")

    def variables() -> set[str]:
        return {one["name"] for one in shop.pod_spec("checkout")["containers"][0]["env"]}

    wait_until(lambda: "NOTIFICATION_ADDRESS" in variables())
    shop.settle(LINK)
    assert shop.entries("notification") == entries
