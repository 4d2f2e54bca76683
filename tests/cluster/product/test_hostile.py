"""What nobody means to write, or somebody means ill by: each ends in the condition that its author would expect."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from devcluster.testing import CommandFailedError, wait_until

if TYPE_CHECKING:
    from installation import Operator, Product
    from tests.cluster.product.conftest import Shop, Writer

LINK = "checkout-to-notification"
LONGEST_SERVICE = "s" * 63
LONGEST_NAME = "n" * 30 + "." + "n" * 32
GARBAGE = (
    '{"parts": 5}',
    "no JSON",
    '{"render":1,"parts":{"link/x":{"i":"0","a":{"volume||own":"0","env|app|OWN":"0"}}}}',
    '{"render":1,"parts":{"link/x":{"i":"0","a":{"nowhere|app|OWN":"0"}}}}',
)


def with_volume(workload: str) -> str:
    return workload.replace("spec: {containers", "spec: {volumes: [{name: own, emptyDir: {}}], containers")


def test_names_with_dots_and_as_long_as_they_can_be(shop: "Shop", write: "Writer") -> None:
    shop.apply(write.workload("check.out").replace("app: check.out", "app: c"), write.service(LONGEST_SERVICE))
    client, server = "kind: Deployment, name: check.out", f"name: {LONGEST_SERVICE}"
    names = ("a.b", "a-b", LONGEST_NAME)
    shop.apply(
        *(
            write.link(name, client=client, server=server, more=f"binding: {{envPrefix: L{number}}}")
            for number, name in enumerate(names)
        )
    )
    shop.settle(*names)

    volumes = {one["name"] for one in shop.pod_spec("check.out")["volumes"]}
    assert len([name for name in volumes if name.startswith("slk-link-")]) == 3
    assert all(len(name) <= 63 for name in volumes)
    assert set(shop.entries(LONGEST_SERVICE)) == {f"{shop.namespace}/{name}" for name in names}


def test_a_service_without_a_selector_is_served_as_others_are(shop: "Shop", write: "Writer") -> None:
    service = write.service().replace("selector: {app: notification}, ", "")
    shop.apply(write.workload(), service, write.link(), write.policy())
    shop.settle(LINK)

    assert shop.conditions(LINK)["Resolved"][0] == "True"


def test_a_headless_service_without_ports_has_no_port_to_call(shop: "Shop", write: "Writer") -> None:
    service = write.service().replace(", ports: [{port: 80, targetPort: 8080}]", ", clusterIP: None")
    shop.apply(write.workload(), service, write.link())
    shop.says(LINK, "Resolved", "False", "PortNotFound")


def test_a_port_by_a_name_that_is_not_there_is_told_with_those_that_are(shop: "Shop", write: "Writer") -> None:
    service = write.service().replace("{port: 80,", "{name: http, port: 80,")
    shop.apply(write.workload(), service, write.link(server="name: notification, port: grpc"))
    shop.says(LINK, "Resolved", "False", "PortNotFound")

    assert "http" in shop.conditions(LINK)["Resolved"][2]


def test_of_two_links_with_one_prefix_the_second_is_told(shop: "Shop", write: "Writer") -> None:
    shop.apply(write.workload(), write.service(), write.link())
    shop.settle(LINK)
    before = shop.pod_spec("checkout")

    shop.apply(write.link("second"))
    shop.says("second", "Accepted", "False", "Conflicted")

    assert LINK in shop.conditions("second")["Accepted"][2]
    assert shop.pod_spec("checkout") == before


def test_a_prefix_that_changes_how_programs_run_is_refused(shop: "Shop", write: "Writer") -> None:
    shop.apply(write.workload(), write.service(), write.link(more="binding: {envPrefix: PYTHON}"))
    shop.says(LINK, "Injected", "False", "InjectionConflict")

    assert "PYTHON_URL" in shop.conditions(LINK)["Injected"][2]
    assert "env" not in shop.pod_spec("checkout")["containers"][0]


def test_a_client_that_is_being_deleted_is_left_alone(shop: "Shop", write: "Writer") -> None:
    marked = "metadata: {name: checkout, finalizers: [x.dev/held]}"
    held = write.workload().replace("metadata: {name: checkout}", marked)
    shop.apply(held, write.service())
    shop.kubectl("delete", "deployment", "checkout", "--wait=false")
    before = shop.read("deployment", "checkout")

    shop.apply(write.link())
    shop.says(LINK, "Resolved", "False", "ClientNotFound")

    assert shop.read("deployment", "checkout")["spec"] == before["spec"]
    shop.kubectl("patch", "deployment", "checkout", "--type=merge", '--patch={"metadata":{"finalizers":null}}')
    shop.apply(write.workload())
    shop.settle(LINK)


def test_a_link_to_itself_makes_one_template_client_and_server(shop: "Shop", write: "Writer") -> None:
    shop.apply(write.workload("notification"), write.service(), write.policy("Enforce"))
    shop.apply(write.link(client="kind: Deployment, name: notification"))
    shop.settle(LINK)
    (container,) = shop.pod_spec("notification")["containers"]

    paths = [one["mountPath"] for one in container["volumeMounts"]]
    assert len(paths) == len(set(paths))
    assert {f"/bindings/{LINK}", "/etc/servicelink/verifier/notification", "/var/run/servicelink"} <= set(paths)


def test_what_a_template_left_null_is_as_if_it_were_not_there(shop: "Shop", write: "Writer") -> None:
    shop.apply(write.workload(), write.service())
    shop.apply(write.link(more="rest: null, binding: {env: null, secretName: null}, rotation: null"))
    shop.settle(LINK)

    assert set(shop.secret(LINK)) >= {"api-key", "uri"}


@pytest.mark.parametrize("nothing", ["null", "[]"])
def test_rules_that_a_template_left_empty_are_refused_and_not_taken_for_any(
    shop: "Shop", write: "Writer", nothing: str
) -> None:
    with pytest.raises(CommandFailedError, match=r"spec\.rest\.allow"):
        shop.apply(write.link(more=f"rest: {{allow: {nothing}}}"))


@pytest.mark.parametrize("record", GARBAGE)
def test_a_record_that_somebody_else_wrote_makes_nothing_ours(shop: "Shop", write: "Writer", record: str) -> None:
    own = "name: app, env: [{name: OWN, value: x}], volumeMounts: [{name: own, mountPath: /own}]"
    workload = with_volume(write.workload(container=own))
    shop.apply(workload, write.service())
    shop.kubectl("annotate", "deployment", "checkout", f"servicelink.dev/injected={record}")
    shop.kubectl("label", "deployment", "checkout", "servicelink.dev/managed=true")
    before = shop.pod_spec("checkout")

    shop.apply(write.link())
    shop.settle(LINK)
    shop.kubectl("delete", "slink", LINK)
    wait_until(lambda: shop.pod_spec("checkout") == before)


def test_a_chosen_container_that_is_an_init_container_is_told(shop: "Shop", write: "Writer") -> None:
    first = "spec: {initContainers: [{name: first, image: a}], containers"
    workload = write.workload().replace("spec: {containers", first)
    shop.apply(workload, write.service(), write.link(client="kind: Deployment, name: checkout, containers: [first]"))
    shop.says(LINK, "Injected", "False", "InjectionConflict")

    assert "first" in shop.conditions(LINK)["Injected"][2]


def test_a_mount_above_the_bindings_is_in_the_way(shop: "Shop", write: "Writer") -> None:
    own = "name: app, volumeMounts: [{name: own, mountPath: /bindings/}]"
    workload = with_volume(write.workload(container=own))
    shop.apply(workload, write.service(), write.link())
    shop.says(LINK, "Injected", "False", "InjectionConflict")


def test_a_link_that_is_recreated_at_once_gets_a_key_of_its_own(shop: "Shop", write: "Writer") -> None:
    shop.apply(write.workload(), write.service(), write.link())
    shop.settle(LINK)
    old = shop.entries("notification")[f"{shop.namespace}/{LINK}"]

    shop.kubectl("delete", "slink", LINK)
    shop.apply(write.link())
    shop.kubectl("wait", f"slink/{LINK}", "--for=condition=Ready", "--timeout=60s")

    wait_until(lambda: len(shop.all_entries("notification")) == 1)
    (new,) = shop.all_entries("notification")
    assert new["uid"] != old["uid"]
    assert {one["kid"] for one in new["keys"]}.isdisjoint(one["kid"] for one in old["keys"])
    assert shop.secret(LINK)["api-key-id"] in {one["kid"] for one in new["keys"]}


def test_five_hundred_links_of_one_tenant_do_not_hold_up_another_s(
    shops: "Callable[[], Shop]", write: "Writer", product: "Product", operator: "Operator"
) -> None:
    """All are there before the operator is, the neighbour's one link as the last."""
    crowd, neighbour = shops(), shops()
    for shop in (crowd, neighbour):
        shop.apply(write.workload(), write.service())
    operator.kill()
    bindings = (f"binding: {{envPrefix: L{number}, inject: None}}" for number in range(500))
    links = [write.link(f"link-{number}", more=binding) for number, binding in enumerate(bindings)]
    crowd.admin.kubectl("create", f"--namespace={crowd.namespace}", "--filename=-", stdin="\n---\n".join(links))
    neighbour.apply(write.link())

    product.start()
    neighbour.settle(LINK)

    assert ready(crowd) < 250, "a tenant's one link waits for another's five hundred"
    wait_until(lambda: ready(crowd) == 500, deadline=60)


def ready(shop: "Shop") -> int:
    found = json.loads(shop.kubectl("get", "slink", "--output=json"))["items"]
    conditions = [one for link in found for one in link.get("status", {}).get("conditions", ())]
    return len([one for one in conditions if (one["type"], one["status"]) == ("Ready", "True")])
