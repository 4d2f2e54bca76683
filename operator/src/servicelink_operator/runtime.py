"""The running operator: caches at once, writing only while it leads, and what is missing said by readiness.

A standby keeps warm caches, so that it takes over with the Lease. It leads in this order: caches, then all folds, then
links, so that a link is judged against verifiers and templates that are up to date.
"""

import asyncio
import itertools
import time
from collections.abc import Coroutine
from typing import Any

import structlog

from servicelink_core.link import Limits
from servicelink_operator import telemetry
from servicelink_operator.cluster.api import Api
from servicelink_operator.cluster.errors import ApiError
from servicelink_operator.cluster.guards import Guarded, observe_guards, observe_username
from servicelink_operator.cluster.installation import Installation
from servicelink_operator.cluster.lease import LeaderElection
from servicelink_operator.cluster.preflight import observe_crds, observe_rights
from servicelink_operator.cluster.secrets import ReadBudget
from servicelink_operator.http import HealthServer, Readiness
from servicelink_operator.reconcile.bells import Bells
from servicelink_operator.reconcile.imports import Imports
from servicelink_operator.reconcile.keys import Writes
from servicelink_operator.reconcile.links import LinkReconciler
from servicelink_operator.reconcile.loop import Loop
from servicelink_operator.reconcile.memory import Memory
from servicelink_operator.reconcile.policies import PolicyReconciler
from servicelink_operator.reconcile.queue import WorkQueue
from servicelink_operator.reconcile.rollouts import Rollouts
from servicelink_operator.reconcile.servers import ServerReconciler
from servicelink_operator.reconcile.workloads import WorkloadReconciler
from servicelink_operator.reconcile.world import World
from servicelink_operator.settings import Settings

_RETRY_SECONDS = 2.0
_CHECK_SECONDS = 60.0
_BEAT_SECONDS = 1.0
# All verifiers are gone through to count.
_HELD_BEATS = 5
# Longer than any pause of a healthy event loop, shorter than a kubelet's patience.
_STUCK_SECONDS = 30.0

_MEND_HELD = "apply the links again, or set confirmRemovals to the present time"

log = structlog.get_logger("servicelink.operator")


