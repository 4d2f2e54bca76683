"""Workloads that roll out wait for each other, and nobody for those that never finish."""

import pytest

from servicelink_core.api.links import WorkloadRef
from servicelink_operator.reconcile.keys import Key, workload_key
from servicelink_operator.reconcile.rollouts import FORGOTTEN_AFTER, Rollouts


def deployment(namespace: str, name: str) -> Key:
    return workload_key(WorkloadRef(namespace, "Deployment", name))


@pytest.fixture
def rollouts() -> Rollouts:
    """Six at a time, of which three of one namespace have begun at second 0."""
    made = Rollouts(pause=60, at_a_time=6)
    for name in ("a", "b", "c"):
        with made.changing(deployment("crowd", name), lambda: 0.0):
            pass
    return made


def rolls(_key: Key) -> bool:
    """Never finish."""
    return True


def test_one_namespace_has_half_of_the_room(rollouts: Rollouts) -> None:
    assert rollouts.is_full(deployment("crowd", "d"), 1, rolls)
    assert not rollouts.is_full(deployment("shop", "checkout"), 1, rolls)


def test_all_namespaces_together_have_no_more_than_there_is(rollouts: Rollouts) -> None:
    for namespace in ("shop", "web", "mail"):
        with rollouts.changing(deployment(namespace, "one"), lambda: 0.0):
            pass

    assert rollouts.is_full(deployment("bank", "one"), 1, rolls)
    assert not rollouts.is_full(deployment("bank", "one"), 1, lambda key: key.namespace != "web")


def test_what_never_becomes_ready_keeps_nobody_waiting_for_long(rollouts: Rollouts) -> None:
    assert not rollouts.is_full(deployment("crowd", "d"), FORGOTTEN_AFTER, rolls)


def test_a_single_place_is_open_to_all() -> None:
    single = Rollouts(pause=60, at_a_time=1)

    assert not single.is_full(deployment("shop", "checkout"), 0, rolls)
