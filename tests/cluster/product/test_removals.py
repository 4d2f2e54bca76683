"""What vanishes is not what was taken away: verifiers outlive a reinstalled definition and a prune that went wrong."""

import datetime as dt
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devcluster.testing import wait_until

if TYPE_CHECKING:
    from installation import Operator, Product
    from tests.cluster.product.conftest import Shop, Writer

CRDS = Path(__file__).parents[3] / "crds"
LINKS = 12
Body = dict[str, Any]


@pytest.fixture(scope="module")
def operator(product: "Product") -> "Operator":
    """A running operator with short times; it alone leads."""
    made = product.start("--leader-elect=false", "--min-overlap=30s")
    wait_until(made.is_ready)
    return made


def many(write: "Writer", names: list[str]) -> list[str]:
    overlap = "rotation: {overlap: 30s, interval: 24h}"
    return [write.link(name, more=f"binding: {{envPrefix: L{n}}}, {overlap}") for n, name in enumerate(names)]


def entries(shop: "Shop") -> list[Body]:
    return list(shop.all_entries("notification"))


def is_injected(shop: "Shop", link: str) -> bool:
    volumes = shop.pod_spec("checkout").get("volumes", ())
    return any(one["name"] == f"slk-link-{link}" for one in volumes)


def held(operator: "Operator") -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{operator.port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("servicelink_held_entries "))


def test_a_few_links_that_are_deleted_together_go(shop: "Shop", write: "Writer", operator: "Operator") -> None:
    names = [f"link-{number}" for number in range(5)]
    shop.apply(write.workload(), write.service(), *many(write, names))
    shop.settle(*names)

    shop.kubectl("delete", "slink", "--all")

    wait_until(lambda: entries(shop) == [])
    wait_until(lambda: "volumes" not in shop.pod_spec("checkout"))
    assert held(operator) == 0


def test_most_links_that_are_gone_at_once_are_held_until_somebody_confirms(
    shop: "Shop", write: "Writer", operator: "Operator", product: "Product"
) -> None:
    names = [f"link-{number}" for number in range(LINKS)]
    shop.apply(write.workload(), write.service(), write.policy(), *many(write, names))
    shop.settle(*names)
    before = entries(shop)

    shop.kubectl("delete", "slink", "--all")
    wait_until(lambda: held(operator) == LINKS)

    assert {one["uid"] for one in entries(shop)} == {one["uid"] for one in before}
    assert all(is_injected(shop, name) for name in names)
    wait_until(lambda: f"{LINKS} entries are held" in operator.readiness()[1])
    assert operator.is_ready()
    wait_until(
        lambda: f"{LINKS} entries are held" in shop.kubectl("get", "servicelinkpolicy", "owner", "--output=yaml")
    )

    operator.kill()
    confirmed = (dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1)).isoformat()
    product.start("--leader-elect=false", f"--confirm-removals={confirmed}")
    wait_until(lambda: entries(shop) == [])
    wait_until(lambda: "volumes" not in shop.pod_spec("checkout"))


@pytest.fixture
def running(product: "Product") -> Iterator["Operator"]:
    """An operator that nobody has told to confirm anything."""
    for one in product.started:
        one.kill()
    made = product.start("--leader-elect=false", "--min-overlap=30s")
    wait_until(made.is_ready)
    yield made
    made.kill()


def test_links_that_go_with_their_namespace_are_not_held(
    shops: "Callable[[], Shop]", write: "Writer", running: "Operator"
) -> None:
    shop, web = shops(), shops()
    shop.apply(write.service(), write.policy(more=f"allowFrom: [{{namespaces: [{web.namespace}]}}]"))
    server = f"name: notification, namespace: {shop.namespace}"
    links = [write.link(f"link-{n}", server=server, more=f"binding: {{envPrefix: L{n}}}") for n in range(LINKS)]
    web.apply(write.workload(), *links)
    web.settle(*(f"link-{number}" for number in range(LINKS)))
    assert len(entries(shop)) == LINKS

    web.admin.kubectl("delete", "namespace", web.namespace, "--timeout=60s")

    wait_until(lambda: entries(shop) == [], deadline=60)


@pytest.fixture(params=[False, True], ids=["while it runs", "while it is down"])
def reinstall(request: pytest.FixtureRequest, running: "Operator", product: "Product") -> "Callable[[Shop], Operator]":
    """`reinstall(shop)` deletes the definition of links and applies it again, and answers who operates then."""

    def again(shop: "Shop") -> "Operator":
        if request.param:
            running.kill()
        shop.admin.kubectl("delete", "--timeout=60s", "crd", "servicelinks.servicelink.dev")
        shop.admin.kubectl("apply", "--server-side", f"--filename={CRDS}")
        shop.admin.kubectl("wait", f"--filename={CRDS}", "--for=condition=Established", "--timeout=30s")
        if not request.param:
            return running
        made = product.start("--leader-elect=false", "--min-overlap=30s")
        wait_until(made.is_ready)
        return made

    return again


def test_a_definition_that_is_installed_anew_empties_no_verifier(
    shop: "Shop", write: "Writer", reinstall: "Callable[[Shop], Operator]"
) -> None:
    """Two links only: it is not their number that tells. Those that come back get keys of their own."""
    names = ["first", "second"]
    shop.apply(write.workload(), write.service(), write.policy("Enforce"), *many(write, names))
    shop.settle(*names)
    before = {one["link"]: one for one in entries(shop)}

    operator = reinstall(shop)
    wait_until(lambda: held(operator) == 2, deadline=60)

    assert [one["uid"] for one in entries(shop)] == [one["uid"] for one in before.values()]
    assert all(is_injected(shop, name) for name in names)

    shop.apply(*many(write, names[:1]))
    shop.kubectl("wait", "slink/first", "--for=condition=Ready", "--timeout=60s")
    first, second = (f"{shop.namespace}/{name}" for name in names)
    kids = [key["kid"] for one in entries(shop) if one["link"] == first for key in one["keys"]]
    assert before[first]["keys"][0]["kid"] in kids
    assert shop.secret("first")["api-key-id"] in kids
    assert len(kids) == 2
    wait_until(lambda: len([one for one in entries(shop) if one["link"] == first]) == 1, deadline=60)
    assert before[first]["keys"][0]["kid"] not in {key["kid"] for one in entries(shop) for key in one["keys"]}
    assert [one["uid"] for one in entries(shop) if one["link"] == second] == [before[second]["uid"]]
