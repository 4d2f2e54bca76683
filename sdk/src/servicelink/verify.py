"""Deciding about a call: its key or certificate against the verifier's files, then the link's rules.

`decide` is pure; `VerifierFiles` keeps the newest verifier of a folder for it, `SharedKeys` is what stands in where
there is no operator. All that could go wrong refuses: no files, files of two revisions, a path with two readings. Light
on purpose (the standard library and the contract), since authorizers and servers of every kind stand on it.
"""

import datetime as dt
import hmac
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

from servicelink.folder import SwappedFolder
from servicelink_contract.binding import DEFAULT_HEADER
from servicelink_contract.key import ApiKey, MalformedKeyError, parse_key
from servicelink_contract.paths import RefusedPathError, parse_path
from servicelink_contract.rules import (
    GrpcRequest,
    Protocol,
    RestRequest,
    allows_graphql,
    allows_grpc,
    allows_rest,
)
from servicelink_contract.verifier import KeyEntry, LinkEntry, Mode, Verifier, parse_verifier

# The link's name where one key is shared by all callers.
SHARED_KEY = "shared key"
_SHARDS = "shard-*.json"
# gRPC over HTTP/2, "Path": nothing is decoded there, so nothing else can mean the same method.
_RPC_PATH = re.compile(r"/([A-Za-z0-9_.]+)/([A-Za-z0-9_]+)", re.ASCII)


class Code(StrEnum):
    """Why a call is refused, as callers see it."""

    INVALID_SERVICE_AUTH = "INVALID_SERVICE_AUTH"
    PERMISSION_DENIED = "PERMISSION_DENIED"


@dataclass(frozen=True, slots=True)
class Allowed:
    """A call that may pass: `link` is namespace/name, `uid` the link's, `kid` that of the key it came with.

    With a certificate `kid` is its serial number in hexadecimal digits. With a shared key `link` is "shared key", and
    `uid` and `kid` are empty.
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


_ABSENT = Presented(None)
# As they came: names and values as bytes, in any case, twins and all.
Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class RestCall:
    """A REST call as received: the method as sent, the path not decoded and without its query."""

    method: str
    path: str


@dataclass(frozen=True, slots=True)
class RpcCall:
    """A gRPC call as received: its path, which is `/<service>/<method>`."""

    path: str


Call = RestCall | RpcCall


@dataclass(frozen=True, slots=True)
class Peer:
    """What the certificate says that a client proved to have, read by whoever holds the connection.

    `uris` are those among its subject alternative names, `serial` its number in hexadecimal digits; valid from
    `not_before` until `not_after` (aware times). `problem` says why it is not trusted now, also where it was when the
    connection began: the root that vouched for it may be gone.
    """

    uris: tuple[str, ...]
    serial: str
    not_before: dt.datetime
    not_after: dt.datetime
    problem: str | None = None


class Guard(Interface):
    """Who decides for a server."""

    @property
    def header(self) -> str:
        """The name of the header that holds the credential, in lower case."""

    def decide(self, headers: Headers, call: Call, peer: Peer | None = None) -> Decision:
        """Decide about one call, now; `peer` is the client's certificate, None where it proved none."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A key that may fit, with its link."""

    entry: LinkEntry
    key: KeyEntry


@dataclass(frozen=True, slots=True)
class _Verified:
    """A link that has proved who it is, and by what."""

    entry: LinkEntry
    kid: str


@dataclass(frozen=True, slots=True)
class VerifierIndex:
    """A verifier, its keys by kid and its links by identity.

    A kid may stand twice, then the hash tells whose key it is. So may an identity, of a link that was made anew while
    the old one's entry is held.
    """

    mode: Mode
    header: str
    candidates: dict[str, tuple[_Candidate, ...]]
    identities: dict[str, tuple[LinkEntry, ...]]


# Also what an empty folder means.
_NOTHING = VerifierIndex(mode=Mode.ENFORCE, header=DEFAULT_HEADER, candidates={}, identities={})


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
    """Answer the verifier, its keys by kid and its links by identity."""
    candidates: dict[str, tuple[_Candidate, ...]] = {}
    identities: dict[str, tuple[LinkEntry, ...]] = {}
    for entry in verifier.links:
        for key in entry.keys:
            candidates[key.kid] = (*candidates.get(key.kid, ()), _Candidate(entry, key))
        if entry.identity is not None:
            identities[entry.identity] = (*identities.get(entry.identity, ()), entry)
    return VerifierIndex(verifier.mode, verifier.header.lower(), candidates, identities)


