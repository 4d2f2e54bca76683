"""One workload: all links of which it is the client and all verifiers of which it is the server make one patch.

The patch waits until each of the links has its key or cannot get one before somebody acts, so that links applied
together roll the Pods once. What was added for a link goes with the link; while a link is only blocked (consent
withdrawn, a Service missing) it stays, since taking it out would restart Pods for nothing.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from servicelink_contract.binding import DEFAULT_ROOT, ROOT_VARIABLE
from servicelink_core.api.links import Inject, Link
from servicelink_core.api.objects import Workload
from servicelink_core.conflicts import Ground, Imported, find_conflict
from servicelink_core.link import Assessment, Stage
from servicelink_core.render.injection import (
    link_key,
    render_link_part,
    render_root_part,
    render_service_part,
    render_token_part,
    render_verifier_part,
    service_key,
)
from servicelink_core.render.patch import render_patch
from servicelink_core.rotation import BindingFacts, SecretView
from servicelink_core.template import (
    Part,
    Place,
    Record,
    RecordedPart,
    intact,
    ours,
    parse_record,
    standing_bodies,
)


class Injected(StrEnum):
    """How far a part is."""

    DONE = "Done"
    WAITING = "Waiting"
    CONFLICT = "Conflict"


@dataclass(frozen=True, slots=True)
class Injection:
    """How far a link's part is in its client's template; `message` says what is in the way."""

    state: Injected
    message: str = ""


@dataclass(frozen=True, slots=True)
class Use:
    """A link of which the workload is the client."""

    assessment: Assessment
    secret: SecretView | BindingFacts


@dataclass(frozen=True, slots=True)
class MountedService:
    """A Service behind which the workload stands: whether its verifier is to be mounted, or kept if it is (sticky)."""

    name: str
    wanted: bool
    sticky: bool


@dataclass(frozen=True, slots=True)
class WorkloadWorld:
    """All that decides about one workload; `gone` names links of which the API server says that they are gone."""

    workload: Workload
    uses: tuple[Use, ...]
    services: tuple[MountedService, ...]
    imported: Imported
    gone: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class WorkloadPlan:
    """The patch to write (None: none), whether links are still awaited, and links to ask for before theirs goes."""

    patch: dict[str, Any] | None
    waits: bool
    unconfirmed: tuple[str, ...]


def plan_workload(world: WorkloadWorld) -> WorkloadPlan:
    """Answer the one patch that brings a template to what its links and verifiers want."""
    workload, ground = world.workload, _ground(world.workload, world.imported)
    record = ground.record
    kept: dict[str, RecordedPart] = {}
    fresh: list[Part] = []
    waits = False
    for use in world.uses:
        key = link_key(use.assessment.link.name)
        part, stage = _wanted_part(use, workload, ground), use.assessment.stage
        blocked = stage is Stage.BLOCKED
        if part is not None and not blocked and _judge(part, use, workload, ground).state is Injected.WAITING:
            waits = waits or stage is Stage.PENDING
            fresh.append(part)
        elif key in record and _keeps(use):
            kept[key] = record[key]
    unconfirmed = _add_unseen(world, record, kept)
    _add_services(world, ground, (kept, fresh))
    fresh.extend(_shared_parts(workload, ground, (kept, fresh)))
    patch = None if waits else render_patch(workload, record, kept, fresh)
    return WorkloadPlan(patch, waits, unconfirmed)


def plan_ejection(workload: Workload) -> dict[str, Any] | None:
    """Answer the patch that takes all of ours out of a template; None where nothing of ours is recorded."""
    return render_patch(workload, parse_record(workload), {}, ())


def judge_injection(use: Use, workload: Workload, imported: Imported) -> Injection:
    """Answer how far one link is, from what stands in the template."""
    ground = _ground(workload, imported)
    part = _wanted_part(use, workload, ground)
    return Injection(Injected.WAITING) if part is None else _judge(part, use, workload, ground)


def _judge(part: Part, use: Use, workload: Workload, ground: Ground) -> Injection:
    if _stands(part, ground):
        return Injection(Injected.DONE)
    link = use.assessment.link
    missing = [name for name in link.containers if name not in _names(workload)]
    if missing:
        return Injection(Injected.CONFLICT, f"the template has no container {missing[0]}; mend spec.client.containers")
    unclear = _unclear_root(link, workload, ground)
    if unclear:
        return Injection(Injected.CONFLICT, f"container {unclear} takes {ROOT_VARIABLE} by reference; give it a value")
    token = render_token_part(_selected(link, workload))
    conflict = find_conflict(part, ground) or find_conflict(token, ground)
    return Injection(Injected.CONFLICT, conflict) if conflict else Injection(Injected.WAITING)


def _ground(workload: Workload, imported: Imported) -> Ground:
    record, standing = parse_record(workload), standing_bodies(workload)
    return Ground(record, standing, ours(record, standing), imported)


def _wanted_part(use: Use, workload: Workload, ground: Ground) -> Part | None:
    """Render what a link wants; None where it wants nothing, or cannot say yet."""
    link, endpoint = use.assessment.link, use.assessment.endpoint
    if endpoint is None or link.deleting or link.binding.inject is not Inject.PATCH:
        return None
    kid = use.secret.kid if isinstance(use.secret, BindingFacts) else None
    return render_link_part(link, endpoint, kid, _roots(link, workload, ground))


def _keeps(use: Use) -> bool:
    return not use.assessment.link.deleting and use.assessment.link.binding.inject is Inject.PATCH


def _stands(part: Part, ground: Ground) -> bool:
    recorded = ground.record.get(part.key)
    return recorded is not None and recorded.inputs == part.inputs and intact(recorded, ground.standing)


def _add_unseen(world: WorkloadWorld, record: Record, kept: dict[str, RecordedPart]) -> tuple[str, ...]:
    """Keep the parts of links that are out of sight and not known to be gone, and name those links."""
    seen = {link_key(use.assessment.link.name) for use in world.uses}
    unseen = [key for key in record if key.startswith("link/") and key not in seen]
    names = [name for key in unseen if (name := key.removeprefix("link/")) not in world.gone]
    kept.update({link_key(name): record[link_key(name)] for name in names})
    return tuple(names)


Parts = tuple[dict[str, RecordedPart], list[Part]]


def _add_services(world: WorkloadWorld, ground: Ground, parts: Parts) -> None:
    (kept, fresh), record = parts, ground.record
    for service in world.services:
        key = service_key(service.name)
        part = render_service_part(service.name, _names(world.workload))
        if key in record and (service.sticky or (service.wanted and _stands(part, ground))):
            kept[key] = record[key]
        elif service.wanted and find_conflict(part, ground) is None:
            fresh.append(part)


def _shared_parts(workload: Workload, ground: Ground, parts: Parts) -> list[Part]:
    """Answer the parts that others share, as far as they do not stand; those that do are kept."""
    kept, record = parts[0], ground.record
    clients, servers = _containers_of("link/", parts), _containers_of("service/", parts)
    both = [name for name in _names(workload) if name in clients | servers]
    rootless = [name for name in both if name in clients and _own_root(name, ground) is None]
    wanted = (
        (both, render_token_part),
        (rootless, render_root_part),
        ([name for name in both if name in servers], render_verifier_part),
    )
    found = []
    for names, render in wanted:
        part = render(names) if names else None
        if part is not None and _stands(part, ground):
            kept[part.key] = record[part.key]
        elif part is not None and find_conflict(part, ground) is None:
            found.append(part)
    return found


def _containers_of(prefix: str, parts: Parts) -> set[str]:
    kept, fresh = parts
    spots = [spot for key, part in kept.items() if key.startswith(prefix) for spot in part.hashes]
    spots += [one.spot for part in fresh if part.key.startswith(prefix) for one in part.additions]
    return {spot.container for spot in spots if spot.place is Place.MOUNT}


def _names(workload: Workload) -> tuple[str, ...]:
    return tuple(container["name"] for container in workload.containers)


def _selected(link: Link, workload: Workload) -> tuple[str, ...]:
    return tuple(name for name in _names(workload) if not link.containers or name in link.containers)


def _roots(link: Link, workload: Workload, ground: Ground) -> dict[str, str]:
    return {name: _own_root(name, ground) or DEFAULT_ROOT for name in _selected(link, workload)}


def _own_root(container: str, ground: Ground) -> str | None:
    """Answer the folder of bindings that a container names itself."""
    for spot, body in ground.standing.items():
        if (spot.place, spot.container, spot.name) == (Place.VARIABLE, container, ROOT_VARIABLE):
            return None if spot in ground.own else str(body.get("value") or "") or None
    return None


def _unclear_root(link: Link, workload: Workload, ground: Ground) -> str | None:
    """Answer a container whose folder of bindings is known only when it runs."""
    for spot, body in ground.standing.items():
        unclear = spot.place is Place.VARIABLE and spot.name == ROOT_VARIABLE and "valueFrom" in body
        if unclear and spot.container in _selected(link, workload):
            return spot.container
    return None
