"""What a link does to the cluster, from `kubectl apply` to its deletion."""

import hashlib
import json
import re
from typing import TYPE_CHECKING

import pytest

from devcluster.testing import CommandFailedError, wait_until

if TYPE_CHECKING:
    from installation import Operator
    from tests.cluster.product.conftest import Shop, Writer

LINK = "checkout-to-notification"


def test_a_link_ends_in_a_key_that_the_client_gets_and_the_server_knows(
    shop: "Shop", write: "Writer", operator: "Operator"
) -> None:
    shop.apply(write.workload(), write.service(), write.link())
    shop.settle(LINK)

    binding, body = shop.secret(LINK), shop.read("secret", LINK)
    key = binding.pop("api-key")
    host = f"notification.{shop.namespace}.svc"
    assert re.fullmatch(r"slk_[A-Za-z0-9]{8}_[A-Za-z0-9_-]{43,}", key)
    assert json.loads(binding.pop("link.json"))["link"] == f"{shop.namespace}/{LINK}"
    assert binding == {
        "type": "servicelink",
        "provider": "servicelink.dev",
        "protocol": "rest",
        "uri": f"http://{host}:80",
        "host": host,
        "port": "80",
        "header": "x-service-auth",
        "api-key-id": key.split("_")[1],
    }
    assert body["type"] == "servicebinding.io/servicelink"
    assert [one["kind"] for one in body["metadata"]["ownerReferences"]] == ["ServiceLink"]

    (entry,) = shop.entries("notification").values()
    (accepted,) = entry["keys"]
    assert (accepted["kid"], accepted["sha256"]) == (binding["api-key-id"], hashlib.sha256(key.encode()).hexdigest())
    assert (entry["port"], entry["protocol"]) == (8080, "REST")

    told = [shop.kubectl("get", "configmap,slink,deployment,events", "--output=json"), operator.log.read_text()]
    assert not [text for text in told if key in text]
    steps = [line["event"] for line in operator.audits(f"{shop.namespace}/{LINK}")]
    assert steps == ["issued", "accepted"]


def test_the_client_s_template_gets_the_binding(shop: "Shop", write: "Writer") -> None:
    shop.apply(write.workload(), write.service(), write.link())
    shop.settle(LINK)

    spec = shop.pod_spec("checkout")
    (container,) = spec["containers"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}

    assert {one["name"]: one["value"] for one in container["env"]} == {
        "SERVICE_BINDING_ROOT": "/bindings",
        "NOTIFICATION_URL": f"http://notification.{shop.namespace}.svc:80",
        "NOTIFICATION_ADDRESS": f"notification.{shop.namespace}.svc:80",
        "NOTIFICATION_API_KEY_FILE": f"/bindings/{LINK}/api-key",
    }
    mount = mounts[f"/bindings/{LINK}"]
    assert mount["readOnly"]
    secret = volumes[mount["name"]]["secret"]
    assert secret["secretName"] == LINK
    assert "candidate" not in {item["key"] for item in secret["items"]}


def test_kubectl_wait_and_get_say_what_is_so(shop: "Shop", write: "Writer") -> None:
    shop.apply(write.workload(), write.service())
    shop.apply(write.link())
    shop.settle(LINK)
    table = shop.kubectl("get", "slink").splitlines()

    assert table[0].split() == ["NAME", "CLIENT", "SERVER", "PROTOCOL", "READY", "STATUS", "HEALTH", "AGE"]
    row = [LINK, "checkout", f"{shop.namespace}/notification", "REST", "True", "Active"]
    assert table[1].split()[:6] == row
    widest = max(len(line.rstrip()) for line in table)
    assert widest - len(shop.namespace) + len("shop") <= 100

    shop.apply(write.link(more="rest: {allow: [{methods: [GET], paths: [/v1/charges]}]}"))
    shop.settle(LINK)
    body = shop.read("slink", LINK)

    assert body["status"]["observedGeneration"] == body["metadata"]["generation"] == 2
    wait_until(lambda: shop.entries("notification")[f"{shop.namespace}/{LINK}"].get("allow"))


def test_a_typo_is_told_with_a_command_that_works(shop: "Shop", write: "Writer") -> None:
    shop.apply(write.workload(), write.service(), write.link("a", client="kind: Deployment, name: chekout"))
    shop.apply(write.link("b", server="name: notifications"))

    for link, reason, name in (("a", "ClientNotFound", "checkout"), ("b", "ServerNotFound", "notification")):
        shop.says(link, "Resolved", "False", reason)
        (command,) = re.findall(r"`(.*?)`", shop.conditions(link)["Resolved"][2])
        done = shop.sh(command)
        assert (done.returncode, name in done.stdout) == (0, True), done.stderr
        assert shop.conditions(link)["Reconciling"][0] == "True"


