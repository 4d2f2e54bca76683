"""The operator's own life: it dies and comes back, another stands by, it is frozen, and it never reads Secrets."""

import json
import time
from typing import TYPE_CHECKING, Any

from devcluster.testing import api_calls, wait_until

if TYPE_CHECKING:
    from installation import Operator, Product
    from tests.cluster.product.conftest import Shop, Writer

LINK = "checkout-to-notification"
USER = "system:serviceaccount:servicelink-system:servicelink"
KINDS = "slink,servicelinkpolicy,secret,configmap,deployment"


def versions(shop: "Shop") -> dict[str, str]:
    found = json.loads(shop.kubectl("get", KINDS, "--output=json"))["items"]
    return {f"{one['kind']}/{one['metadata']['name']}": one["metadata"]["resourceVersion"] for one in found}


def test_an_operator_that_dies_and_comes_back_writes_nothing(
    shop: "Shop", write: "Writer", product: "Product", operator: "Operator"
) -> None:
    shop.apply(write.workload(), write.workload("notification"), write.service(), write.policy("Enforce"))
    shop.apply(write.link(), write.link("env", more="binding: {delivery: Env, envPrefix: ENV}"))
    shop.settle(LINK, "env")
    wait_until(lambda: shop.read("servicelinkpolicy", "owner")["status"].get("linkCount") == 2)
    before = versions(shop)

    operator.kill()
    with api_calls(product.admin, USER) as calls:
        reborn = product.start()
        wait_until(reborn.leads)
        shop.kubectl("label", "slink", LINK, "seen=true")
        wait_until(lambda: "reconciling" in reborn.log.read_text() and reconciled(reborn, 'key="link"') >= 2)
    after = versions(shop)

    assert {key: after[key] for key in before if key != f"ServiceLink/{LINK}"} == {
        key: version for key, version in before.items() if key != f"ServiceLink/{LINK}"
    }
    # Asking who one is, and for one's own rights, is a creation; nothing is stored.
    writes = {call for call in calls.counted if call[0] not in ("get", "list", "watch")}
    reviews = ("selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews")
    assert writes <= {("create", kind) for kind in reviews}
    assert calls.counted[("list", "servicelinks")] >= 1 or calls.counted[("watch", "servicelinks")] >= 1


def reconciled(operator: "Operator", which: str = "") -> float:
    return operator.metric("servicelink_reconcile_total", which)


def test_metrics_count_links_by_their_condition_ready(shop: "Shop", write: "Writer", product: "Product") -> None:
    (running,) = [one for one in product.started if one.process.poll() is None]
    counts = ('ready="True"', 'ready="Unknown"')
    before = [running.metric("servicelink_links", which) for which in counts]

    shop.apply(write.workload(), write.service(), write.link(), write.link("typo", server="name: notifications"))
    shop.settle(LINK)
    shop.says("typo", "Ready", "Unknown", "ServerNotFound")

    after = [running.metric("servicelink_links", which) for which in counts]
    assert [new - old for old, new in zip(before, after, strict=True)] == [1, 1]


def test_a_standby_takes_over_at_once_when_the_leader_ends(shop: "Shop", write: "Writer", product: "Product") -> None:
    leader = next(one for one in product.started if one.process.poll() is None)
    standby = product.start()
    wait_until(standby.stands_by)

    assert leader.stop() == 0
    wait_until(standby.leads, deadline=5)
    shop.apply(write.workload(), write.service(), write.link())
    shop.settle(LINK)


def test_a_frozen_operator_writes_nothing(shop: "Shop", write: "Writer", product: "Product") -> None:
    for running in product.started:
        running.kill()
    frozen = product.start("--freeze=true")
    wait_until(frozen.leads)

    with api_calls(product.admin, USER) as calls:
        shop.apply(write.workload(), write.service(), write.link())
        wait_until(lambda: reconciled(frozen, 'outcome="frozen"') > 0)

    assert not [call for call in calls.counted if call[0] in ("patch", "update", "delete")]
    assert "status" not in shop.read("slink", LINK) or not shop.conditions(LINK)
    frozen.kill()
    thawed = product.start()
    wait_until(thawed.leads)
    shop.settle(LINK)


