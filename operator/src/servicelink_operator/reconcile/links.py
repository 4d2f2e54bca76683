"""The reconcile of a link: its binding Secret, and its status."""

import asyncio
import datetime as dt
import random
from dataclasses import dataclass, replace
from typing import Any

import structlog

from servicelink_core.api.fields import Invalid
from servicelink_core.api.links import Inject, Link
from servicelink_core.api.reasons import Reason
from servicelink_core.conditions import Findings, Settlement, settle_invalid, settle_link
from servicelink_core.link import Assessment, Stage
from servicelink_core.rotation import BindingFacts, SecretStep, SecretView
from servicelink_core.workload import Injected, Injection, Use, judge_injection
from servicelink_operator import telemetry
from servicelink_operator.cluster.api import Api, PatchType
from servicelink_operator.cluster.cache import Object
from servicelink_operator.cluster.errors import ForbiddenError, InvalidError
from servicelink_operator.cluster.kinds import SERVICE_LINK
from servicelink_operator.cluster.secrets import ReadBudget
from servicelink_operator.reconcile.bells import Bells
from servicelink_operator.reconcile.imports import Imports
from servicelink_operator.reconcile.keys import Key, link_key, policy_key, server_key, workload_key
from servicelink_operator.reconcile.secrets import Journal, apply_step, observe_binding
from servicelink_operator.reconcile.world import World

# Create, publish, copy: a link needs no more steps in a row than these and one to spare.
_STEPS = 4
_FOREIGN_PAUSE = 30.0
log = structlog.get_logger("servicelink.reconcile")


