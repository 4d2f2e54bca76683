"""What one namespace may take, how often a workload is changed, and that nobody else pays for those who want more."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from devcluster.testing import wait_until

if TYPE_CHECKING:
    from installation import Operator, Product
    from tests.cluster.product.conftest import Shop, Writer

LINK = "checkout-to-notification"
BARE = "binding: {inject: None}"


@pytest.fixture
def started(product: "Product", request: pytest.FixtureRequest) -> Iterator["Operator"]:
    """An operator with the flags of the test's mark `flags`."""
    flags = request.node.get_closest_marker("flags").args
    made = product.start("--leader-elect=false", *flags)
    wait_until(made.is_ready)
    yield made
    made.kill()


@pytest.fixture
def operator(started: "Operator") -> "Operator":
    """For shops: they want an operator that runs."""
    return started


@pytest.mark.flags("--max-links-per-namespace=3")
def test_a_link_too_many_is_told_and_served_once_there_is_room(shop: "Shop", write: "Writer") -> None:
    shop.apply(write.workload(), write.service(), *(write.link(f"link-{n}", more=BARE) for n in range(3)))
    shop.settle("link-0", "link-1", "link-2")

    shop.apply(write.link("link-3", more=BARE))
    shop.says("link-3", "Accepted", "False", "LimitExceeded")

    assert "more than 3 links" in shop.conditions("link-3")["Accepted"][2]
    assert "maxLinksPerNamespace" in shop.conditions("link-3")["Accepted"][2]
    assert shop.conditions("link-0")["Ready"][0] == "True"
    shop.kubectl("delete", "slink", "link-1")
    shop.settle("link-3")


@pytest.mark.flags("--max-rules-per-namespace=3", "--max-bytes-per-namespace=3000")
def test_rules_and_bytes_count_for_the_namespace_that_writes_them(shop: "Shop", write: "Writer") -> None:
    two = "rest: {allow: [{paths: [/a]}, {paths: [/b]}]}"
    shop.apply(write.workload(), write.service(), write.link("first", more=f"{BARE}, {two}"))
    shop.settle("first")
    shop.apply(write.link("second", more=f"{BARE}, {two}"))
    shop.says("second", "Accepted", "False", "LimitExceeded")
    assert "3 rules" in shop.conditions("second")["Accepted"][2]

    # What was accepted and grows beyond the limit is told, and its callers keep what they have.
    paths = ", ".join(f"/{number:0200}" for number in range(14))
    shop.apply(write.link("first", more=f"{BARE}, rest: {{allow: [{{paths: [{paths}]}}]}}"))
    shop.says("first", "Accepted", "False", "LimitExceeded")
    assert "3000 bytes" in shop.conditions("first")["Accepted"][2]
    assert len(shop.entries("notification")[f"{shop.namespace}/first"]["allow"]) == 2


@pytest.mark.flags("--rollout-pause=8s")
def test_a_workload_is_changed_once_in_a_while(shop: "Shop", write: "Writer") -> None:
    shop.apply(write.workload(), write.service(), write.service("users"), write.link())
    shop.settle(LINK)
    before = shop.read("deployment", "checkout")["metadata"]["generation"]

    shop.apply(write.link("to-users", server="name: users"))
    shop.says("to-users", "Ready", "Unknown", "Injecting")

    assert "waits" in shop.conditions("to-users")["Injected"][2]
    assert shop.read("deployment", "checkout")["metadata"]["generation"] == before
    shop.settle("to-users")
    assert shop.read("deployment", "checkout")["metadata"]["generation"] == before + 1


@pytest.mark.flags("--rollout-pause=1h")
def test_a_workload_without_pods_is_changed_at_once(shop: "Shop", write: "Writer") -> None:
    shop.apply(write.workload(), write.service(), write.service("users"), write.link())
    shop.settle(LINK)
    shop.kubectl("scale", "deployment", "checkout", "--replicas=0")

    shop.apply(write.link("to-users", server="name: users"))
    shop.settle("to-users")


@pytest.mark.flags("--rollouts-at-a-time=4")
def test_no_more_workloads_of_a_namespace_roll_out_at_a_time_than_half_of_all(shop: "Shop", write: "Writer") -> None:
    """No Pod ever starts here, so that each rollout lasts until its Deployment is scaled to none."""
    names = ("a", "b", "c")
    shop.apply(write.service(), *(write.workload(name) for name in names))
    shop.apply(*(write.link(f"from-{name}", client=f"kind: Deployment, name: {name}") for name in names))
    wait_until(lambda: len(ready(shop, names)) == 2)
    (waiting,) = set(names) - ready(shop, names)

    shop.says(f"from-{waiting}", "Ready", "Unknown", "Injecting")
    assert "waits its turn" in shop.conditions(f"from-{waiting}")["Injected"][2]
    shop.kubectl("scale", "deployment", min(ready(shop, names)), "--replicas=0")
    shop.settle(f"from-{waiting}")


def ready(shop: "Shop", names: tuple[str, ...]) -> set[str]:
    return {name for name in names if shop.conditions(f"from-{name}").get("Ready", ("",))[0] == "True"}