def test_a_link_before_its_deployment_becomes_ready_when_that_appears(shop: "Shop", write: "Writer") -> None:
    shop.apply(write.link())
    shop.says(LINK, "Resolved", "False", "ClientNotFound")

    shop.apply(write.workload(), write.service())
    shop.settle(LINK)

    assert "Stalled" not in shop.conditions(LINK)


def test_five_links_applied_together_roll_the_client_once(shop: "Shop", write: "Writer") -> None:
    servers = ("notification", "users", "catalog", "payments", "stock")
    shop.apply(write.workload(), *map(write.service, servers))
    before = shop.read("deployment", "checkout")["metadata"]["generation"]

    shop.apply(*(write.link(f"to-{server}", server=f"name: {server}") for server in servers))
    shop.settle(*(f"to-{server}" for server in servers))

    assert shop.read("deployment", "checkout")["metadata"]["generation"] == before + 1


def test_deleting_a_link_removes_exactly_what_it_added(shop: "Shop", write: "Writer") -> None:
    own = "name: app, env: [{name: OWN, value: x}], volumeMounts: []"
    shop.apply(write.workload(container=own), write.service(), write.service("users"))
    untouched = shop.pod_spec("checkout")
    shop.apply(write.link("to-users", server="name: users"))
    shop.settle("to-users")
    with_one = shop.pod_spec("checkout")
    shop.apply(write.link())
    shop.settle(LINK)
    assert shop.pod_spec("checkout") != with_one

    shop.kubectl("delete", "slink", LINK)
    wait_until(lambda: shop.pod_spec("checkout") == with_one)
    wait_until(lambda: shop.entries("notification") == {})
    shop.kubectl("delete", "slink", "to-users")
    wait_until(lambda: shop.pod_spec("checkout") == untouched)

    marks = shop.read("deployment", "checkout")["metadata"]
    assert not [key for key in {**marks.get("annotations", {}), **marks.get("labels", {})} if "servicelink.dev" in key]
    wait_until(lambda: not shop.kubectl("get", "secrets", "--output=name"))


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet", "CronJob"])
def test_every_kind_of_workload_can_be_a_client(shop: "Shop", write: "Writer", kind: str) -> None:
    shop.apply(write.workload(kind=kind), write.service(), write.link(client=f"kind: {kind}, name: checkout"))
    shop.settle(LINK)

    (container,) = shop.pod_spec(f"{kind.lower()}/checkout")["containers"]
    assert "NOTIFICATION_API_KEY_FILE" in {one["name"] for one in container["env"]}


def test_delivery_env_puts_the_key_into_a_variable_from_a_secret_of_its_own(shop: "Shop", write: "Writer") -> None:
    shop.apply(write.workload(), write.service(), write.link(more="binding: {delivery: Env}"))
    shop.settle(LINK)

    (container,) = shop.pod_spec("checkout")["containers"]
    (source,) = [one["valueFrom"]["secretKeyRef"] for one in container["env"] if one["name"] == "NOTIFICATION_API_KEY"]
    assert source["name"] != LINK
    assert shop.secret(source["name"])[source["key"]] == shop.secret(LINK)["api-key"]


def test_with_inject_none_the_template_stays_as_it_is(shop: "Shop", write: "Writer") -> None:
    shop.apply(write.workload(), write.service())
    before = shop.pod_spec("checkout")
    shop.apply(write.link(more="binding: {inject: None}"))
    shop.settle(LINK)

    assert shop.pod_spec("checkout") == before
    assert shop.secret(LINK)["api-key"]


def test_what_is_not_served_is_named(shop: "Shop", write: "Writer") -> None:
    shop.apply(write.workload(), write.service(), write.link(more="credential: {type: MTLS}"))
    shop.says(LINK, "Accepted", "False", "NotSupported")

    assert "spec.credential.type: MTLS" in shop.conditions(LINK)["Accepted"][2]
    assert shop.conditions(LINK)["Stalled"][0] == "True"
    with pytest.raises(CommandFailedError, match="NotFound"):
        shop.read("secret", LINK)


def test_the_workload_behind_a_service_with_a_policy_gets_its_verifier_at_once(shop: "Shop", write: "Writer") -> None:
    shop.apply(write.workload("notification"), write.service(), write.policy())

    def mounts() -> set[str]:
        return {one["mountPath"] for one in shop.pod_spec("notification")["containers"][0].get("volumeMounts", ())}

    wait_until(lambda: "/etc/servicelink/verifier/notification" in mounts())
    assert shop.entries("notification") == {}
    assert shop.read("configmap", "servicelink-verifier-notification")
