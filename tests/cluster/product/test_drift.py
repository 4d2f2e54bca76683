"""What somebody changes in what the operator has written is put right; a key that may be known is not kept."""

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from devcluster.testing import wait_until
from servicelink_contract.key import render_key

if TYPE_CHECKING:
    from installation import Operator, Product
    from tests.cluster.product.conftest import Shop, Writer

LINK = "checkout-to-notification"
VERIFIER = "servicelink-verifier-notification"
Body = dict[str, Any]


@pytest.fixture(scope="module")
def operator(product: "Product") -> "Operator":
    """A running operator that looks at Secrets all the time."""
    made = product.start("--leader-elect=false", "--secret-check-interval=1s", "--secret-reads-per-second=100")
    wait_until(made.is_ready)
    return made


@pytest.fixture
def linked(shop: "Shop", write: "Writer") -> "Shop":
    """A shop with a link to a server that refuses."""
    shop.apply(write.workload(), write.workload("notification"), write.service(), write.policy("Enforce"), write.link())
    shop.settle(LINK)
    return shop


def patch(shop: "Shop", kind: str, name: str, body: Body) -> None:
    shop.kubectl("patch", kind, name, "--type=merge", f"--patch={json.dumps(body)}")


def agrees(shop: "Shop") -> bool:
    """Answer whether the client's key is the one that its server knows."""
    held = shop.secret(LINK).get("api-key", "")
    keys = shop.entries("notification")[f"{shop.namespace}/{LINK}"]["keys"]
    return [hashlib.sha256(held.encode()).hexdigest()] == [key["sha256"] for key in keys]


def assert_reissued(shop: "Shop", before: str) -> None:
    """The client gets another key, which its server has known for a while before."""
    wait_until(lambda: shop.secret(LINK).get("api-key", before) not in ("", before) and agrees(shop))
    shop.settle(LINK)
    wait_until(lambda: "candidate" not in shop.secret(LINK))
    assert shop.secret(LINK)["api-key"].split("_")[1] == shop.secret(LINK)["api-key-id"]


def test_a_deleted_secret_is_issued_anew(linked: "Shop") -> None:
    before = linked.secret(LINK)["api-key"]
    linked.kubectl("delete", "secret", LINK)

    assert_reissued(linked, before)


def test_a_changed_key_is_issued_anew_and_the_server_knows_both_until_then(
    linked: "Shop", operator: "Operator"
) -> None:
    before = linked.secret(LINK)["api-key"]
    patch(linked, "secret", LINK, {"stringData": {"api-key": "changed"}})

    def kids() -> set[str]:
        return {key["kid"] for key in linked.entries("notification")[f"{linked.namespace}/{LINK}"]["keys"]}

    wait_until(lambda: len(kids()) == 2)
    assert before.split("_")[1] in kids()
    assert_reissued(linked, "changed")
    assert linked.secret(LINK)["api-key"] != before
    assert {line["reason"] for line in operator.audits(f"{linked.namespace}/{LINK}")} >= {"KeyLost", "Published"}


@pytest.mark.parametrize("disguise", ["none", "the operator's name", "nobody's name"])
def test_a_key_that_somebody_else_has_chosen_is_not_accepted(linked: "Shop", disguise: str) -> None:
    """Whoever may write Secrets can make the marks fit, and also who is said to have written them."""
    chosen = render_key("ownChose", b"known to somebody else, 32 bytes")
    marks = {"servicelink.dev/kid": chosen.kid, "servicelink.dev/sha256": chosen.sha256}
    data = {"api-key": chosen.text, "api-key-id": chosen.kid}
    manager = "servicelink" if disguise == "the operator's name" else "kubectl-patch"
    body = json.dumps({"metadata": {"annotations": marks}, "stringData": data})
    linked.kubectl("patch", "secret", LINK, "--type=merge", f"--field-manager={manager}", f"--patch={body}")
    if disguise == "nobody's name":
        erased = json.dumps([{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}])
        linked.kubectl("patch", "secret", LINK, "--type=json", f"--patch={erased}")

    assert_reissued(linked, chosen.text)
    kids = {key["kid"] for key in linked.entries("notification")[f"{linked.namespace}/{LINK}"]["keys"]}
    assert chosen.kid not in kids


@pytest.mark.parametrize(
    "change",
    [
        {"stringData": {"uri": "http://elsewhere:80"}},
        {"data": {"host": None}},
        {"metadata": {"ownerReferences": []}},
        {"metadata": {"annotations": {"servicelink.dev/content-hash": "0"}}, "stringData": {"header": "x"}},
    ],
    ids=["another address", "no host", "no owner", "another header"],
)
def test_what_a_secret_says_is_put_right_and_the_key_kept(linked: "Shop", change: Body) -> None:
    before, body = linked.secret(LINK), linked.read("secret", LINK)
    patch(linked, "secret", LINK, change)

    wait_until(lambda: linked.secret(LINK) == before)
    owners = body["metadata"]["ownerReferences"]
    wait_until(lambda: linked.read("secret", LINK)["metadata"].get("ownerReferences") == owners)
    assert linked.read("secret", LINK)["metadata"]["annotations"]["servicelink.dev/kid"] == before["api-key-id"]


