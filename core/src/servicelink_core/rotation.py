"""The phases of a credential. The binding Secret is the journal; this release knows Issue and Stable.

Server side first: nobody may hold a key that its server does not accept. Where the server refuses (Enforce), a new key
is stored as a candidate, which no volume mounts, and published once its entry has stood in the verifier for as long as
its files need to reach the server's Pods. Where nobody refuses, a key is handed out at once.
"""

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from servicelink_contract.verifier import LinkEntry, Mode, Verifier
from servicelink_core.api.reasons import Reason


class SecretView(StrEnum):
    """What is known of a Secret that is not this link's binding."""

    UNREAD = "Unread"
    ABSENT = "Absent"
    FOREIGN = "Foreign"


@dataclass(frozen=True, slots=True)
class BindingFacts:
    """What the annotations of a link's binding Secret say; `content_hash` None where it was not read but presumed.

    `owner` is the name of the link that it was made for. `kid_secret` says whether the Secret of the current kid
    (`delivery: Env`) is there.
    """

    link_uid: str
    resource_version: str
    kid: str | None
    sha256: str | None
    issued_at: dt.datetime | None
    candidate_kid: str | None = None
    candidate_sha256: str | None = None
    content_hash: str | None = None
    owner: str = ""
    kid_secret: bool = False


@dataclass(frozen=True, slots=True)
class StandingVerifier:
    """A verifier as it stands; `enforced_since` is when it began to refuse, None while it does not.

    `conflict` says that a ConfigMap of its name is somebody else's, `left_out` names by UID the links without room.
    """

    verifier: Verifier | None
    enforced_since: dt.datetime | None = None
    conflict: bool = False
    left_out: frozenset[str] = frozenset()
    _by_uid: Mapping[str, LinkEntry] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        entries = self.verifier.links if self.verifier else ()
        object.__setattr__(self, "_by_uid", {entry.uid: entry for entry in entries})

    def entry_of(self, uid: str) -> LinkEntry | None:
        """Answer the entry of the link with that UID."""
        return self._by_uid.get(uid)


class SecretStep(StrEnum):
    """What is to be done to the binding Secret next."""

    NONE = "None"
    READ = "Read"
    CREATE = "Create"
    CREATE_CANDIDATE = "CreateCandidate"
    PUBLISH = "Publish"
    REFRESH = "Refresh"
    COPY_TO_KID = "CopyToKid"


@dataclass(frozen=True, slots=True)
class Issue:
    """The next step, why the credential is not yet on both ends (None: it is), and when to look again."""

    step: SecretStep
    waits_for: Reason | None
    message: str
    look_again: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class IssueWorld:
    """What decides about issuing: the Secret, the verifier, its entry, what the server is to do with other calls.

    `link_name` and `link_uid` are the link's; `content_hash` answers that of what the Secret should say, where it is
    looked at.
    `wait` is how long a verifier's files need to reach the server's Pods; `wants_kid_secret` is `delivery: Env`;
    `revoked` are kids that the server's owner takes no more.
    """

    link_name: str
    link_uid: str
    secret: SecretView | BindingFacts
    standing: StandingVerifier
    mode: Mode
    wait: dt.timedelta
    content_hash: Callable[[], str]
    wants_kid_secret: bool
    revoked: frozenset[str] = frozenset()


def plan_issue(world: IssueWorld, now: dt.datetime) -> Issue:
    """Answer the next step of issuing."""
    if world.standing.conflict:
        return Issue(SecretStep.NONE, Reason.VERIFIER_CONFLICT, "")
    match world.secret:
        case SecretView.UNREAD:
            return Issue(SecretStep.READ, Reason.ISSUING, "reading the binding Secret")
        case SecretView.FOREIGN:
            return Issue(SecretStep.NONE, Reason.SECRET_CONFLICT, "")
        case SecretView.ABSENT:
            refuses = world.mode is Mode.ENFORCE
            step = SecretStep.CREATE_CANDIDATE if refuses else SecretStep.CREATE
            return Issue(step, Reason.ISSUING, "storing the key")
        case BindingFacts() as facts:
            return _plan_with(facts, world, now)