def decide(
    index: VerifierIndex, headers: Headers, call: Call, *, now: dt.datetime, peer: Peer | None = None
) -> Decision:
    """Decide about a call: who calls, then whether the link's rules and the policy's cap allow it.

    A key decides where one came, right or wrong; the certificate where none did. `now` is aware of its time zone.
    """
    presented = read_presented(headers, index.header)
    if peer is None or presented != _ABSENT:
        found = _authenticate(index, presented, now)
        verdict = found if isinstance(found, Refused) else _authorise(found, call)
    else:
        verdict = _judge_peer(index, peer, call, now)
    return Decision(verdict, enforced=index.mode is not Mode.AUDIT, header=index.header)


def _authenticate(index: VerifierIndex, presented: Presented, now: dt.datetime) -> _Verified | Refused:
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
    return _Verified(found.entry, found.key.kid)


def _judge_peer(index: VerifierIndex, peer: Peer, call: Call, now: dt.datetime) -> Allowed | Refused:
    if peer.problem is not None:
        return _unknown(peer.problem)
    if not peer.not_before <= now < peer.not_after:
        return _unknown("the certificate is not valid now")
    if len(peer.uris) != 1:
        # X509-SVID, section 2: exactly one URI.
        return _unknown("the certificate does not name one identity")
    entries = index.identities.get(peer.uris[0], ())
    if not entries:
        return _unknown("no link to this server has that identity")
    verified = [_Verified(entry, peer.serial) for entry in entries if not _is_retired(entry, peer)]
    if not verified:
        return _unknown("the certificate was replaced or revoked")
    verdicts = [_authorise(one, call) for one in verified]
    return next((one for one in verdicts if isinstance(one, Allowed)), verdicts[0])


def _is_retired(entry: LinkEntry, peer: Peer) -> bool:
    return entry.issued_after is not None and peer.not_before <= entry.issued_after


def _find(index: VerifierIndex, key: ApiKey) -> _Candidate | None:
    digest = key.sha256
    for candidate in index.candidates.get(key.kid, ()):
        if hmac.compare_digest(candidate.key.sha256.encode(), digest.encode()):
            return candidate
    return None


def _authorise(found: _Verified, call: Call) -> Allowed | Refused:
    entry = found.entry
    problem = _find_denial(entry, call)
    if problem is not None:
        return Refused(Code.PERMISSION_DENIED, problem, entry.link, found.kid)
    return Allowed(entry.link, entry.uid, found.kid)


# What differs between protocols: how a call is read, and what its rules say.
_PROTOCOLS = {RestCall: Protocol.REST, RpcCall: Protocol.GRPC}
_ALLOWS: dict[Protocol, Callable[[Any, Any], bool]] = {
    Protocol.REST: allows_rest,
    Protocol.GRPC: allows_grpc,
    Protocol.GRAPHQL: allows_graphql,
}


def _find_denial(entry: LinkEntry, call: Call) -> str | None:
    """Answer why a link may not make a call, None where it may."""
    protocol = _PROTOCOLS[type(call)]
    if entry.protocol is not protocol:
        return f"the link is for {entry.protocol}, not for {protocol}"
    try:
        request = _parse(call)
    except RefusedPathError as error:
        return f"the path is refused: {error}"
    allows = _ALLOWS[protocol]
    if not allows(entry.allow, request):
        return "the link's rules do not allow it"
    if not allows(entry.cap, request):
        return "the server's policy does not allow it"
    return None


def _parse(call: Call) -> RestRequest | GrpcRequest:
    if isinstance(call, RestCall):
        return RestRequest(call.method, parse_path(call.path))
    found = _RPC_PATH.fullmatch(call.path)
    if found is None:
        raise RefusedPathError("it does not name a service and a method")
    return GrpcRequest(found[1], found[2])


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

    def decide(self, headers: Headers, call: Call, peer: Peer | None = None) -> Decision:
        """Decide about a call by the newest good verifier."""
        return decide(self._index(), headers, call, now=self._now(), peer=peer)

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

    def decide(self, headers: Headers, call: Call, peer: Peer | None = None) -> Decision:  # noqa: ARG002 - a guard's
        """Decide about a call: any, from whoever has a key; no certificate is one."""
        return Decision(self._judge(read_presented(headers, self.header)), enforced=True, header=self.header)

    def _judge(self, presented: Presented) -> Allowed | Refused:
        if presented.value is None:
            return _unknown(presented.problem or "no credential came")
        given = presented.value.encode("latin-1")
        # Every key is compared, so that the time taken does not tell which one was nearly right.
        fits = [hmac.compare_digest(key, given) for key in self._keys]
        return Allowed(SHARED_KEY, "", "") if any(fits) else _unknown("the credential is no shared key")
