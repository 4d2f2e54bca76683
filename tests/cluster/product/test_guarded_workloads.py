"""What the operator can do to workloads with its token, were it taken over: add bindings and take them out, no more.

Each attack is tried as the operator, by kubectl with its token, on a workload that carries a binding.
"""

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from devcluster.testing import CommandFailedError, wait_until

if TYPE_CHECKING:
    from installation import Product
    from tests.cluster.product.conftest import Shop, Writer

LINK = "checkout-to-notification"
POLICY = "servicelink-guard-workloads"
INJECTED = "servicelink.dev/injected"
Body = dict[str, Any]
Attack = Callable[[Body], None]

CHECKOUT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: checkout, labels: {team: shop}, annotations: {team: shop}}
spec:
  selector: {matchLabels: {app: checkout}}
  template:
    metadata: {labels: {app: checkout}}
    spec:
      initContainers: [{name: first, image: a}]
      containers:
      - name: app
        image: a
        command: [a]
        env: [{name: OWN, value: "1"}]
        volumeMounts: [{name: own, mountPath: /own}]
      volumes: [{name: own, emptyDir: {}}]
"""


@pytest.fixture
def bound(shop: "Shop", write: "Writer") -> "Shop":
    """A shop with a link, whose client is `checkout`."""
    shop.apply(CHECKOUT, write.service(), write.link())
    shop.settle(LINK)
    return shop


def pod_of(body: Body) -> Body:
    found: Body = body["spec"]["template"]["spec"]
    return found


def app_of(body: Body) -> Body:
    found: Body = pod_of(body)["containers"][0]
    return found


def enter(body: Body, *spots: str) -> None:
    """Enter additions in the annotation as if they were the link's."""
    record = json.loads(body["metadata"]["annotations"][INJECTED])
    record["parts"][f"link/{LINK}"]["a"].update(dict.fromkeys(spots, "x"))
    body["metadata"]["annotations"][INJECTED] = json.dumps(record)


def set_image(body: Body) -> None:
    app_of(body)["image"] = "b"


def set_command(body: Body) -> None:
    app_of(body)["command"] = ["b"]


def drop_command(body: Body) -> None:
    del app_of(body)["command"]


def set_first_image(body: Body) -> None:
    pod_of(body)["initContainers"][0]["image"] = "b"


def add_container(body: Body) -> None:
    pod_of(body)["containers"].append({"name": "more", "image": "b"})


def run_as_root(body: Body) -> None:
    app_of(body)["securityContext"] = {"runAsUser": 0}


def take_service_account(body: Body) -> None:
    pod_of(body)["serviceAccountName"] = "admin"


def take_host_network(body: Body) -> None:
    pod_of(body)["hostNetwork"] = True


def scale(body: Body) -> None:
    body["spec"]["replicas"] = 9


def label_pods(body: Body) -> None:
    body["spec"]["template"]["metadata"]["labels"]["x"] = "y"


def label(body: Body) -> None:
    body["metadata"]["labels"]["team"] = "other"


def annotate(body: Body) -> None:
    body["metadata"]["annotations"]["x"] = "y"


def change_own_variable(body: Body) -> None:
    (own,) = [one for one in app_of(body)["env"] if one["name"] == "OWN"]
    own["value"] = "2"


def change_own_variable_and_enter_it(body: Body) -> None:
    enter(body, "env|app|OWN")
    change_own_variable(body)


def enter_own_variable(body: Body) -> None:
    enter(body, "env|app|OWN")


def enter_what_is_not_there(body: Body) -> None:
    enter(body, "env|app|SOON")


def drop_own_volume(body: Body) -> None:
    pod = pod_of(body)
    pod["volumes"] = [one for one in pod["volumes"] if one["name"] != "own"]
    app = app_of(body)
    app["volumeMounts"] = [one for one in app["volumeMounts"] if one["name"] != "own"]


def add_variable_without_entering_it(body: Body) -> None:
    app_of(body)["env"].append({"name": "MORE_URL", "value": "x"})


def move_the_folder_of_bindings(body: Body) -> None:
    (root,) = [one for one in app_of(body)["env"] if one["name"] == "SERVICE_BINDING_ROOT"]
    root["value"] = "/app"


def variable(name: str, source: Body) -> Attack:
    """Answer an attack that adds a variable and enters it."""

    def add(body: Body) -> None:
        enter(body, f"env|app|{name}")
        app_of(body)["env"].append({"name": name, **source})

    return add


def reference(key: str, **more: bool) -> Body:
    """Answer where a variable's value is: at a key of a Secret."""
    return {"valueFrom": {"secretKeyRef": {"name": "other", "key": key, **more}}}


def volume(source: Body, name: str = "slk-more") -> Attack:
    """Answer an attack that adds a volume and enters it."""

    def add(body: Body) -> None:
        enter(body, f"volume||{name}")
        pod_of(body).setdefault("volumes", []).append({"name": name, **source})

    return add


def add_volume_without_entering_it(body: Body) -> None:
    pod_of(body)["volumes"].append({"name": "slk-more", "secret": KEYS_OF_ANOTHER})


