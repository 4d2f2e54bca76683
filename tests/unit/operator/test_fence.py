"""The fence lets writes through until a time, and what names us lets the API server's log tell replicas apart."""

import time

import pytest

from servicelink_operator.cluster import fence
from servicelink_operator.cluster.connection import render_user_agent
from servicelink_operator.cluster.errors import FencedError
from servicelink_operator.cluster.fence import Fence, fence_clock
from servicelink_operator.cluster.lease import LEASE_SECONDS, RENEW_DEADLINE, RETRY_SECONDS, WRITE_SECONDS


def test_a_fence_is_closed_until_it_is_opened_and_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Fence()
    with pytest.raises(FencedError):
        made.require_open()

    made.open_until(fence_clock() + 60)
    made.require_open()
    later = fence_clock() + 60
    monkeypatch.setattr(fence, "fence_clock", lambda: later)

    with pytest.raises(FencedError):
        made.require_open()


def test_a_fence_that_is_closed_before_its_time_lets_nothing_through() -> None:
    made = Fence()
    made.open_until(fence_clock() + 60)

    made.close()

    with pytest.raises(FencedError):
        made.require_open()


def test_the_fence_s_clock_counts_what_the_machine_sleeps() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)

    now = fence_clock()

    assert before <= now <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_a_leader_may_write_as_long_as_it_tries_to_renew_and_no_longer_than_its_lease_lasts() -> None:
    assert RETRY_SECONDS + RENEW_DEADLINE <= WRITE_SECONDS < LEASE_SECONDS


@pytest.mark.parametrize(
    ("identity", "comment"),
    [
        ("servicelink-5c9f7-x2v4q", " (servicelink-5c9f7-x2v4q)"),
        ("a host", " (a host)"),
        ("näme\r\nX-Remote-User: admin", " (n_me__X-Remote-User: admin)"),
        ("a)b(c\\d", " (a_b_c_d)"),
        ("", ""),
    ],
)
def test_the_user_agent_names_product_version_and_process(identity: str, comment: str) -> None:
    product, _, rest = render_user_agent(identity).partition(" ")

    assert product.startswith("servicelink-operator/0.")
    assert (rest and f" {rest}") == comment