@dataclass(frozen=True, slots=True)
class LinkReconciler:
    """Reconciles one link at a time; `check_every` is how often a Secret is read back to find drift."""

    api: Api
    world: World
    bells: Bells
    imports: Imports
    budget: ReadBudget
    check_every: dt.timedelta

    async def reconcile(self, key: Key) -> None:
        """Bring one link's Secret and status to what they should be."""
        link = self.world.link(key.namespace, key.name)
        match link:
            case None:
                self.world.memory.refusals.pop(key, None)
                self.world.memory.crowded[key.namespace].discard(key)
            case Invalid():
                await self._settle_invalid(key, link)
            case Link() if not link.deleting:
                await self._reconcile(key, link)

    async def _reconcile(self, key: Key, link: Link) -> None:
        await self._look_for_drift(link)
        assessment = await self._advance(key, link)
        client = self.world.workload(link.client)
        use = Use(assessment, self.world.secret_of(link))
        injection = Injection(Injected.WAITING)
        if client is not None:
            injection = judge_injection(use, client, await self.imports.observe(client))
        injects = link.binding.inject is not Inject.NONE and client is not None
        if injects and assessment.stage is not Stage.PENDING and injection.state is Injected.WAITING:
            self.bells.ring_workload(link.client)
        standing = self.world.standing(link.server).entry_of(link.uid) is not None
        if standing and not assessment.consent.given:
            # Consent also ends by the clock, and then nothing else rings the server.
            self.bells.ring(server_key(link.server))
        findings = Findings(
            assessment=assessment,
            secret=use.secret,
            client=client,
            injection=injection,
            standing=standing,
            failure=self._refusal_of_client(link),
            pace=self.world.memory.paced.get(workload_key(link.client), ""),
        )
        self._note_crowd(key, assessment)
        settlement = settle_link(findings, self._status_of(key), _now())
        await self._settle(key, link.uid, link.generation, settlement)

    def _note_crowd(self, key: Key, assessment: Assessment) -> None:
        """Remember a link for which its namespace has no room: once there is, it is rung."""
        crowded = self.world.memory.crowded[key.namespace]
        crowded.discard(key)
        if assessment.accepted.reason is Reason.LIMIT_EXCEEDED:
            crowded.add(key)

    async def _advance(self, key: Key, link: Link) -> Assessment:
        """Carry out steps on the Secret until none is left or one must wait, and ring whom that concerns."""
        memory = self.world.memory
        for _ in range(_STEPS):
            assessment = self.world.assess(link, _now())
            if assessment.step is SecretStep.NONE:
                return assessment
            try:
                after = await apply_step(self.api, assessment, self._journal(link), _now())
            except (ForbiddenError, InvalidError) as error:
                memory.refusals[key] = f"the API server refused Secret {link.binding.secret_name}: {error.message}"
                self.bells.ring(key, after=_FOREIGN_PAUSE)
                break
            memory.refusals.pop(key, None)
            memory.secrets[link.uid] = after
            memory.read_at[link.uid] = _now()
            if after is SecretView.FOREIGN:
                # Nobody tells us when it goes: look again, now and then.
                self.bells.ring(key, after=_FOREIGN_PAUSE)
            self.bells.ring(server_key(link.server))
            if link.binding.inject is not Inject.NONE:
                self.bells.ring_workload(link.client)
        return self.world.assess(link, _now())

    async def _look_for_drift(self, link: Link) -> None:
        """Read the Secret back in rounds; at once where it was somebody else's."""
        memory = self.world.memory
        view = memory.secret_of(link.uid)
        if view is SecretView.FOREIGN:
            memory.secrets.pop(link.uid, None)
            return
        now = _now()
        if link.uid not in memory.read_at:
            # After a start the first round is spread over its whole time.
            memory.read_at[link.uid] = now - self.check_every * random.random()  # noqa: S311 (spreads load)
        due = memory.read_at[link.uid] + self.check_every
        if now >= due:
            # Also where there is no Secret to read: a round that stays due would come again every second.
            if isinstance(self.world.secret_of(link), BindingFacts):
                await self._read_back(link)
            memory.read_at[link.uid] = now
            due = now + self.check_every
        self.bells.ring(link_key(link.namespace, link.name), after=(due - now).total_seconds())

    async def _read_back(self, link: Link) -> None:
        """Learn what a Secret says; it is as it was known while the right to read it back is missing."""
        memory = self.world.memory
        view = memory.secret_of(link.uid)
        await self.budget.take()
        try:
            read = await observe_binding(self.api, self._journal(link))
        except ForbiddenError as error:
            # This process is not ready meanwhile, and says why; whatever else is new about the link goes on.
            log.warning("secret_not_read", link=f"{link.namespace}/{link.name}", reason=error.message)
            return
        if isinstance(read, BindingFacts) and isinstance(view, BindingFacts) and read.kid == view.kid:
            read = replace(read, kid_secret=view.kid_secret)
        memory.secrets[link.uid] = read

    def _journal(self, link: Link) -> Journal:
        return Journal(link, self.world.secret_of(link), self.world.standing(link.server).entry_of(link.uid))

    async def _settle_invalid(self, key: Key, link: Invalid) -> None:
        settlement = settle_invalid(link.generation, link.problems, self._status_of(key), _now())
        await self._settle(key, link.uid, link.generation, settlement)

    async def _settle(self, key: Key, uid: str, generation: int, settlement: Settlement) -> None:
        """Write the status when it is final, or when nothing has been for two seconds; not at all if it stands."""
        memory, clock = self.world.memory, asyncio.get_running_loop().time()
        if settlement.look_again is not None:
            self.bells.ring(key, after=max(0.05, (settlement.look_again - _now()).total_seconds()))
        if settlement.final:
            memory.settled(uid)
        elif (pause := memory.status_pause(uid, generation, clock)) > 0:
            self.bells.ring(key, after=pause)
            return
        if settlement.status == self._status_of(key):
            return
        self._tell(key, uid, settlement.status)
        body = {
            "apiVersion": SERVICE_LINK.api_version,
            "kind": SERVICE_LINK.kind,
            "metadata": {"name": key.name, "namespace": key.namespace, "uid": uid},
            "status": settlement.status,
        }
        answer = await self.api.patch(
            SERVICE_LINK,
            key.namespace,
            key.name,
            body,
            content_type=PatchType.APPLY,
            subresource="status",
            force=True,
        )
        with self.bells.muted(key):
            self.world.links.store(answer)
        if not settlement.final:
            memory.told(uid, generation, asyncio.get_running_loop().time())

    def _tell(self, key: Key, uid: str, status: dict[str, Any]) -> None:
        """Leave a line when consent is refused, and ring the policies that count their links."""
        before, after = (_condition(one, "Permitted") for one in (self._status_of(key), status))
        if before == after:
            return
        link = self.world.link(key.namespace, key.name)
        if isinstance(link, Link):
            policies = self.world.policies_for(link.server)
            self.bells.ring(*(policy_key(one.namespace, one.name) for one in policies), after=1.0)
        if after is not None and after[0] == "False":
            view = self.world.memory.secret_of(uid)
            kid = (view.kid or "") if isinstance(view, BindingFacts) else ""
            telemetry.audit("refused", link=f"{key.namespace}/{key.name}", kid=kid, reason=after[1])

    def _status_of(self, key: Key) -> Object:
        return self.world.status_of(key.namespace, key.name)

    def _refusal_of_client(self, link: Link) -> str:
        return self.world.memory.refusals.get(workload_key(link.client), "")


def _condition(status: Object, kind: str) -> tuple[str, str] | None:
    found = next((one for one in status.get("conditions") or () if one["type"] == kind), None)
    return None if found is None else (found["status"], found["reason"])


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
