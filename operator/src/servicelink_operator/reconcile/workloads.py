"""The reconcile of a workload: the one patch that its links and verifiers want."""

import asyncio
import datetime as dt
from dataclasses import dataclass

from servicelink_core.api.links import WorkloadRef
from servicelink_core.api.objects import Workload
from servicelink_core.workload import WorkloadPlan, plan_workload
from servicelink_operator.cluster.api import Api, PatchType
from servicelink_operator.cluster.errors import ForbiddenError, InvalidError, NotFoundError
from servicelink_operator.cluster.kinds import SERVICE_LINK, WORKLOADS
from servicelink_operator.reconcile.bells import Bells
from servicelink_operator.reconcile.imports import Imports
from servicelink_operator.reconcile.keys import Key, link_key
from servicelink_operator.reconcile.world import World

_REFUSED_PAUSE = 30.0


@dataclass(frozen=True, slots=True)
class WorkloadReconciler:
    """Reconciles one workload at a time."""

    api: Api
    world: World
    bells: Bells
    imports: Imports

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
            return
        plan = await self._plan(workload)
        if plan.patch is not None:
            await self._apply(key, plan)

    async def _plan(self, workload: Workload) -> WorkloadPlan:
        """Plan; where links are recorded that are not in sight, ask which of those are gone, and plan again."""
        now = dt.datetime.now(dt.UTC)
        imported = await self.imports.observe(workload)
        plan = plan_workload(self.world.observe_workload(workload, imported, now))
        gone = [name for name in plan.unconfirmed if await self._is_gone(workload.ref, name)]
        if not gone:
            return plan
        return plan_workload(self.world.observe_workload(workload, imported, now, frozenset(gone)))

    async def _is_gone(self, ref: WorkloadRef, name: str) -> bool:
        """Answer whether a link is gone, or is another workload's by now."""
        try:
            found = await self.api.read(SERVICE_LINK, ref.namespace, name)
        except NotFoundError:
            return True
        client = found["spec"]["client"]
        return (client["kind"], client["name"]) != (ref.kind, ref.name)

    async def _apply(self, key: Key, plan: WorkloadPlan) -> None:
        assert plan.patch is not None
        memory = self.world.memory
        try:
            answer = await self.api.patch(
                WORKLOADS[key.kind], key.namespace, key.name, plan.patch, content_type=PatchType.STRATEGIC
            )
        except (ForbiddenError, InvalidError) as error:
            memory.refusals[key] = f"the API server refused {key.kind} {key.namespace}/{key.name}: {error.message}"
            self.bells.ring(key, after=_REFUSED_PAUSE)
            self._ring_links(key)
            return
        if memory.refusals.pop(key, None):
            self._ring_links(key)
        self.world.workloads[key.kind].store(answer)

    def _ring_links(self, key: Key) -> None:
        for link in self.world.links_from(WorkloadRef(key.namespace, key.kind, key.name)):
            self.bells.ring(link_key(link.namespace, link.name))
