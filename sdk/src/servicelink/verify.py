"""Deciding about a call: its credential against the verifier's files, then the link's rules.

`decide` is pure; `VerifierFiles` keeps the newest verifier of a folder for it, `SharedKeys` is what stands in where
there is no operator. All that could go wrong refuses: no files, files of two revisions, a path with two readings. Light
on purpose (the standard library and the contract), since authorizers and servers of every kind stand on it.
"""

import datetime as dt
import hmac
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol as Interface

from servicelink.folder import SwappedFolder
from servicelink_contract.binding import DEFAULT_HEADER
from servicelink_contract.key import ApiKey, MalformedKeyError, parse_key
from servicelink_contract.paths import RefusedPathError, parse_path
from servicelink_contract.rules import Protocol, RestRequest, RestRule, allows_rest
from servicelink_contract.verifier import KeyEntry, LinkEntry, Mode, Verifier, parse_verifier
from servicelink_contract.wire import Rule

# The link's name where one key is shared by all callers.
SHARED_KEY = "shared key"
_SHARDS = "shard-*.json"


class Code(StrEnum):
    """Why a call is refused, as callers see it."""

    INVALID_SERVICE_AUTH = "INVALID_SERVICE_AUTH"
    PERMISSION_DENIED = "PERMISSION_DENIED"


@dataclass(frozen=True, slots=True)
class Allowed:
    """A call that may pass: `link` is namespace/name, `uid` the link's, `kid` that of the key it came with.

    With a shared key `link` is "shared key", and `uid` and `kid` are empty.
    """

    link: str
    uid: str
    kid: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A call that may not pass, and why, in words for the server's log.

    `link` and `kid` are there only where the credential was verified (the code is then PERMISSION_DENIED).
    """

    code: Code
    reason: str
    link: str | None = None
    kid: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict, and whether the server acts on it (Enforce) or only counts it (Audit).

    `header` names the header that was read, in lower case: it must not go on to the application.
    """

    verdict: Allowed | Refused
    enforced: bool
    header: str

    @property
    def passes(self) -> bool:
        """Whether the call goes on to the application."""
        return isinstance(self.verdict, Allowed) or not self.enforced

    @property
    def identity(self) -> Allowed | None:
        """Who calls, for the application; None where the call was not verified and allowed, also in Audit."""
        return self.verdict if isinstance(self.verdict, Allowed) else None


@dataclass(frozen=True, slots=True)
class Presented:
    """What came in the credential's header: its value, None where it was absent, or why it cannot be told."""

    value: str | None
    problem: str | None = None


# As they came: names and values as bytes, in any case, twins and all.
Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class RestCall:
    """A REST call as received: the method as sent, the path not decoded and without its query."""

    method: str
    path: str


class Guard(Interface):
    """Who decides for a server."""

    @property
    def header(self) -> str:
        """The name of the header that holds the credential, in lower case."""

    def decide(self, headers: Headers, call: RestCall) -> Decision:
        """Decide about one call, now."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A key that may fit, with its link; the link's rules only where it is a REST link."""

    entry: LinkEntry
    key: KeyEntry
    allow: tuple[RestRule, ...] | None
    cap: tuple[RestRule, ...] | None


@dataclass(frozen=True, slots=True)
class VerifierIndex:
    """A verifier, its keys by kid; a kid may stand twice, then the hash tells whose key it is."""

    mode: Mode
    header: str
    candidates: dict[str, tuple[_Candidate, ...]]


# Also what an empty folder means.
_NOTHING = VerifierIndex(mode=Mode.ENFORCE, header=DEFAULT_HEADER, candidates={})


def normalise_header(name: str) -> str:
    """Answer a header's name in lower case with `-` for `_`: what CGI and WSGI cannot tell apart is one header."""
    return name.lower().replace("_", "-")


def read_presented(headers: Headers, name: str) -> Presented:
    """Read the credential's header, once and in its own spelling, or say why that is not possible."""
    spelled = name.lower()
    wanted = normalise_header(name)
    found = [(key, value) for key, value in headers if normalise_header(key.decode("latin-1")) == wanted]
    if not found:
        return Presented(None)
    if len(found) > 1:
        return Presented(None, "the credential's header came more than once")
    [(key, value)] = found
    if key.decode("latin-1").lower() != spelled:
        return Presented(None, "the credential's header came in a spelling that other programs read as another header")
    return Presented(value.decode("latin-1"))


def plan_index(verifier: Verifier) -> VerifierIndex:
    """Answer the verifier, its keys by kid."""
    candidates: dict[str, tuple[_Candidate, ...]] = {}
    for entry in verifier.links:
        allow, cap = _rest_rules(entry.allow), _rest_rules(entry.cap)
        for key in entry.keys:
            candidates[key.kid] = (*candidates.get(key.kid, ()), _Candidate(entry, key, allow, cap))
    return VerifierIndex(verifier.mode, verifier.header.lower(), candidates)