def _plan_with(facts: BindingFacts, world: IssueWorld, now: dt.datetime) -> Issue:
    if facts.link_uid != world.link_uid and facts.owner == world.link_name:
        # Of the link of this name before this one: its client goes on with that key until it is handed the new one.
        return Issue(SecretStep.CREATE_CANDIDATE, Reason.ISSUING, "issuing a key of the link's own")
    if facts.link_uid != world.link_uid:
        return Issue(SecretStep.NONE, Reason.SECRET_CONFLICT, "")
    if facts.kid is None or facts.kid in world.revoked:
        return _plan_publish(facts, world, now)
    step = _upkeep(facts, world)
    proof = _proof(facts.kid, world, now)
    if proof is not None:
        return Issue(step, proof.waits_for, proof.message, proof.look_again)
    if step is SecretStep.COPY_TO_KID:
        return Issue(step, Reason.ISSUING, "storing the key's own Secret")
    return Issue(step, None, "")


def _plan_publish(facts: BindingFacts, world: IssueWorld, now: dt.datetime) -> Issue:
    if facts.candidate_kid is None or facts.candidate_kid in world.revoked:
        # Revoked, or ours by its marks and without any key: somebody emptied it, and nobody has the bytes.
        return Issue(SecretStep.CREATE_CANDIDATE, Reason.ISSUING, "issuing the key anew")
    if world.mode is Mode.AUDIT:
        return Issue(SecretStep.PUBLISH, Reason.ISSUING, "publishing the key")
    proof = _proof(facts.candidate_kid, world, now)
    return proof or Issue(SecretStep.PUBLISH, Reason.ISSUING, "publishing the key")


def _upkeep(facts: BindingFacts, world: IssueWorld) -> SecretStep:
    read = facts.content_hash is not None
    if read and (facts.content_hash != world.content_hash() or facts.owner != world.link_name):
        return SecretStep.REFRESH
    return SecretStep.COPY_TO_KID if world.wants_kid_secret and not facts.kid_secret else SecretStep.NONE


def _proof(kid: str, world: IssueWorld, now: dt.datetime) -> Issue | None:
    """Answer what proof is missing that the server accepts a kid; None where there is proof.

    An entry that was there when the server began to refuse came to it with the same files.
    """
    entry = world.standing.entry_of(world.link_uid)
    key = next((key for key in entry.keys if key.kid == kid), None) if entry else None
    if key is None and world.link_uid in world.standing.left_out:
        return Issue(SecretStep.NONE, Reason.VERIFIER_FULL, "")
    if key is None:
        return Issue(SecretStep.NONE, Reason.ISSUING, "the server's verifier does not have the key yet")
    since = world.standing.enforced_since
    if world.mode is Mode.AUDIT or (since is not None and key.since <= since):
        return None
    ready = key.since + world.wait
    if now >= ready:
        return None
    return Issue(
        SecretStep.NONE,
        Reason.PROPAGATING,
        f"the server refuses unknown keys, so the client gets this one at {ready:%H:%M:%SZ}, when its verifier has it",
        look_again=ready,
    )


def known_keys(view: SecretView | BindingFacts, entry: LinkEntry | None) -> frozenset[tuple[str, str]] | None:
    """Answer which keys, as (kid, sha256), a link's Secret may hold; None where nothing is known of it yet.

    Who may write the Secret can write any key, the marks that fit it, and who is said to have written them. Nobody else
    writes the verifier; and what is remembered of the Secret, this process has written or held against the verifier.
    """
    if entry is None and not isinstance(view, BindingFacts):
        return None
    facts = view if isinstance(view, BindingFacts) else None
    own = ((facts.kid, facts.sha256), (facts.candidate_kid, facts.candidate_sha256)) if facts else ()
    accepted = ((key.kid, key.sha256) for key in entry.keys) if entry else ()
    return frozenset((kid, sha256) for kid, sha256 in (*own, *accepted) if kid and sha256)


def drop_unknown_keys(facts: BindingFacts, known: frozenset[tuple[str, str]] | None) -> BindingFacts:
    """Answer what a Secret says; a key that is none of those known counts as lost, and another one is issued."""
    if known is None:
        return facts
    if (facts.kid, facts.sha256) not in known:
        facts = replace(facts, kid=None, sha256=None, issued_at=None)
    if (facts.candidate_kid, facts.candidate_sha256) not in known:
        facts = replace(facts, candidate_kid=None, candidate_sha256=None)
    return facts


def presume_facts(kid: str | None, issued_at: dt.datetime | None, entry: LinkEntry | None) -> BindingFacts | None:
    """Answer what the Secret must say where status and verifier agree; None where they do not.

    A restarted operator thus reads no Secret before it has work; the rounds that look for drift read them later.
    """
    if kid is None or entry is None:
        return None
    key = next((key for key in entry.keys if key.kid == kid), None)
    if key is None:
        return None
    return BindingFacts(entry.uid, "", kid, key.sha256, issued_at, kid_secret=True)
