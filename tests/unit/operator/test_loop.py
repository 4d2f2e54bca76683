"""What could not be written comes again, not before it may, and lines are written about what is news."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from servicelink_operator import telemetry
from servicelink_operator.cluster.errors import ApiError, BusyError, ConflictError, FencedError, FrozenError
from servicelink_operator.reconcile.keys import Key, Writes, link_key
from servicelink_operator.reconcile.loop import Loop
from servicelink_operator.reconcile.queue import WorkQueue

KEY = link_key("shop", "a")


@dataclass(slots=True)
class Fails:
    """A reconciler that fails once, and notes when it was asked."""

    error: ApiError
    asked: list[tuple[Key, float]] = field(default_factory=list)
    again: asyncio.Event = field(default_factory=asyncio.Event)

    async def reconcile(self, key: Key) -> None:
        """Fail the first time."""
        self.asked.append((key, asyncio.get_running_loop().time()))
        if len(self.asked) == 1:
            raise self.error
        self.again.set()


def counted(outcome: str) -> float:
    labels = {"key": "link", "outcome": outcome}
    return telemetry.REGISTRY.get_sample_value("servicelink_reconcile_total", labels) or 0.0


@pytest.mark.parametrize(
    ("error", "outcome", "told"),
    [
        (FencedError("no"), "fenced", []),
        (FrozenError("no"), "frozen", []),
        (ConflictError(409, "Conflict", "changed"), "outdated", []),
        (BusyError(503, "Unavailable", "down"), "failed", ["reconcile_failed"]),
        (BusyError(429, "TooManyRequests", "wait", 0.5), "failed", ["reconcile_failed"]),
    ],
)
async def test_a_key_comes_again_unless_writes_are_switched_off(error: ApiError, outcome: str, told: list[str]) -> None:
    queue, fails, before = WorkQueue(), Fails(error), counted(outcome)
    with capture_logs() as lines:
        working = asyncio.create_task(Loop(queue, {Writes.LINK: fails}).run(2))
        queue.add(KEY)
        with suppress(TimeoutError):
            # What does not come again is waited for longer than the longest first pause, of 0.4 seconds.
            await asyncio.wait_for(fails.again.wait(), 0.6 if error.reason == "Frozen" else 10)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    assert counted(outcome) == before + 1
    assert [line["event"] for line in lines if line["log_level"] != "debug"] == told
    times = [at for _, at in fails.asked]
    if error.reason == "Frozen":
        assert len(times) == 1
    else:
        assert times[1] - times[0] > (error.retry_after or 0.1)