def _rest_rules(rules: tuple[Rule, ...] | None) -> tuple[RestRule, ...] | None:
    return None if rules is None else tuple(rule for rule in rules if isinstance(rule, RestRule))


def decide(index: VerifierIndex, headers: Headers, call: RestCall, *, now: dt.datetime) -> Decision:
    """Decide about a REST call: who calls, then whether the link's rules and the policy's cap allow it.

    `now` is aware of its time zone.
    """
    found = _authenticate(index, read_presented(headers, index.header), now)
    verdict = found if isinstance(found, Refused) else _authorise(found, call)
    return Decision(verdict, enforced=index.mode is not Mode.AUDIT, header=index.header)


def _authenticate(index: VerifierIndex, presented: Presented, now: dt.datetime) -> _Candidate | Refused:
    if presented.value is None:
        return _unknown(presented.problem or "no credential came")
    try:
        key = parse_key(presented.value)
    except MalformedKeyError as error:
        return _unknown(f"the credential is {error}")
    found = _find(index, key)
    if found is None:
        return _unknown("no link to this server has that key")
    if found.key.not_after is not None and now >= found.key.not_after:
        return _unknown("the key has expired")
    return found


def _find(index: VerifierIndex, key: ApiKey) -> _Candidate | None:
    digest = key.sha256
    for candidate in index.candidates.get(key.kid, ()):
        if hmac.compare_digest(candidate.key.sha256.encode(), digest.encode()):
            return candidate
    return None


def _authorise(found: _Candidate, call: RestCall) -> Allowed | Refused:
    entry, kid = found.entry, found.key.kid
    if entry.protocol is not Protocol.REST:
        return Refused(Code.PERMISSION_DENIED, f"the link is for {entry.protocol}, not for REST", entry.link, kid)
    try:
        request = RestRequest(call.method, parse_path(call.path))
    except RefusedPathError as error:
        return Refused(Code.PERMISSION_DENIED, f"the path is refused: {error}", entry.link, kid)
    if not allows_rest(found.allow, request):
        return Refused(Code.PERMISSION_DENIED, "the link's rules do not allow it", entry.link, kid)
    if not allows_rest(found.cap, request):
        return Refused(Code.PERMISSION_DENIED, "the server's policy does not allow it", entry.link, kid)
    return Allowed(entry.link, entry.uid, kid)


def _unknown(reason: str) -> Refused:
    return Refused(Code.INVALID_SERVICE_AUTH, reason)


def observe_index(folder: Path) -> VerifierIndex:
    """Read the verifier of a folder; one without shards refuses every call. Raises VerifierError, OSError."""
    shards = [path.read_text(encoding="utf-8") for path in sorted(folder.iterdir()) if path.match(_SHARDS)]
    return plan_index(parse_verifier(shards)) if shards else _NOTHING


class VerifierFiles:
    """The verifier in a folder, `/etc/servicelink/verifier/<service>` in a Pod, followed as it changes.

    Until there was something to read, and while the folder is empty, every call is refused; while what is there is not
    understood, the last good verifier decides. `clock` is monotonic seconds, `now` the aware time of day.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._files = SwappedFolder(Path(directory), observe_index, pattern=_SHARDS, clock=clock)
        self._now = now

    @property
    def problem(self) -> str | None:
        """Why the newest files could not be taken; None when they were."""
        return self._files.problem

    @property
    def header(self) -> str:
        """The name of the header that holds the credential, in lower case."""
        return self._index().header

    def decide(self, headers: Headers, call: RestCall) -> Decision:
        """Decide about a REST call by the newest good verifier."""
        return decide(self._index(), headers, call, now=self._now())

    def _index(self) -> VerifierIndex:
        return self._files.current() or _NOTHING


class SharedKeys:
    """One key for all callers, or several while it is being changed; always enforced.

    Raises ValueError for no keys and for an empty one, which everybody would have.
    """

    header = DEFAULT_HEADER

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = tuple(key.encode() for key in keys)
        if not self._keys or not all(self._keys):
            raise ValueError("at least one shared key is needed, and no empty one")

    def decide(self, headers: Headers, call: RestCall) -> Decision:  # noqa: ARG002 - a guard is asked about a call
        """Decide about a call: any, from whoever has a key."""
        return Decision(self._judge(read_presented(headers, self.header)), enforced=True, header=self.header)

    def _judge(self, presented: Presented) -> Allowed | Refused:
        if presented.value is None:
            return _unknown(presented.problem or "no credential came")
        given = presented.value.encode("latin-1")
        # Every key is compared, so that the time taken does not tell which one was nearly right.
        fits = [hmac.compare_digest(key, given) for key in self._keys]
        return Allowed(SHARED_KEY, "", "") if any(fits) else _unknown("the credential is no shared key")