@pytest.mark.parametrize("mark", ["issued-at", "kid", "sha256"])
def test_a_mark_that_is_changed_costs_the_key(linked: "Shop", mark: str) -> None:
    before = linked.secret(LINK)["api-key"]
    linked.kubectl("annotate", "--overwrite", "secret", LINK, f"servicelink.dev/{mark}=something")

    assert_reissued(linked, before)


def test_a_secret_without_the_label_is_nobody_s_any_more_and_that_is_told(linked: "Shop") -> None:
    linked.kubectl("label", "secret", LINK, "app.kubernetes.io/managed-by-")
    linked.says(LINK, "Issued", "False", "SecretConflict")

    linked.kubectl("label", "secret", LINK, "app.kubernetes.io/managed-by=servicelink")
    linked.kubectl("wait", f"slink/{LINK}", "--for=condition=Ready", "--timeout=60s")


@pytest.mark.parametrize(
    "change",
    [
        {"data": {"shard-0.json": "{}"}},
        {"data": {"shard-0.json": None}},
        {"data": {"more": "x"}},
        {"metadata": {"labels": {"servicelink.dev/verifier-of": None}}},
        {"metadata": {"labels": {"servicelink.dev/verifier-of": "another"}}},
    ],
    ids=["emptied", "without its shard", "with more", "without its label", "under another label"],
)
def test_a_verifier_that_an_administrator_changes_is_put_right(linked: "Shop", change: Body) -> None:
    before = linked.read("configmap", VERIFIER)
    patch(linked, "configmap", VERIFIER, change)

    def stands() -> bool:
        found = linked.read("configmap", VERIFIER)
        same = (found.get("data"), found["metadata"]["labels"]) == (before["data"], before["metadata"]["labels"])
        return bool(same and found["metadata"]["annotations"] == before["metadata"]["annotations"])

    wait_until(stands)
    linked.settle(LINK)


def test_a_deleted_verifier_comes_back_with_the_same_keys(linked: "Shop") -> None:
    before = linked.entries("notification")[f"{linked.namespace}/{LINK}"]["keys"][0]
    linked.kubectl("delete", "configmap", VERIFIER)

    wait_until(lambda: f"{linked.namespace}/{LINK}" in linked.entries("notification"))
    assert linked.entries("notification")[f"{linked.namespace}/{LINK}"]["keys"][0]["kid"] == before["kid"]
    assert json.loads(linked.read("configmap", VERIFIER)["data"]["shard-0.json"])["head"]["mode"] == "Enforce"


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"labels": {"servicelink.dev/managed": None}}},
        {"spec": {"template": {"spec": {"volumes": [{"$patch": "delete", "name": f"slk-link-{LINK}"}]}}}},
        {"spec": {"template": {"spec": {"volumes": [{"name": f"slk-link-{LINK}", "secret": {"optional": False}}]}}}},
        {"spec": {"template": {"spec": {"containers": [{"name": "app", "volumeMounts": [{"$patch": "replace"}]}]}}}},
        {"spec": {"template": {"spec": {"containers": [{"name": "app", "env": [{"$patch": "replace"}]}]}}}},
    ],
    ids=["the label", "a volume", "a volume's body", "the mounts", "the variables"],
)
def test_what_is_taken_out_of_a_template_is_put_back(linked: "Shop", change: Body) -> None:
    if "volumes" in json.dumps(change) and "$patch" in json.dumps(change):
        # A mount without its volume is refused by the API server: both go.
        change["spec"]["template"]["spec"]["containers"] = [{"name": "app", "volumeMounts": [{"$patch": "replace"}]}]
    before, marks = linked.pod_spec("checkout"), linked.read("deployment", "checkout")["metadata"]["labels"]
    linked.kubectl("patch", "deployment", "checkout", f"--patch={json.dumps(change)}")

    def stands() -> bool:
        body = linked.read("deployment", "checkout")
        same = by_name(linked.pod_spec("checkout")) == by_name(before)
        return bool(same and body["metadata"].get("labels") == marks)

    wait_until(stands)
    linked.settle(LINK)


def by_name(pod: Body) -> Body:
    (container,) = pod["containers"]
    return {
        "volumes": {one["name"]: one for one in pod.get("volumes", ())},
        "mounts": {one["mountPath"]: one for one in container.get("volumeMounts", ())},
        "variables": {one["name"]: one for one in container.get("env", ())},
    }


def test_without_the_record_what_stands_is_told_and_left_alone(linked: "Shop") -> None:
    linked.kubectl("annotate", "deployment", "checkout", "servicelink.dev/injected-")
    linked.says(LINK, "Injected", "False", "InjectionConflict")

    assert f"slk-link-{LINK}" in linked.conditions(LINK)["Injected"][2]
    assert "servicelink.dev/injected" in linked.conditions(LINK)["Injected"][2]


def test_the_data_of_a_key_is_never_in_a_message_or_a_log_line(linked: "Shop", operator: "Operator") -> None:
    key = linked.secret(LINK)["api-key"]
    patch(linked, "secret", LINK, {"stringData": {"api-key": f"{key}x"}})
    assert_reissued(linked, f"{key}x")

    said = operator.log.read_text() + linked.kubectl("get", "slink,events,configmap,deployment", "--output=json")
    assert key not in said
    assert base64.b64encode(key.encode()).decode() not in said