def mount(path: str, **other: Any) -> Attack:
    """Answer an attack that mounts the link's volume there, too, and enters that."""

    def add(body: Body) -> None:
        enter(body, f"mount|app|{path}")
        app_of(body).setdefault("volumeMounts", []).append({**OF_THE_LINK, "mountPath": path, **other})

    return add


def add_mount_without_entering_it(body: Body) -> None:
    app_of(body)["volumeMounts"].append({**OF_THE_LINK, "mountPath": "/bindings/more"})


def added(names: Iterable[str], attack: Callable[[str], Attack]) -> dict[str, Attack]:
    """Answer an attack for each of some names."""
    return {f"add {name}": attack(name) for name in names}


# What each attack is but for one thing, so that nothing else refuses it.
KEYS_OF_ANOTHER = {"secretName": "other", "optional": True, "items": [{"key": "uri", "path": "uri"}]}
OF_THE_LINK = {"name": f"slk-link-{LINK}", "readOnly": True}
RUN_BY = (
    *("PATH", "LD_PRELOAD", "HTTPS_PROXY", "PYTHONPATH", "BASH_FUNC_echo%%", "http_proxy", "PROMPT_COMMAND", "PS4"),
    *("SHELLOPTS", "LUA_INIT", "ERL_FLAGS", "GCONV_PATH", "CORECLR_PROFILER_PATH", "PHP_INI_SCAN_DIR", "R_PROFILE"),
    *("GUNICORN_CMD_ARGS", "MAVEN_OPTS"),
)
PLACES = (
    *("/usr/bin", "/etc", "/etc/ssl", "/app", "/app/bindings", "/var/run/secrets/kubernetes.io/serviceaccount"),
    *("/bindings", "/bindings/a/b", "/bindings/../usr", "/bindings/..", "/etc/servicelink/verifier/..", "/more"),
)
ATTACKS = {
    attack.__name__: attack
    for attack in (
        *(set_image, set_command, drop_command, set_first_image, add_container, run_as_root, take_service_account),
        *(take_host_network, scale, label_pods, label, annotate, change_own_variable, change_own_variable_and_enter_it),
        *(enter_own_variable, enter_what_is_not_there, drop_own_volume, add_variable_without_entering_it),
        *(move_the_folder_of_bindings, add_volume_without_entering_it, add_mount_without_entering_it),
    )
} | {
    **added(RUN_BY, lambda name: variable(name, reference("uri", optional=True))),
    "add_variable_with_a_value_under_another_name": variable("MORE", {"value": "x"}),
    "add_variable_with_a_value_that_a_runtime_goes_by": variable("AWS_ENDPOINT_URL", {"value": "x"}),
    "add_variable_of_the_key_under_another_name": variable("MORE", reference("api-key", optional=True)),
    "add_variable_of_a_foreign_key": variable("MORE", reference("password", optional=True)),
    "add_variable_of_a_private_key": variable("MORE", reference("tls.key", optional=True)),
    "add_variable_that_must_be_there": variable("MORE", reference("uri")),
    "add_variable_of_the_node": variable("MORE_URL", {"valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}),
    **added(PLACES, mount),
    "add_mount_of_own_volume": mount("/bindings/more", name="own"),
    "add_mount_of_one_file": mount("/bindings/more", subPath="uri"),
    "add_mount_to_be_written": mount("/bindings/more", readOnly=False),
    "add_volume_of_the_host": volume({"hostPath": {"path": "/"}}),
    "add_volume_of_a_whole_secret": volume({"secret": {"secretName": "other", "optional": True}}),
    "add_volume_of_a_foreign_key": volume(
        {"secret": KEYS_OF_ANOTHER | {"items": [{"key": "password", "path": "password"}]}}
    ),
    "add_volume_of_a_key_under_another_name": volume(
        {"secret": KEYS_OF_ANOTHER | {"items": [{"key": "uri", "path": "sitecustomize.py"}]}}
    ),
    "add_volume_that_must_be_there": volume({"secret": KEYS_OF_ANOTHER | {"optional": False}}),
    "add_volume_under_another_name": volume({"secret": KEYS_OF_ANOTHER}, "more"),
    "add_volume_of_a_foreign_config_map": volume({"projected": {"sources": [{"configMap": {"name": "other"}}]}}),
    "add_volume_of_a_token_for_the_api_server": volume(
        {"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
    ),
}


def test_the_operator_can_do_nothing_else_to_a_deployment(bound: "Shop", product: "Product") -> None:
    before = bound.read("deployment", "checkout")
    outcomes = {}
    for name, attack in ATTACKS.items():
        body = json.loads(json.dumps(before))
        attack(body)
        outcomes[name] = attempt(product, bound, before, body)

    assert {name: outcome for name, outcome in outcomes.items() if outcome != POLICY} == {}
    assert bound.read("deployment", "checkout")["metadata"]["generation"] == before["metadata"]["generation"]


def attempt(product: "Product", shop: "Shop", before: Body, after: Body) -> str:
    """Patch as the operator from one body to another, and answer the policy that refused it, or what came of it."""
    patch = {"metadata": after["metadata"], "spec": after["spec"]}
    patch["metadata"] = {key: after["metadata"].get(key) for key in ("annotations", "labels")}
    dropped = set(app_of(before)) - set(app_of(after))
    if dropped:
        app_of(after).update(dict.fromkeys(dropped))
    words = ("patch", "deployment", before["metadata"]["name"], f"--namespace={shop.namespace}", "--type=merge")
    try:
        return product.account.kubectl(*words, f"--patch={json.dumps(patch)}")
    except CommandFailedError as error:
        return POLICY if f"ValidatingAdmissionPolicy '{POLICY}'" in error.stderr else error.stderr


def test_what_the_attacks_are_but_for_one_thing_is_admitted(bound: "Shop", product: "Product") -> None:
    """Or they would be refused for another reason than theirs."""
    before = bound.read("deployment", "checkout")
    after = json.loads(json.dumps(before))
    for add in (
        *(variable("MORE_URL", {"value": "x"}), variable("MORE_API_KEY", reference("api-key", optional=True))),
        *(variable("MORE", reference("uri", optional=True)), volume({"secret": KEYS_OF_ANOTHER})),
        *(mount("/bindings/more"), mount("/etc/servicelink/tls/more")),
    ):
        add(after)

    assert "patched" in attempt(product, bound, before, after)


def test_a_container_s_own_folder_of_bindings_is_mounted_into(shop: "Shop", write: "Writer") -> None:
    root = "{name: SERVICE_BINDING_ROOT, value: /app/bindings/}"
    shop.apply(write.workload(container=f"name: app, env: [{root}]"), write.service(), write.link())
    shop.settle(LINK)

    mounts = {one["mountPath"] for one in shop.pod_spec("checkout")["containers"][0]["volumeMounts"]}
    assert f"/app/bindings/{LINK}" in mounts


def test_the_operator_mounts_nothing_over_a_system_s_folder(shop: "Shop", write: "Writer", product: "Product") -> None:
    """Not even where a container calls the folder above it its folder of bindings."""
    outcomes = {}
    for root in ("/srv", "/usr", "/etc"):
        variable = f"{{name: SERVICE_BINDING_ROOT, value: {root}}}"
        shop.apply(write.workload(root[1:], container=f"name: app, env: [{variable}]"))
        before = shop.read("deployment", root[1:])
        after = json.loads(json.dumps(before))
        after["metadata"]["annotations"][INJECTED] = json.dumps({"parts": {f"link/{LINK}": {"a": {}}}})
        for add in (volume({"secret": KEYS_OF_ANOTHER}), mount(f"{root}/bin", name="slk-more")):
            add(after)
        outcomes[root] = attempt(product, shop, before, after)

    assert "patched" in outcomes.pop("/srv")
    assert outcomes == {"/usr": POLICY, "/etc": POLICY}


def test_the_operator_can_do_nothing_else_to_a_cron_job(shop: "Shop", write: "Writer", product: "Product") -> None:
    shop.apply(write.workload("nightly", "CronJob"), write.service())
    shop.apply(write.link(client="kind: CronJob, name: nightly"))
    shop.settle(LINK)
    patches = (
        {"spec": {"schedule": "@hourly"}},
        {"spec": {"jobTemplate": {"metadata": {"labels": {"x": "y"}}}}},
        {"spec": {"jobTemplate": {"spec": {"backoffLimit": 9}}}},
        {"spec": {"jobTemplate": {"spec": {"template": {"spec": {"serviceAccountName": "admin"}}}}}},
    )
    for patch in patches:
        words = ("patch", "cronjob", "nightly", f"--namespace={shop.namespace}", f"--patch={json.dumps(patch)}")
        with pytest.raises(CommandFailedError, match=POLICY):
            product.account.kubectl(*words)


def test_sixty_links_of_one_workload_pass_the_guard(shop: "Shop", write: "Writer") -> None:
    """What an admission policy may cost is limited, and more than the limit is refused."""
    names = [f"server-{number:02}" for number in range(60)]
    shop.apply(yaml.safe_dump(yaml.safe_load(CHECKOUT)), *map(write.service, names))
    shop.apply(*(write.link(f"to-{name}", server=f"name: {name}") for name in names))
    shop.settle(*(f"to-{name}" for name in names))

    assert len(shop.pod_spec("checkout")["containers"][0]["volumeMounts"]) == 60 + 2
    shop.apply(write.service("one-more"), write.link("to-one-more", server="name: one-more"))
    shop.settle("to-one-more")
    # Beside as many others, or the operator would take it for an accident.
    shop.apply(write.workload("other"))
    other, bare = "kind: Deployment, name: other", "binding: {inject: None}"
    others = [f"other-{name}" for name in names]
    shop.apply(*(write.link(f"other-{name}", client=other, server=f"name: {name}", more=bare) for name in names))
    shop.settle(*others)
    shop.kubectl("delete", "slink", *(f"to-{name}" for name in (*names[1:], "one-more")))
    wait_until(lambda: len(shop.pod_spec("checkout")["volumes"]) == 1 + 2)
