"""Links across namespaces: what the server's owner allows, ends and takes back, and what the verifier then says."""

import datetime as dt
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from devcluster.testing import wait_until

if TYPE_CHECKING:
    from installation import Operator
    from tests.cluster.product.conftest import Shop, Writer

LINK = "checkout-to-payments"
REFUSED = ("False", "RefNotPermitted")


@dataclass(frozen=True, slots=True)
class Border:
    """A client in one namespace, a Service in another, and a link between them."""

    shop: "Shop"
    payments: "Shop"
    write: "Writer"

    @property
    def link(self) -> str:
        """The link's full name."""
        return f"{self.shop.namespace}/{LINK}"

    def allow(self, mode: str = "Audit", more: str = "") -> None:
        """Let the shop in."""
        grant = f"namespaces: [{self.shop.namespace}]{more and f', {more}'}"
        self.payments.apply(self.write.policy(mode, f"allowFrom: [{{{grant}}}]", services="payments"))

    def withdraw(self, mode: str = "Audit") -> None:
        """Let nobody in."""
        self.payments.apply(self.write.policy(mode, "allowFrom: []", services="payments"))

    def permitted(self) -> tuple[str, str]:
        """Answer what the link says of consent."""
        return self.shop.conditions(LINK).get("Permitted", ("", "", ""))[:2]


@pytest.fixture
def border(shops: Callable[[], "Shop"], write: "Writer") -> Border:
    """A link that nobody has allowed yet."""
    made = Border(shops(), shops(), write)
    made.payments.apply(write.service("payments"))
    made.shop.apply(write.workload(), write.link(LINK, server=f"name: payments, namespace: {made.payments.namespace}"))
    return made


def test_a_link_is_forbidden_allowed_expired_withdrawn_and_allowed_again(border: Border, operator: "Operator") -> None:
    shop, payments = border.shop, border.payments
    shop.says(LINK, "Permitted", *REFUSED)
    assert payments.entries("payments") == {}

    border.allow()
    shop.settle(LINK)
    (key,) = payments.entries("payments")[border.link]["keys"]
    pods = shop.pod_spec("checkout")

    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=4)
    border.allow(more=f'expiresAt: "{soon:%Y-%m-%dT%H:%M:%SZ}"')
    wait_until(lambda: payments.entries("payments")[border.link]["keys"][0].get("notAfter"))
    shop.says(LINK, "Permitted", "False", "GrantExpired")
    wait_until(lambda: payments.entries("payments") == {})

    border.allow()
    shop.settle(LINK)
    border.withdraw()
    shop.says(LINK, "Permitted", *REFUSED)
    wait_until(lambda: payments.entries("payments") == {})
    assert "credential" not in shop.read("slink", LINK)["status"]

    border.allow()
    shop.settle(LINK)
    (again,) = payments.entries("payments")[border.link]["keys"]
    assert (again["kid"], again["sha256"]) == (key["kid"], key["sha256"])
    assert shop.pod_spec("checkout") == pods
    refusals = [line["reason"] for line in operator.audits(border.link) if line["event"] == "refused"]
    assert refusals == ["RefNotPermitted", "GrantExpired", "RefNotPermitted"]


def test_a_withdrawal_takes_the_entry_before_the_status_is_final(border: Border) -> None:
    border.allow("Enforce")
    border.shop.settle(LINK)

    border.withdraw("Enforce")
    border.shop.says(LINK, "Permitted", *REFUSED)

    assert border.payments.entries("payments") == {}
    assert border.shop.secret(LINK)["api-key"]


def told(shop: "Shop") -> str:
    """Answer the link's status without its times and without what the spec itself says."""

    def without_times(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without_times(one) for key, one in value.items() if key != "lastTransitionTime"}
        return [without_times(one) for one in value] if isinstance(value, list) else value

    body = shop.read("slink", LINK)
    text = json.dumps(without_times(body["status"]), sort_keys=True)
    return text.replace(body["spec"]["server"]["namespace"], "NAMESPACE").replace(shop.namespace, "SHOP")


def test_a_closed_service_and_an_absent_one_look_the_same(
    border: Border, shops: Callable[[], "Shop"], write: "Writer"
) -> None:
    other, empty = shops(), shops()
    other.apply(write.workload(), write.link(LINK, server=f"name: payments, namespace: {empty.namespace}"))
    for shop in (border.shop, other):
        shop.says(LINK, "Permitted", *REFUSED)

    assert told(border.shop) == told(other)
    assert "RefNotPermitted" in told(other)


def test_a_server_that_refuses_has_the_entry_before_the_client_has_the_key(border: Border) -> None:
    border.allow("Enforce")
    wait_until(lambda: border.link in border.payments.entries("payments"))
    first = border.shop.secret(LINK)

    border.shop.settle(LINK)
    second = border.shop.secret(LINK)

    assert ("api-key" in first, "candidate" in first) == (False, True)
    assert second["api-key"] == first["candidate"]
    (key,) = border.payments.entries("payments")[border.link]["keys"]
    issued = border.shop.read("slink", LINK)["status"]["credential"]["issuedAt"]
    waited = dt.datetime.fromisoformat(issued) - dt.datetime.fromisoformat(key["since"])
    assert waited >= dt.timedelta(seconds=2)


def test_a_revoked_kid_is_replaced(border: Border) -> None:
    border.allow()
    border.shop.settle(LINK)
    revoked = border.shop.secret(LINK)["api-key-id"]

    grant = f"allowFrom: [{{namespaces: [{border.shop.namespace}]}}], revokedKids: [{revoked}]"
    border.payments.apply(border.write.policy("Audit", grant, services="payments"))

    def accepted() -> list[str]:
        return [key["kid"] for key in border.payments.entries("payments").get(border.link, {"keys": ()})["keys"]]

    wait_until(lambda: revoked not in (*accepted(), border.shop.secret(LINK)["api-key-id"]))
    wait_until(lambda: accepted() == [border.shop.secret(LINK)["api-key-id"]])
    border.shop.settle(LINK)


def test_a_policy_counts_and_names_its_links(border: Border) -> None:
    border.allow()
    border.shop.settle(LINK)

    def status() -> dict[str, Any]:
        found: dict[str, Any] = border.payments.read("servicelinkpolicy", "owner").get("status") or {}
        return found

    wait_until(lambda: status().get("linkCount") == 1)
    assert status()["links"] == [border.link]
    border.withdraw()
    wait_until(lambda: status().get("linkCount") == 0)
    assert "links" not in status()


def test_what_refused_goes_on_refusing_without_its_policy(border: Border) -> None:
    border.allow("Enforce")
    border.shop.settle(LINK)

    border.payments.kubectl("delete", "servicelinkpolicy", "owner")
    border.shop.says(LINK, "Permitted", *REFUSED)

    shard = border.payments.read("configmap", "servicelink-verifier-payments")["data"]
    assert [json.loads(text)["head"]["mode"] for text in shard.values()] == ["Enforce"]
    assert border.payments.entries("payments") == {}
