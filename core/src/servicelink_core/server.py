"""One server: all links to it make one verifier.

The fold wants an entry for every link that is permitted and whose key is known. What it does not know it leaves as it
is: an entry goes when its link is gone for certain or not permitted any more, never because a list came back short, and
not while the brake holds it.
"""

import datetime as dt
from dataclasses import dataclass, field, replace

from servicelink_contract.verifier import KeyEntry, LinkEntry, Mode, Verifier, find_overflow
from servicelink_core.api.links import ServiceRef
from servicelink_core.api.policies import Policy
from servicelink_core.api.reasons import Reason
from servicelink_core.brake import Removals, hold, is_of, may_go
from servicelink_core.consent import Consent
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
    removals: Removals = field(default_factory=Removals)


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """An entry whose link is not in sight: ask the API server whether it is gone. `link` is namespace/name."""

    link: str
    uid: str


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """The verifier that should stand (None: none), since when it refuses, and what is to be asked before more goes.

    `look_again` is when a held entry may go that a link which came back makes needless; `left_out` names by UID the
    links for which the verifier has no room.
    """

    verifier: Verifier | None
    enforced_since: dt.datetime | None
    unconfirmed: tuple[Unconfirmed, ...]
    look_again: dt.datetime | None = None
    left_out: frozenset[str] = frozenset()

    @property
    def uids(self) -> frozenset[str]:
        """Answer the UIDs of the links that have an entry."""
        return frozenset(entry.uid for entry in self.verifier.links) if self.verifier else frozenset()


def plan_server(world: ServerWorld, now: dt.datetime) -> ServerPlan:
    """Answer the verifier that should stand."""
    standing = world.standing.verifier
    posture = judge_posture(world.ref.name, world.policies, standing)
    kept, unconfirmed, times = _plan_unseen(world, now)
    wanted = (_wanted_entry(caller, world, posture, now) for caller in world.callers)
    entries = [*kept, *(entry for entry in wanted if entry is not None)]
    look_again = min((time for time in times if time > now), default=None)
    if not entries and not (world.exists and (posture.policy is not None or posture.mode is Mode.ENFORCE)):
        return ServerPlan(None, None, tuple(unconfirmed), look_again)
    whole = Verifier(str(world.ref), posture.mode, posture.header, posture.graphql_path, _by_right(entries, world))
    over = frozenset(entry.uid for entry in find_overflow(whole))
    fitting = [entry for entry in entries if entry.uid not in over]
    since = _enforced_since(world.standing, posture, now)
    return ServerPlan(replace(whole, links=_in_order(fitting)), since, tuple(unconfirmed), look_again, over)


def _plan_unseen(world: ServerWorld, now: dt.datetime) -> tuple[list[LinkEntry], list[Unconfirmed], list[dt.datetime]]:
    """Answer the entries without a link in sight that stay, those to ask about, and when held ones may go."""
    kept, unconfirmed, times = [], [], []
    known = {caller.assessment.link.uid for caller in world.callers}
    back = {caller.assessment.link.full_name: caller for caller in world.callers}
    standing = world.standing.verifier.links if world.standing.verifier else ()
    unseen = [entry for entry in standing if entry.uid not in known]
    deleted = {entry.link for entry in unseen if entry.uid in world.gone and _goes_now(entry, world)}
    for entry in unseen:
        if entry.held_since is not None and entry.link in deleted:
            # It came back and was then taken away: what is held for it has nothing to wait for.
            continue
        replaced = _replaced_at(back.get(entry.link)) if entry.held_since is not None else None
        if replaced is not None and replaced <= now:
            continue
        if replaced is not None:
            times.append(replaced)
        if entry.uid not in world.gone:
            kept.append(entry)
            if entry.held_since is None or may_go(entry, world.removals):
                unconfirmed.append(Unconfirmed(entry.link, entry.uid))
        elif not may_go(entry, world.removals):
            kept.append(hold(entry, now))
    return kept, unconfirmed, times


def _goes_now(entry: LinkEntry, world: ServerWorld) -> bool:
    return entry.held_since is None and may_go(entry, world.removals)


def _replaced_at(caller: Caller | None) -> dt.datetime | None:
    """Answer when a link that came back needs its entry of before no more: its client has the new key by then."""
    facts = caller.secret if caller else None
    if caller is None or not isinstance(facts, BindingFacts) or not facts.kid or facts.issued_at is None:
        return None
    return facts.issued_at + caller.assessment.link.rotation.overlap


def _wanted_entry(caller: Caller, world: ServerWorld, posture: Posture, now: dt.datetime) -> LinkEntry | None:
    link, consent = caller.assessment.link, caller.assessment.consent
    standing = world.standing.entry_of(link.uid)
    if link.deleting:
        return None
    if not consent.given:
        return hold(standing, now) if standing and _has_lost_policies(standing, consent, world) else None
    entry = _entry(caller, standing, now)
    if entry is None:
        return None
    keys = tuple(
        replace(key, not_after=consent.expires_at) for key in entry.keys if key.kid not in posture.revoked_kids
    )
    installation = world.removals.installation or entry.installation
    return replace(entry, keys=keys, cap=consent.cap, installation=installation, held_since=None) if keys else None


def _has_lost_policies(entry: LinkEntry, consent: Consent, world: ServerWorld) -> bool:
    """Say whether consent went with the definition of policies, rather than by its owner's word."""
    if world.policies or consent.reason is not Reason.REF_NOT_PERMITTED:
        return False
    if entry.held_since is not None:
        return not may_go(entry, world.removals)
    return not is_of(entry, world.removals.installation)


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
        installation=standing.installation if standing else "",
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


def _by_right(entries: list[LinkEntry], world: ServerWorld) -> tuple[LinkEntry, ...]:
    """Answer the entries, those first that keep their place: what stands as it is, what has changed, older links.

    Who grows thus takes no room from others, and an entry without room is left out, never left as it was: what changed
    may be that it allows less.
    """
    created = {caller.assessment.link.uid: caller.assessment.link.created.isoformat() for caller in world.callers}
    standing = {entry.uid: entry for entry in world.standing.verifier.links} if world.standing.verifier else {}

    def rank(entry: LinkEntry) -> tuple[int, str, str]:
        changed = 2 if entry.uid not in standing else int(standing[entry.uid] != entry)
        return (changed, created.get(entry.uid, ""), entry.link)

    return tuple(sorted(entries, key=rank))


def _in_order(entries: list[LinkEntry]) -> tuple[LinkEntry, ...]:
    return tuple(sorted(entries, key=lambda entry: (entry.link, entry.uid)))
