"""One replica takes over from another: how long that takes, and what each of them wrote."""

import datetime as dt
from dataclasses import dataclass
from typing import Any

from audit import Call, acquired_at, parse_calls, writes_after
from installation import USER, Operator, Product
from shop import Writer, open_shops

from devcluster.testing import audited


@dataclass(frozen=True, slots=True)
class Takeover:
    """What the audit log shows of a takeover.

    `seconds` from the moment the old leader was lost until the new one wrote; `late` is what the old one tried to write
    after the new one had the Lease.
    """

    seconds: float
    late: tuple[Call, ...]


def observe_takeover(events: list[dict[str, Any]], old: Operator, new: Operator, lost_at: dt.datetime) -> Takeover:
    """Read a takeover off the events of the audit log around it."""
    calls = parse_calls(events)
    first = next(call for call in calls if call.is_write and call.is_by(new.identity))
    late = writes_after(calls, old.identity, acquired_at(calls, new.identity))
    return Takeover((first.came - lost_at).total_seconds(), tuple(late))


def measure_takeover(product: Product, *flags: str) -> tuple[Takeover, int]:
    """Kill the leader of two replicas, make a link that moment, and wait until it is Ready.

    Answer the takeover, and how many keys the link had. No other operator may be running.
    """
    link, write = "checkout-to-notification", Writer()
    with open_shops(product.admin) as make_shop:
        shop = make_shop()
        shop.apply(write.workload(), write.service())
        leader, standby = product.start_pair(*flags)
        with audited(product.admin, USER) as events, shop.watched_kids() as kids:
            leader.kill()
            lost_at = dt.datetime.now(dt.UTC)
            shop.apply(write.link(link))
            shop.settle(link)
        standby.kill()
    return observe_takeover(events, leader, standby, lost_at), len(kids[link])