def test_a_link_that_waits_is_looked_at_once_a_round(shop: "Shop", write: "Writer", product: "Product") -> None:
    """There is no Secret to read back: a round that stayed due would cost a reconcile every second, for ever."""
    for running in product.started:
        running.kill()
    every = 3
    alone = product.start(f"--secret-check-interval={every}s", f"--watch-namespaces={shop.namespace}")
    wait_until(alone.leads)
    shop.apply(write.workload(), write.link(server="name: nobody"))
    shop.says(LINK, "Ready", "Unknown", "ServerNotFound")
    # What rings when the link is new is over by then.
    wait_until(lambda: reconciled(alone, 'key="link"') >= 5)

    began, seen = time.monotonic(), reconciled(alone, 'key="link"')
    wait_until(lambda: reconciled(alone, 'key="link"') >= seen + 3)
    lasted = time.monotonic() - began
    alone.kill()
    wait_until(product.start().leads)

    # Two rounds from the first of them to the third.
    assert lasted >= 2 * every - 0.5


def test_secrets_are_never_listed_watched_or_got(shop: "Shop", write: "Writer", product: "Product") -> None:
    """What is read of a Secret comes back from a write that changes nothing, behind a guard."""
    shop.apply(write.workload(), write.service(), write.link())
    shop.settle(LINK)
    shop.kubectl("delete", "slink", LINK)
    events: list[Any] = []
    with product.admin.cluster.audit_log.open() as log:
        events.extend(json.loads(line) for line in log if f'"{USER}"' in line and '"secrets"' in line)

    assert {event["verb"] for event in events} <= {"create", "patch", "delete"}
    assert "create" in {event["verb"] for event in events}


def test_everything_can_be_taken_out_again(shop: "Shop", write: "Writer", product: "Product") -> None:
    own = [write.workload(), write.workload("notification"), write.workload("nightly", "CronJob")]
    shop.apply(*own, write.service(), write.policy())
    before = {name: shop.pod_spec(name) for name in ("checkout", "cronjob/nightly")}
    nightly = write.link("nightly", client="kind: CronJob, name: nightly")
    shop.apply(write.link(), nightly)
    shop.settle(LINK, "nightly")
    assert product.eject().returncode == 2

    for running in product.started:
        running.kill()
    shop.kubectl("scale", "deployment", "--all", "--replicas=0")
    # What somebody has unlabelled is found all the same.
    shop.kubectl("label", "deployment", "checkout", "servicelink.dev/managed-")
    done = product.eject("--freeze=true")

    assert done.returncode == 0, done.stdout
    assert "3 of 3 workloads" in done.stdout
    assert {name: shop.pod_spec(name) for name in before} == before
    assert "volumes" not in shop.pod_spec("notification")
    assert shop.secret(LINK)["api-key"]
    assert shop.entries("notification").keys() == {f"{shop.namespace}/{LINK}", f"{shop.namespace}/nightly"}
    marks = shop.read("deployment", "checkout")["metadata"]
    assert not [key for key in {**marks["annotations"], **marks.get("labels", {})} if "servicelink.dev" in key]
    back = product.start()
    wait_until(back.leads)


def test_what_cannot_be_taken_out_is_named(shop: "Shop", write: "Writer", product: "Product") -> None:
    shop.apply(write.workload(), write.service(), write.link())
    shop.settle(LINK)
    for running in product.started:
        running.kill()
    shop.kubectl("annotate", "deployment", "checkout", "servicelink.dev/injected-")

    # In this namespace alone: no Pod ever starts here, and what is taken out elsewhere would be waited for.
    done = product.eject("--freeze=true", f"--watch-namespaces={shop.namespace}")

    assert done.returncode == 1
    assert f"slk-link-{LINK}" in done.stdout
    back = product.start()
    wait_until(back.leads)


def test_every_setting_that_is_wrong_is_told_at_once(product: "Product") -> None:
    wrong = product.start("--propagation-wait=soon", "--workers=0")

    assert wrong.process.wait(timeout=20) == 2
    said = wrong.log.read_text()
    assert "propagation-wait" in said
    assert "workers" in said
