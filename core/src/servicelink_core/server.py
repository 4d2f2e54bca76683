"""One server: all links to it make one verifier.

The fold wants an entry for every link that is permitted and whose key is known. What it does not know it leaves as it
is: an entry goes when its link is gone for certain or not permitted any more, never because a list came back short.
"""

import datetime as dt
from dataclasses import dataclass, replace

from servicelink_contract.verifier import KeyEntry, LinkEntry, Mode, Verifier
from servicelink_core.api.links import ServiceRef
from servicelink_core.api.policies import Policy
from servicelink_core.link import Assessment
from servicelink_core.posture import Posture, judge_posture
from servicelink_core.rotation import BindingFacts, SecretView, StandingVerifier


@dataclass(frozen=True, slots=True)
class Caller:
    """A link to the server, as it stands."""

    assessment: Assessment
    secret: SecretView | BindingFacts


@dataclass(frozen=True, slots=True)
class ServerWorld:
    """All that decides about one verifier; `gone` are UIDs of links of which the API server says that they are gone."""

    ref: ServiceRef
    exists: bool
    policies: tuple[Policy, ...]
    standing: StandingVerifier
    callers: tuple[Caller, ...]
    gone: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """An entry whose link is not in sight: ask the API server whether it is gone. `link` is namespace/name."""

    link: str
    uid: str


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """The verifier that should stand (None: none), since when it refuses, and what is to be asked before more goes."""

    verifier: Verifier | None
    enforced_since: dt.datetime | None
    unconfirmed: tuple[Unconfirmed, ...]


def plan_server(world: ServerWorld, now: dt.datetime) -> ServerPlan:
    """Answer the verifier that should stand."""
    standing = world.standing.verifier
    posture = judge_posture(world.ref.name, world.policies, standing)
    known = {caller.assessment.link.uid: caller for caller in world.callers}
    entries, unconfirmed = [], []
    for entry in standing.links if standing else ():
        if entry.uid not in known and entry.uid not in world.gone:
            entries.append(entry)
            unconfirmed.append(Unconfirmed(entry.link, entry.uid))
    for caller in world.callers:
        wanted = _wanted_entry(caller, world.standing.entry_of(caller.assessment.link.uid), posture, now)
        if wanted is not None:
            entries.append(wanted)
    if not entries and not (world.exists and (posture.policy is not None or posture.mode is Mode.ENFORCE)):
        return ServerPlan(None, None, tuple(unconfirmed))
    verifier = Verifier(str(world.ref), posture.mode, posture.header, posture.graphql_path, _in_order(entries))
    return ServerPlan(verifier, _enforced_since(world.standing, posture, now), tuple(unconfirmed))


def _wanted_entry(caller: Caller, standing: LinkEntry | None, posture: Posture, now: dt.datetime) -> LinkEntry | None:
    assessment = caller.assessment
    link, consent = assessment.link, assessment.consent
    if link.deleting or not consent.given:
        return None
    entry = _entry(caller, standing, now)
    if entry is None:
        return None
    keys = tuple(
        replace(key, not_after=consent.expires_at) for key in entry.keys if key.kid not in posture.revoked_kids
    )
    return replace(entry, keys=keys, cap=consent.cap) if keys else None


def _entry(caller: Caller, standing: LinkEntry | None, now: dt.datetime) -> LinkEntry | None:
    """Answer the entry as the link's own spec and Secret want it; the standing one where they say nothing."""
    link, endpoint, facts = caller.assessment.link, caller.assessment.endpoint, caller.secret
    if endpoint is None or not isinstance(facts, BindingFacts) or facts.link_uid != link.uid:
        return standing
    return LinkEntry(
        link=link.full_name,
        uid=link.uid,
        port=endpoint.pod_port,
        protocol=link.protocol,
        keys=_keys(facts, standing, now),
        allow=link.allow,
    )


def _keys(facts: BindingFacts, standing: LinkEntry | None, now: dt.datetime) -> tuple[KeyEntry, ...]:
    """Answer the current key and the candidate; a key keeps the time since when it has been there."""
    before = {key.kid: key for key in standing.keys} if standing else {}
    pairs = ((facts.kid, facts.sha256), (facts.candidate_kid, facts.candidate_sha256))
    since = {kid: key.since for kid, key in before.items()}
    wanted = {kid: KeyEntry(kid, sha256, since.get(kid, now)) for kid, sha256 in pairs if kid and sha256}
    # Until a key is published, clients may hold the one before: the Secret lost it, its readers did not.
    return tuple((wanted if facts.kid else {**before, **wanted}).values())


def _enforced_since(standing: StandingVerifier, posture: Posture, now: dt.datetime) -> dt.datetime | None:
    if posture.mode is Mode.AUDIT:
        return None
    # A verifier that refuses without saying since when was written by hand or before this mark: unknown is long ago
    # only for entries that were there already, so it counts from now.
    return standing.enforced_since or now


def _in_order(entries: list[LinkEntry]) -> tuple[LinkEntry, ...]:
    return tuple(sorted(entries, key=lambda entry: (entry.link, entry.uid)))
