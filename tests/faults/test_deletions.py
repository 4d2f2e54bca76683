"""What was deleted or withdrawn while nobody looked is revoked on return, and the rest is as it was.

The same is done in a second pair of namespaces, later, with an operator that sees it all: both must end alike.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass

import pytest
from installation import Operator, Product
from outages import forget_history
from proxy import Proxy
from shop import Shop, Writer
from snapshot import Body, snapshot

from devcluster.testing import wait_until

ALONE = "--leader-elect=false"
KEPT = "kept"
LINKS = ("gone", KEPT, "unserved", "unallowed", "withdrawn")
# A watch that says nothing for 100 s is given up; the rest is for what follows from that.
DEADLINE = 150.0


@dataclass(frozen=True, slots=True)
class Neighbours:
    """A shop, and another team's namespace with two services that let it in."""

    shop: Shop
    team: Shop
    write: Writer

    def settle(self) -> None:
        """Make everything, and wait until each link is Ready."""
        shop, team, write = self.shop, self.team, self.write
        servers = ("notification", "old")
        shop.apply(write.workload(), *map(write.workload, servers), *map(write.service, servers))
        shop.apply(write.policy("Enforce", services="notification, old"))
        team.apply(write.service("payments"), write.service("ledger"))
        team.apply(*(self._grant(name, f"namespaces: [{shop.namespace}]") for name in ("payments", "ledger")))
        places = ("name: notification", "name: notification", "name: old", *map(self._theirs, ("payments", "ledger")))
        shop.apply(*(self._link(name, place) for name, place in zip(LINKS, places, strict=True)))
        shop.settle(*LINKS)

    def take_away(self) -> None:
        """Delete a link, a Service and a policy, and let nobody in any more by another."""
        self.shop.kubectl("delete", "slink", "gone")
        self.shop.kubectl("delete", "service", "old")
        self.team.kubectl("delete", "servicelinkpolicy", "payments")
        self.team.apply(self.write.policy("Audit", "allowFrom: []", "ledger", name="ledger"))

    def is_revoked(self) -> bool:
        """Answer whether no server accepts what it should not, and nothing of the deleted link is injected."""
        volumes = [one["name"] for one in self.shop.pod_spec("checkout").get("volumes", ())]
        return (
            set(self.shop.entries("notification")) == {f"{self.shop.namespace}/{KEPT}"}
            and self.team.entries("payments") == self.team.entries("ledger") == {}
            and not any("gone" in name for name in volumes)
        )

    def snapshot(self) -> tuple[Body, Body]:
        """Answer all that stands in both."""
        return snapshot(self.shop, self.team), snapshot(self.team, self.shop)

    def _grant(self, service: str, to: str) -> str:
        return self.write.policy("Audit", f"allowFrom: [{{{to}}}]", service, name=service)

    def _theirs(self, service: str) -> str:
        return f"name: {service}, namespace: {self.team.namespace}"

    def _link(self, name: str, server: str) -> str:
        return self.write.link(name, server=server, more=f"binding: {{envPrefix: {name.upper()}}}")


@contextmanager
def down(product: Product, operator: Operator, line: Proxy) -> Iterator[None]:
    """The operator is down."""
    operator.kill()
    yield
    product.start(ALONE)


@contextmanager
def cut(product: Product, operator: Operator, line: Proxy) -> Iterator[None]:
    """The operator has no connection."""
    line.refuse()
    yield
    line.mend()


@contextmanager
def forgotten(product: Product, operator: Operator, line: Proxy) -> Iterator[None]:
    """The operator has no connection, and when it has one again, its versions are too old to resume at."""
    line.refuse()
    yield
    forget_history(product.admin)
    line.mend()


@contextmanager
def silent(product: Product, operator: Operator, line: Proxy) -> Iterator[None]:
    """The operator's connections are open and carry nothing; new ones do."""
    line.hang(new=False)
    yield


def times_listed(operator: Operator) -> float:
    """Answer how often all links were listed."""
    return operator.metric("servicelink_api_requests_total", 'kind="ServiceLink",verb="list"')


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", [down, cut, forgotten, silent])
def test_what_went_while_nobody_looked_is_revoked_on_return(
    fault: Callable[..., AbstractContextManager[None]], product: Product, shops: Callable[[], Shop], write: Writer
) -> None:
    disturbed, calm = (Neighbours(shops(), shops(), write) for _ in range(2))
    with product.line() as line:
        operator = product.start(ALONE, through=line)
        disturbed.settle()
        kept, listed = disturbed.shop.secret(KEPT), times_listed(operator)

        with fault(product, operator, line):
            disturbed.take_away()
        wait_until(disturbed.is_revoked, deadline=DEADLINE)
        if fault is not down:
            # Lest this be another fault than is said: a watch is resumed where its versions are known.
            assert times_listed(operator) - listed == (1 if fault is forgotten else 0)

        calm.settle()
        calm.take_away()
        wait_until(calm.is_revoked, deadline=DEADLINE)
        with suppress(AssertionError):
            wait_until(lambda: disturbed.snapshot() == calm.snapshot(), deadline=DEADLINE)
        # Once more, to see where they differ.
        assert disturbed.snapshot() == calm.snapshot()
        assert disturbed.shop.secret(KEPT) == kept
