"""Writes go out while the Lease is certainly ours, and not a moment later, also those that were made before."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

import pytest

from devcluster.testing import Client
from servicelink_operator.cluster import connection, lease
from servicelink_operator.cluster.api import Api, Object, PatchType
from servicelink_operator.cluster.errors import FencedError, NotFoundError
from servicelink_operator.cluster.fence import Fence, fence_clock
from servicelink_operator.cluster.kinds import ACCESS_REVIEW, CONFIG_MAP, LEASE
from servicelink_operator.cluster.lease import LeaderElection, LeaseLostError

# The proportions of the real figures, in less time.
SECONDS = {
    "LEASE_SECONDS": 4,
    "WRITE_SECONDS": 3.0,
    "RENEW_DEADLINE": 2.5,
    "RETRY_SECONDS": 0.5,
    "ATTEMPT_SECONDS": 2.0,
}


@dataclass(slots=True)
class Leader:
    """A client behind a fence, and what opens it."""

    api: Api
    fence: Fence
    lease: LeaderElection
    namespace: str

    async def write(self, name: str = "a") -> None:
        """Write something that is there already or not."""
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
        await self.api.patch(
            CONFIG_MAP, self.namespace, name, body, content_type=PatchType.APPLY, field_manager="leader"
        )

    async def may_write(self) -> bool:
        """Write, and answer whether the fence let it through."""
        with suppress(FencedError):
            await self.write()
            return True
        return False


@pytest.fixture
async def leader(line: Any, namespace: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Leader]:
    """A candidate whose line can be broken; it does not lead yet."""
    for name, seconds in SECONDS.items():
        monkeypatch.setattr(lease, name, seconds)
    fence = Fence()
    api = await Api.connect(str(line.kubeconfig), fence=fence)
    yield Leader(api, fence, LeaderElection(api, namespace, "leader", "first", fence=fence), namespace)
    await api.close()


def config_map(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}


async def renewed_at(api: Api, namespace: str) -> str:
    return str((await api.read(LEASE, namespace, "leader"))["spec"]["renewTime"])


async def exists(api: Api, namespace: str, name: str) -> bool:
    with suppress(NotFoundError):
        await api.read(CONFIG_MAP, namespace, name)
        return True
    return False


async def test_a_standby_sends_no_write_but_reads_dry_runs_and_what_it_needs_to_lead(
    leader: Leader, line: Any, api: Api, namespace: str
) -> None:
    await api.create(CONFIG_MAP, namespace, config_map("a"))
    patch = {"data": {"k": "v"}}
    review = {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}

    for write in (
        leader.api.create(CONFIG_MAP, namespace, config_map("b")),
        leader.api.patch(CONFIG_MAP, namespace, "a", patch, content_type=PatchType.MERGE),
        leader.api.delete(CONFIG_MAP, namespace, "a"),
    ):
        with pytest.raises(FencedError):
            await write
    asked = line.asked
    dry = await leader.api.patch(CONFIG_MAP, namespace, "a", patch, content_type=PatchType.MERGE, dry_run=True)
    await leader.api.create(ACCESS_REVIEW, None, review)
    await leader.api.create(LEASE, namespace, {"metadata": {"name": "other"}})

    assert asked == 0, "a connection was opened for what would not be sent"
    assert dry["data"] == {"k": "v"}
    assert "data" not in await leader.api.read(CONFIG_MAP, namespace, "a")
    assert not await exists(api, namespace, "b")


async def test_a_leader_that_renews_goes_on_writing(leader: Leader) -> None:
    await leader.lease.acquire()
    holding = asyncio.create_task(leader.lease.hold())

    wrote = []
    until = fence_clock() + SECONDS["LEASE_SECONDS"] + 1
    while fence_clock() < until:
        wrote.append(await leader.may_write())
        await asyncio.wait({holding}, timeout=0.2)
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)

    assert len(wrote) > 5
    assert all(wrote)


async def test_a_leader_that_no_longer_renews_is_fenced_before_another_can_lead(
    leader: Leader, api: Api, namespace: str
) -> None:
    """As a process is that was stopped: nothing of it runs but the write that it was about to make."""
    asked = fence_clock()
    await leader.lease.acquire()
    await leader.write()
    other = asyncio.create_task(LeaderElection(api, namespace, "leader", "second").acquire())

    while await leader.may_write():
        await asyncio.wait({other}, timeout=0.05)
    closed = fence_clock()

    assert not other.done()
    assert closed - asked > SECONDS["WRITE_SECONDS"]
    await asyncio.wait_for(other, SECONDS["LEASE_SECONDS"] * 2)
    assert not await leader.may_write()


async def test_the_fence_counts_from_before_the_renewal_was_sent(
    leader: Leader, line: Any, api: Api, namespace: str
) -> None:
    """Others may have seen the Lease renewed long before its holder hears of it."""
    await leader.lease.acquire()
    before = await renewed_at(api, namespace)
    line.hang()
    sent = fence_clock()
    holding = asyncio.create_task(leader.lease.hold())
    await asyncio.wait({holding}, timeout=1.5)
    line.mend()
    while await renewed_at(api, namespace) == before:
        await asyncio.wait({holding}, timeout=0.01)
    # Long enough for the answer, not for the next renewal.
    await asyncio.wait({holding}, timeout=0.2)
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)

    while await leader.may_write():
        pass

    assert 0 <= fence_clock() - sent - SECONDS["WRITE_SECONDS"] < 0.5


async def test_a_write_that_waited_for_a_connection_is_fenced_when_its_turn_comes(
    cluster: Client, api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MOST_CONNECTIONS", 1)
    fence = Fence()
    fence.open_until(fence_clock() + 60)
    narrow = await Api.connect(str(cluster.kubeconfig), fence=fence)
    version = (await narrow.list_page(CONFIG_MAP, namespace=namespace))["metadata"]["resourceVersion"]
    await api.create(CONFIG_MAP, namespace, config_map("a"))
    async with aclosing(
        narrow.watch(CONFIG_MAP, namespace=namespace, resource_version=version, timeout_seconds=30)
    ) as events:
        await anext(events)
        writes = [
            asyncio.create_task(narrow.create(CONFIG_MAP, namespace, config_map("b"))),
            asyncio.create_task(narrow.delete(CONFIG_MAP, namespace, "a")),
        ]
        done, _ = await asyncio.wait(writes, timeout=0.5)
        fence.close()

    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    await narrow.close()

    assert not done
    assert [type(one) for one in outcomes] == [FencedError, FencedError]
    assert await exists(api, namespace, "a")
    assert not await exists(api, namespace, "b")


@pytest.mark.parametrize("how", ["released", "lost"])
async def test_who_gives_the_lease_back_or_loses_it_writes_no_more(
    how: str, leader: Leader, api: Api, namespace: str
) -> None:
    await leader.lease.acquire()
    await leader.write()
    if how == "released":
        await leader.lease.release()
    else:
        await api.delete(LEASE, namespace, "leader")
        with pytest.raises(LeaseLostError):
            await leader.lease.hold()

    assert not await leader.may_write()
