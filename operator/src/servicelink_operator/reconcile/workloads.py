"""The reconcile of a workload: the one patch that its links and verifiers want."""

import asyncio
import datetime as dt
from dataclasses import dataclass
from typing import Any

from servicelink_core.api.links import WorkloadRef
from servicelink_core.api.objects import Rollout, Workload
from servicelink_core.workload import WorkloadPlan, plan_workload
from servicelink_operator.cluster.api import Api, PatchType
from servicelink_operator.cluster.errors import ForbiddenError, InvalidError, NotFoundError
from servicelink_operator.cluster.installation import Installation
from servicelink_operator.cluster.kinds import SERVICE_LINK, WORKLOADS
from servicelink_operator.reconcile.bells import Bells
from servicelink_operator.reconcile.imports import Imports
from servicelink_operator.reconcile.keys import Key, link_key
from servicelink_operator.reconcile.rollouts import LOOK_AGAIN, Rollouts
from servicelink_operator.reconcile.world import World

_REFUSED_PAUSE = 30.0
# Whoever makes a link known, or takes its entry, rings; this is for what nobody told.
_UNSEEN_PAUSE = 60.0
_TOO_SOON = "the client was changed shortly before; its next change waits, so that it is not restarted all the time"
_TOO_MANY = "many clients are being rolled out; this one waits its turn"
_RESTARTS_NOBODY = (Rollout.PAUSED, Rollout.SCALED_TO_ZERO)


@dataclass(frozen=True, slots=True)
class WorkloadReconciler:
    """Reconciles one workload at a time."""

    api: Api
    world: World
    bells: Bells
    imports: Imports
    installation: Installation
    rollouts: Rollouts

    async def reconcile(self, key: Key) -> None:
        """Bring one workload's template to what its links and verifiers want."""
        pause = self.world.memory.workload_pause(key, asyncio.get_running_loop().time())
        if pause > 0:
            self.bells.ring(key, after=pause)
            return
        self.world.memory.workload_looked_at(key)
        workload = self.world.workload(WorkloadRef(key.namespace, key.kind, key.name))
        if workload is None or workload.deleting:
            self.world.memory.refusals.pop(key, None)
            self.world.memory.paced.pop(key, None)
            return
        plan = await self._plan(key, workload)
        if plan.patch is None:
            self.world.memory.paced.pop(key, None)
            return
        if "spec" not in plan.patch or key.kind == "CronJob" or workload.rollout in _RESTARTS_NOBODY:
            await self._apply(key, plan.patch)
        elif not self._waits(key):
            with self.rollouts.changing(key, asyncio.get_running_loop().time):
                await self._apply(key, plan.patch)

    def _waits(self, key: Key) -> bool:
        """Answer whether a change that restarts Pods is to wait, and come again; its links are told why."""
        clock = asyncio.get_running_loop().time()
        pause, why = self.rollouts.own_pause(key, clock), _TOO_SOON
        if pause == 0 and self.rollouts.is_full(key, clock, self._rolls):
            pause, why = LOOK_AGAIN, _TOO_MANY
        if pause > 0:
            self.bells.ring(key, after=pause)
        self._tell_pace(key, why if pause > 0 else "")
        return pause > 0

    def _tell_pace(self, key: Key, why: str) -> None:
        memory = self.world.memory
        if memory.paced.pop(key, "") != why:
            self._ring_links(key)
        if why:
            memory.paced[key] = why

    def _rolls(self, key: Key) -> bool:
        found = self.world.workload(WorkloadRef(key.namespace, key.kind, key.name))
        return found is not None and found.rollout is Rollout.PENDING

    async def _plan(self, key: Key, workload: Workload) -> WorkloadPlan:
        """Plan; where links are recorded that are not in sight, ask which of those are gone, and plan again."""
        now = dt.datetime.now(dt.UTC)
        imported = await self.imports.observe(workload)
        plan = plan_workload(self.world.observe_workload(workload, imported, now))
        gone = [name for name in plan.unconfirmed if await self._is_gone(workload.ref, name)]
        if len(gone) < len(plan.unconfirmed):
            self.bells.ring(key, after=_UNSEEN_PAUSE)
        if not gone:
            return plan
        return plan_workload(self.world.observe_workload(workload, imported, now, frozenset(gone)))

    async def _is_gone(self, ref: WorkloadRef, name: str) -> bool:
        """Answer whether a link is gone, or is another workload's by now.

        While a server accepts its key, and while the definitions are away, the client keeps what it has.
        """
        full_name = f"{ref.namespace}/{name}"
        if any(entry.link == full_name for entry in self.world.entries()):
            return False
        try:
            found = await self.api.read(SERVICE_LINK, ref.namespace, name)
        except NotFoundError:
            return await self.installation.observe(newest=True) is not None
        client = found["spec"]["client"]
        return (client["kind"], client["name"]) != (ref.kind, ref.name)

    async def _apply(self, key: Key, patch: dict[str, Any]) -> None:
        memory = self.world.memory
        try:
            answer = await self.api.patch(
                WORKLOADS[key.kind], key.namespace, key.name, patch, content_type=PatchType.STRATEGIC
            )
        except (ForbiddenError, InvalidError) as error:
            memory.refusals[key] = f"the API server refused {key.kind} {key.namespace}/{key.name}: {error.message}"
            self.bells.ring(key, after=_REFUSED_PAUSE)
            self._ring_links(key)
            return
        if memory.refusals.pop(key, None):
            self._ring_links(key)
        self._tell_pace(key, "")
        with self.bells.muted(key):
            self.world.workloads[key.kind].store(answer)

    def _ring_links(self, key: Key) -> None:
        for link in self.world.links_from(WorkloadRef(key.namespace, key.kind, key.name)):
            self.bells.ring(link_key(link.namespace, link.name))
