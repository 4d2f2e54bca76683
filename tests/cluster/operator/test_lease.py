"""One process leads; when it ends, is killed or cut off, another does, and the first one knows."""

import asyncio
import time
from typing import Any

import pytest

from servicelink_operator import telemetry
from servicelink_operator.cluster import lease
from servicelink_operator.cluster.api import Api, Object, PatchType
from servicelink_operator.cluster.kinds import LEASE
from servicelink_operator.cluster.lease import LeaderElection, LeaseLostError

SECONDS = 3


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proportions of the real figures, in less time."""
    for name, seconds in (("LEASE_SECONDS", SECONDS), ("RENEW_DEADLINE", 1.5), ("RETRY_SECONDS", 0.3)):
        monkeypatch.setattr(lease, name, seconds)
    monkeypatch.setattr(lease, "ATTEMPT_SECONDS", 0.6)


def candidate(api: Api, namespace: str, identity: str) -> LeaderElection:
    return LeaderElection(api, namespace, "leader", identity)


async def change(api: Api, namespace: str, body: Object) -> Object:
    return await api.patch(LEASE, namespace, "leader", body, content_type=PatchType.MERGE)


async def holder(api: Api, namespace: str) -> str:
    found = await api.read(LEASE, namespace, "leader")
    return str(found["spec"]["holderIdentity"])


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_of_two_candidates_one_leads(api: Api, namespace: str) -> None:
    both = [candidate(api, namespace, name) for name in ("first", "second")]
    tasks = [asyncio.create_task(one.acquire()) for one in both]

    # Longer than a Lease that nobody renews would last.
    _, waiting = await asyncio.wait(tasks, timeout=SECONDS - 1)
    held = [one.is_held for one in both]
    for task in waiting:
        await stop(task)

    assert sorted(held) == [False, True]
    assert await holder(api, namespace) == ("first" if held[0] else "second")


async def test_a_standby_waits_as_long_as_the_leader_renews(api: Api, namespace: str) -> None:
    first, second = candidate(api, namespace, "first"), candidate(api, namespace, "second")
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    acquiring = asyncio.create_task(second.acquire())

    done, _ = await asyncio.wait({holding, acquiring}, timeout=SECONDS * 1.5)
    await stop(holding)
    await stop(acquiring)

    assert not done
    assert telemetry.REGISTRY.get_sample_value("servicelink_leader") == 1


async def test_a_standby_takes_over_from_a_leader_that_was_killed_once_its_lease_ran_out(
    api: Api, namespace: str
) -> None:
    first, second = candidate(api, namespace, "first"), candidate(api, namespace, "second")
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    acquiring = asyncio.create_task(second.acquire())
    await asyncio.wait({holding, acquiring}, timeout=1)
    await stop(holding)
    killed = time.monotonic()

    await asyncio.wait_for(acquiring, SECONDS * 3)

    assert SECONDS - 1 < time.monotonic() - killed < SECONDS + 2
    assert await holder(api, namespace) == "second"


async def test_a_standby_takes_over_at_once_from_a_leader_that_released(api: Api, namespace: str) -> None:
    first, second = candidate(api, namespace, "first"), candidate(api, namespace, "second")
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    acquiring = asyncio.create_task(second.acquire())
    await asyncio.wait({holding, acquiring}, timeout=0.5)
    await stop(holding)
    await first.release()

    await asyncio.wait_for(acquiring, 1)

    assert not first.is_held
    assert (await api.read(LEASE, namespace, "leader"))["spec"]["leaseTransitions"] == 1


async def test_a_leader_releases_also_where_a_renewal_of_its_own_came_between(api: Api, namespace: str) -> None:
    first = candidate(api, namespace, "first")
    await first.acquire()
    # As by one that was on its way when the process was told to end: the answer was never read.
    await change(api, namespace, {"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}})
    await first.release()

    assert await holder(api, namespace) == ""


@pytest.mark.parametrize("how", ["refuse", "hang"])
async def test_a_leader_that_is_cut_off_knows_before_its_lease_runs_out(
    how: str, line: Any, api: Api, namespace: str
) -> None:
    first = candidate(line.api, namespace, "first")
    await first.acquire()
    if how == "refuse":
        line.refuse()
    else:
        # New connections must not help either.
        line.hang()
    cut = time.monotonic()

    with pytest.raises(LeaseLostError, match="renewed"):
        await asyncio.wait_for(first.hold(), SECONDS * 3)

    assert time.monotonic() - cut < SECONDS
    assert not first.is_held


async def test_a_leader_survives_a_lost_answer_and_somebody_else_s_annotation(
    line: Any, api: Api, namespace: str
) -> None:
    first = candidate(line.api, namespace, "first")
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    line.hang(new=False)
    await change(api, namespace, {"metadata": {"annotations": {"note": "1"}}})

    done, _ = await asyncio.wait({holding}, timeout=SECONDS)
    await stop(holding)

    assert not done


@pytest.mark.parametrize("what", ["taken", "deleted"])
async def test_a_leader_whose_lease_was_taken_or_deleted_has_lost_it(what: str, api: Api, namespace: str) -> None:
    first = candidate(api, namespace, "first")
    await first.acquire()
    if what == "taken":
        await change(api, namespace, {"spec": {"holderIdentity": "second"}})
    else:
        await api.delete(LEASE, namespace, "leader")

    with pytest.raises(LeaseLostError):
        await asyncio.wait_for(first.hold(), SECONDS)
    await first.release()

    if what == "taken":
        assert await holder(api, namespace) == "second"


async def test_a_release_that_does_not_arrive_is_no_failure(line: Any, namespace: str) -> None:
    first = candidate(line.api, namespace, "first")
    await first.acquire()
    line.refuse()

    await asyncio.wait_for(first.release(), SECONDS)

    assert not first.is_held


async def test_a_process_that_restarts_under_its_name_goes_on_leading(api: Api, namespace: str) -> None:
    await candidate(api, namespace, "first").acquire()

    await asyncio.wait_for(candidate(api, namespace, "first").acquire(), 1)