class Operator:
    """One process's operator."""

    def __init__(self, settings: Settings, api: Api) -> None:
        self._settings = settings
        self._api = api
        self._readiness = Readiness()
        self._username = ""
        self._beat = time.monotonic()
        self._health = HealthServer(self._readiness, lambda: time.monotonic() - self._beat < _STUCK_SECONDS)
        self._queue = WorkQueue()
        self._bells = Bells(self._queue)
        limits = Limits(
            propagation_wait=settings.propagation_wait,
            min_overlap=settings.min_overlap,
            confirmed=settings.confirm_removals,
            quota=settings.quota,
            scope=settings.scope,
        )
        clock = asyncio.get_running_loop().time
        self._world = World(api, Memory(), limits, self._bells.changed, clock=clock)
        telemetry.watch_links(self._world.count_links)
        telemetry.watch_held(self._world.count_held)
        self._lease = LeaderElection(
            api, settings.lease_namespace, settings.lease_name, settings.identity, fence=api.fence
        )

    async def run(self) -> None:
        """Run until cancelled; raises LeaseLostError when another may lead, and OSError where the port is taken."""
        await self._health.start(self._settings.bind_host, self._settings.bind_port)
        try:
            async with asyncio.TaskGroup() as group:
                for work in (self._beat_for_ever(), self._check_for_ever(), self._lead()):
                    group.create_task(work)
        finally:
            await self._lease.release()
            await self._health.stop()

    async def _lead(self) -> None:
        """Fill the caches, wait for the Lease, and reconcile while it is held."""
        async with asyncio.TaskGroup() as group:
            await self._wait_for_crds()
            for informer in self._world.informers:
                group.create_task(informer.run())
            await self._wait_synced()
            group.create_task(self._hold_lease())
            await self._reconcile_everything(group)

    async def _hold_lease(self) -> None:
        if self._settings.leader_elect:
            await self._lease.hold()

    async def _reconcile_everything(self, group: asyncio.TaskGroup) -> None:
        loop = Loop(self._queue, self._reconcilers())
        group.create_task(loop.run(self._settings.workers))
        self._bells.open(self._world)
        self._bells.ring_everything(self._world)
        await self._queue.wait_idle()
        self._bells.ring_links(self._world)
        log.info("reconciling", links=len(list(self._world.links.items())), frozen=self._settings.freeze)

    def _reconcilers(self) -> dict[Writes, Any]:
        api, world, bells = self._api, self._world, self._bells
        imports, installation = Imports(api), Installation(api)
        rollouts = Rollouts(self._settings.rollout_pause.total_seconds(), self._settings.rollouts_at_a_time)
        budget = ReadBudget(self._settings.secret_reads_per_second)
        every = self._settings.secret_check_interval
        return {
            Writes.LINK: LinkReconciler(api, world, bells, imports, budget, every),
            Writes.SERVER: ServerReconciler(api, world, bells, installation),
            Writes.WORKLOAD: WorkloadReconciler(api, world, bells, imports, installation, rollouts),
            Writes.POLICY: PolicyReconciler(api, world),
        }

    async def _wait_for_crds(self) -> None:
        """Wait for our kinds: a chart's objects may come in any order."""
        while (problem := await _ask(observe_crds(self._api))) is not None:
            self._readiness.set("crds", ok=False, message=problem)
            await asyncio.sleep(_RETRY_SECONDS)
        self._readiness.set("crds", ok=True, message="")

    async def _wait_synced(self) -> None:
        self._readiness.set("sync", ok=False, message="reading what is there")
        await asyncio.gather(*(informer.wait_synced() for informer in self._world.informers))
        self._readiness.set("sync", ok=True, message="")
        if not self._settings.leader_elect:
            self._readiness.set("lease", ok=True, message="not used")
            return
        self._readiness.set("lease", ok=True, message="standby")
        await self._lease.acquire()
        self._readiness.set("lease", ok=True, message="leading")

    async def _check_for_ever(self) -> None:
        """Ask for rights until all are there (each question is a creation), and for the guards for ever."""
        missing: str | None = None
        while True:
            if missing != "":
                missing = await _ask_rights(self._api, self._settings)
                self._readiness.set("rights", ok=not missing, message=missing)
            problem = await _ask(self._observe_guards())
            if problem is not None and not self._settings.require_guards:
                self._readiness.set("guards", ok=True, message=f"not required; {problem}")
            else:
                self._readiness.set("guards", ok=problem is None, message=problem or "")
            good = problem is None and not missing
            await asyncio.sleep(_CHECK_SECONDS if good else _RETRY_SECONDS)

    async def _observe_guards(self) -> str | None:
        self._username = self._username or await observe_username(self._api)
        return await observe_guards(
            self._api, Guarded(self._settings.guards_prefix, self._username, self._settings.scope)
        )

    def _tell_held(self) -> None:
        """Say how many entries the brake holds: no reason not to be ready, but one to look."""
        held = self._world.count_held()
        message = f"{held} entries are held, whose links vanished at once; {_MEND_HELD}" if held else ""
        self._readiness.set("removals", ok=True, message=message)

    async def _beat_for_ever(self) -> None:
        beats = itertools.count()
        while True:
            self._beat = time.monotonic()
            telemetry.QUEUE_DEPTH.set(len(self._queue))
            if next(beats) % _HELD_BEATS == 0:
                self._tell_held()
            await asyncio.sleep(_BEAT_SECONDS)


async def _ask(question: Coroutine[Any, Any, str | None]) -> str | None:
    """Answer what is missing; an API server that does not answer is missing too."""
    try:
        return await question
    except ApiError as error:
        return f"the API server does not answer: {error.reason}"


async def _ask_rights(api: Api, settings: Settings) -> str:
    try:
        return "; ".join(await observe_rights(api, settings.lease_namespace, settings.scope))
    except ApiError as error:
        return f"the API server does not answer: {error.reason}"
