"""The reconcile of a server: the ConfigMaps of its verifier."""

import asyncio
import datetime as dt
from contextlib import suppress
from dataclasses import dataclass

import structlog

from servicelink_contract.verifier import Verifier
from servicelink_core.api.links import ServiceRef
from servicelink_core.api.names import MANAGED_BY, MANAGER
from servicelink_core.render.verifier import render_config_maps
from servicelink_core.server import ServerPlan, plan_server
from servicelink_operator import telemetry
from servicelink_operator.cluster.api import Api, PatchType
from servicelink_operator.cluster.cache import Object
from servicelink_operator.cluster.errors import AlreadyExistsError, ConflictError, ForbiddenError, NotFoundError
from servicelink_operator.cluster.installation import Installation
from servicelink_operator.cluster.kinds import CONFIG_MAP, SERVICE, SERVICE_LINK
from servicelink_operator.reconcile.bells import Bells
from servicelink_operator.reconcile.keys import Key, link_key, policy_key, server_key
from servicelink_operator.reconcile.world import World

_CONFLICT_PAUSE = 30.0
_SAMPLES = 5

log = structlog.get_logger("servicelink.reconcile")


@dataclass(frozen=True, slots=True)
class ServerReconciler:
    """Reconciles one server at a time."""

    api: Api
    world: World
    bells: Bells
    installation: Installation

    async def reconcile(self, key: Key) -> None:
        """Bring one server's verifier to what its links and policies want."""
        clock = asyncio.get_running_loop().time()
        pause = self.world.memory.server_pause(key, clock)
        if pause > 0:
            self.bells.ring(key, after=pause)
            return
        ref = ServiceRef(key.namespace, key.name)
        if ref in self.world.memory.conflicts and not await self._has_resolved(ref):
            self.bells.ring(key, after=_CONFLICT_PAUSE)
            return
        plan = await self._plan(key, ref)
        if plan.look_again is not None:
            self.bells.ring(key, after=max(1.0, (plan.look_again - dt.datetime.now(dt.UTC)).total_seconds()))
        self._note_left_out(ref, plan.left_out)
        before = self.world.standing(ref).verifier
        if await self._apply(ref, plan):
            self.world.memory.server_written(key, asyncio.get_running_loop().time())
            for entry in before.links if before else ():
                if entry.uid not in plan.uids:
                    self.bells.ring_recorded(entry.link)
            self._tell(ref, before, plan.verifier)

    def _tell(self, ref: ServiceRef, before: Verifier | None, after: Verifier | None) -> None:
        """Leave a line for every key that is accepted from now on, or no longer, and say what the brake holds."""
        was_held, is_held = _held(before), _held(after)
        if is_held - was_held:
            log.warning("removals_held", server=str(ref), links=len(is_held), samples=sorted(is_held)[:_SAMPLES])
        if is_held != was_held:
            self.bells.ring(*(policy_key(one.namespace, one.name) for one in self.world.policies_for(ref)))
        old, new = _kids(before), _kids(after)
        for link, kid in sorted(new - old):
            telemetry.audit("accepted", link=link, kid=kid, reason="Verifier")
        for link, kid in sorted(old - new):
            telemetry.audit("revoked", link=link, kid=kid, reason="Verifier")

    def _note_left_out(self, ref: ServiceRef, left_out: frozenset[str]) -> None:
        """Remember for which links there is no room, and tell those for which that is news."""
        memory = self.world.memory
        news = memory.left_out.get(ref, frozenset()) ^ left_out
        memory.left_out[ref] = left_out
        if not left_out:
            del memory.left_out[ref]
        for link in self.world.links_to(ref) if news else ():
            if link.uid in news:
                self.bells.ring(link_key(link.namespace, link.name))

    async def _plan(self, key: Key, ref: ServiceRef) -> ServerPlan:
        """Plan; before an entry goes, ask the API server for its link and for the definitions, and plan again.

        While many links vanish, nothing goes until it is clear how many.
        """
        plan = self._plan_once(ref, await self.installation.observe())
        pause = self.world.memory.vanishing_pause(asyncio.get_running_loop().time()) if plan.unconfirmed else 0.0
        if pause > 0:
            self.bells.ring(key, after=pause)
        gone = [one.uid for one in plan.unconfirmed if pause == 0 and await self._is_gone(one.link, one.uid)]
        if not gone and plan.uids >= self._standing_uids(ref):
            return plan
        return self._plan_once(ref, await self.installation.observe(newest=True), frozenset(gone))

    def _plan_once(self, ref: ServiceRef, installation: str | None, gone: frozenset[str] = frozenset()) -> ServerPlan:
        now = dt.datetime.now(dt.UTC)
        return plan_server(self.world.observe_server(ref, now, installation, gone), now)

    def _standing_uids(self, ref: ServiceRef) -> frozenset[str]:
        verifier = self.world.standing(ref).verifier
        return frozenset(entry.uid for entry in verifier.links) if verifier else frozenset()

    async def _is_gone(self, full_name: str, uid: str) -> bool:
        namespace, _, name = full_name.partition("/")
        try:
            found = await self.api.read(SERVICE_LINK, namespace, name, metadata_only=True)
        except NotFoundError:
            return True
        except ForbiddenError:
            # Of a namespace that is not watched any more: nobody says that it is gone.
            return False
        return bool(found["metadata"]["uid"] != uid)

    async def _apply(self, ref: ServiceRef, plan: ServerPlan) -> bool:
        """Write what differs, and answer whether anything was written."""
        standing = {body["metadata"]["name"]: body for body in self.world.verifier_shards(ref)}
        if plan.verifier is None:
            return bool(standing) and await self._remove(ref, tuple(standing.values()))
        wanted = render_config_maps(ref, plan.verifier, plan.enforced_since)
        written = [await self._write(ref, body, standing.get(body["metadata"]["name"])) for body in wanted]
        names = {body["metadata"]["name"] for body in wanted}
        extra = [body for name, body in standing.items() if name not in names]
        for body in extra:
            await self._delete(body)
        return any(written) or bool(extra)

    async def _write(self, ref: ServiceRef, body: Object, standing: Object | None) -> bool:
        if standing is not None and _same(body, standing):
            return False
        metadata = body["metadata"]
        if standing is None:
            try:
                answer = await self.api.create(CONFIG_MAP, ref.namespace, body)
            except AlreadyExistsError:
                await self._note_conflict(ref, metadata["name"])
                return False
        else:
            # On condition of the version that the plan was made from: a stale leader's write must fail.
            version = standing["metadata"]["resourceVersion"]
            marks = {"resourceVersion": version, "labels": metadata["labels"], "annotations": _marks(body, standing)}
            patch = {"metadata": marks, "data": {**dict.fromkeys(standing.get("data") or {}), **body["data"]}}
            answer = await self.api.patch(
                CONFIG_MAP, ref.namespace, metadata["name"], patch, content_type=PatchType.MERGE
            )
        with self.bells.muted(server_key(ref)):
            self.world.config_maps.store(answer)
        return True

    async def _note_conflict(self, ref: ServiceRef, name: str) -> None:
        """A ConfigMap of that name is there: ours, and the cache is behind, or somebody else's."""
        found = await self.api.read(CONFIG_MAP, ref.namespace, name, metadata_only=True)
        if (found["metadata"].get("labels") or {}).get(MANAGED_BY) == MANAGER:
            raise ConflictError(409, "Conflict", f"ConfigMap {name} is newer than the cache")
        self.world.memory.conflicts.add(ref)
        for link in self.world.links_to(ref):
            self.bells.ring(link_key(link.namespace, link.name))
        self.bells.ring(server_key(ref), after=_CONFLICT_PAUSE)

    async def _has_resolved(self, ref: ServiceRef) -> bool:
        """Look whether the ConfigMap that is somebody else's has gone; the plan then finds out whether all have."""
        self.world.memory.conflicts.discard(ref)
        plan = self._plan_once(ref, await self.installation.observe())
        for body in render_config_maps(ref, plan.verifier, None) if plan.verifier else ():
            try:
                found = await self.api.read(CONFIG_MAP, ref.namespace, body["metadata"]["name"], metadata_only=True)
            except NotFoundError:
                continue
            if (found["metadata"].get("labels") or {}).get(MANAGED_BY) != MANAGER:
                self.world.memory.conflicts.add(ref)
                return False
        return True

    async def _remove(self, ref: ServiceRef, standing: tuple[Object, ...]) -> bool:
        """Take a verifier away that nobody needs; one whose Service only seems to be gone stays."""
        if self.world.service(ref) is None and await self._service_exists(ref):
            return False
        for body in standing:
            await self._delete(body)
        return True

    async def _service_exists(self, ref: ServiceRef) -> bool:
        try:
            await self.api.read(SERVICE, ref.namespace, ref.name, metadata_only=True)
        except NotFoundError:
            return False
        return True

    async def _delete(self, body: Object) -> None:
        metadata = body["metadata"]
        namespace, name, uid = metadata["namespace"], metadata["name"], metadata["uid"]
        with suppress(NotFoundError):
            await self.api.delete(CONFIG_MAP, namespace, name, uid=uid, resource_version=metadata["resourceVersion"])
        self.world.config_maps.forget(namespace, name, uid)


def _same(body: Object, standing: Object) -> bool:
    labels = standing["metadata"].get("labels") or {}
    if any(labels.get(name) != value for name, value in body["metadata"]["labels"].items()):
        return False
    return body["data"] == standing.get("data") and not _marks(body, standing)


def _marks(body: Object, standing: Object) -> dict[str, str | None]:
    """Answer the annotations to change; None takes one away."""
    wanted, has = body["metadata"]["annotations"], standing["metadata"].get("annotations") or {}
    changed = {name: value for name, value in wanted.items() if has.get(name) != value}
    return {**changed, **{name: None for name in has if name.startswith("servicelink.dev/") and name not in wanted}}


def _held(verifier: Verifier | None) -> set[str]:
    return {entry.link for entry in (verifier.links if verifier else ()) if entry.held_since is not None}


def _kids(verifier: Verifier | None) -> set[tuple[str, str]]:
    return {(entry.link, key.kid) for entry in (verifier.links if verifier else ()) for key in entry.keys}
