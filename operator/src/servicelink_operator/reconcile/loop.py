"""The loop: workers that take keys from the queue and reconcile them, whatever becomes of any one of them."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog

from servicelink_operator import telemetry
from servicelink_operator.cluster.errors import ApiError, ConflictError, FencedError, FrozenError, NotFoundError
from servicelink_operator.reconcile.keys import Key, Writes
from servicelink_operator.reconcile.queue import WorkQueue

log = structlog.get_logger("servicelink.reconcile")


class Reconciler(Protocol):
    """Brings what one key is about to what it should be."""

    async def reconcile(self, key: Key) -> None:
        """Observe, plan, apply, settle; raises ApiError to be called again later."""


@dataclass(frozen=True, slots=True)
class Loop:
    """The queue, and who reconciles which kind of key."""

    queue: WorkQueue
    reconcilers: Mapping[Writes, Reconciler]

    async def run(self, workers: int) -> None:
        """Reconcile with so many workers until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            key = await self.queue.take()
            started = time.monotonic()
            outcome, pause = await self._reconcile(key)
            self.queue.done(key, failed=outcome not in ("ok", "frozen"), pause=pause)
            telemetry.RECONCILES.labels(key.writes, outcome).inc()
            telemetry.RECONCILE_SECONDS.labels(key.writes).observe(time.monotonic() - started)

    async def _reconcile(self, key: Key) -> tuple[str, float]:
        """Reconcile a key, and answer how it went, and for how many seconds the API server asked to be let alone."""
        try:
            await self.reconcilers[key.writes].reconcile(key)
        except FrozenError:
            return "frozen", 0.0
        except FencedError:
            # Renewed in a moment, or this process ends: the task that holds the Lease tells which.
            return "fenced", 0.0
        except (ConflictError, NotFoundError) as error:
            # Somebody was faster; the cache will know in a moment.
            log.debug("reconcile_outdated", key=str(key), reason=error.reason)
            return "outdated", 0.0
        except ApiError as error:
            log.warning("reconcile_failed", key=str(key), status=error.status, reason=error.reason)
            return "failed", error.retry_after or 0.0
        except Exception:
            log.exception("reconcile_broken", key=str(key))
            return "broken", 0.0
        return "ok", 0.0
