"""Keys come again when they may, and a worker that is told to end ends, whatever it is waiting for."""

import asyncio

import pytest

from servicelink_operator.reconcile.keys import link_key
from servicelink_operator.reconcile.queue import WorkQueue


@pytest.mark.parametrize("steps", range(6))
async def test_a_worker_that_is_cancelled_while_it_is_woken_ends(steps: int) -> None:
    """So many steps of the event loop after its key was rung: a worker that goes on keeps a lost leader alive."""
    queue = WorkQueue()

    async def work() -> None:
        while True:
            queue.done(await queue.take())

    queue.add(link_key("shop", "later"), after=60)
    workers = [asyncio.create_task(work()) for _ in range(2)]
    await asyncio.wait(workers, timeout=0.01)
    queue.add(link_key("shop", "now"))
    for _ in range(steps):
        await asyncio.sleep(0)
    for worker in workers:
        worker.cancel()
    _, pending = await asyncio.wait(workers, timeout=1)
    for worker in pending:
        worker.cancel()

    assert not pending


async def test_a_key_that_failed_comes_again_not_before_it_was_asked_to() -> None:
    """As by the Retry-After of a 429."""
    queue, clock = WorkQueue(), asyncio.get_running_loop().time
    queue.add(link_key("shop", "a"))
    queue.done(await queue.take(), failed=True, pause=0.5)
    failed = clock()

    await asyncio.wait_for(queue.take(), 5)

    assert 0.5 < clock() - failed < 2


async def test_namespaces_take_turns() -> None:
    """A tenant with many keys delays another's one key by one reconcile for each namespace, not for each key."""
    queue = WorkQueue()
    crowd = [link_key("crowd", f"link-{number}") for number in range(50)]
    for key in (*crowd, link_key("shop", "one"), link_key("web", "one"), link_key("web", "two")):
        queue.add(key)

    taken = [await queue.take() for _ in range(6)]

    assert [key.namespace for key in taken] == ["crowd", "shop", "web", "crowd", "web", "crowd"]
    assert [key for key in taken if key.namespace == "crowd"] == crowd[:3]
