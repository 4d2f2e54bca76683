"""One generation of a server's verifier: who is known by which key or certificate, and what was decided for them."""

import base64
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from servicelink.headers import HeaderNames, Heads
from servicelink.memo import Memo
from servicelink.verify.verdicts import Allowed, Code, Decision, Now, Peer, Refused
from servicelink_contract.binding import DEFAULT_HEADER
from servicelink_contract.key import MalformedKeyError, parse_key
from servicelink_contract.paths import RefusedPathError, parse_path
from servicelink_contract.rules import (
    GraphQLRequest,
    GrpcRequest,
    Protocol,
    RestRequest,
    allows_graphql,
    allows_grpc,
    allows_rest,
)
from servicelink_contract.verifier import KeyEntry, LinkEntry, Mode, Verifier

_LONGEST_PATH = 256
_LONGEST_METHOD = 16
_MOST_PEERS = 1024
# gRPC over HTTP/2, "Path": nothing is decoded there, so nothing else can mean the same method.
_RPC_PATH = re.compile(r"/([A-Za-z0-9_.]+)/([A-Za-z0-9_]+)", re.ASCII)
_RPC = "RPC"
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----", re.ASCII)
_ALLOWS: dict[Protocol, Callable[[Any, Any], bool]] = {
    Protocol.REST: allows_rest,
    Protocol.GRPC: allows_grpc,
    Protocol.GRAPHQL: allows_graphql,
}


class KnownLink:
    """A link that proved who it is, and by what: `kid` names it, `key` is there where it was a key.

    It has two entries where it was made anew while the old one's is held; a call passes that one of them allows.
    """

    __slots__ = ("_desk", "entries", "key", "kid", "wants_body")

    def __init__(
        self, desk: "VerifierIndex", entries: tuple[LinkEntry, ...], kid: str, key: KeyEntry | None = None
    ) -> None:
        self._desk = desk
        self.entries = entries
        self.kid = kid
        self.key = key
        self.wants_body = any(entry.protocol is Protocol.GRAPHQL for entry in entries)

    @property
    def identity(self) -> Allowed:
        """Who it is, which does not say what it may do; of two entries the first."""
        entry = self.entries[0]
        return Allowed(entry.link, entry.uid, self.kid)

    def decide(self, method: str, path: str) -> Decision:
        """Decide about a REST call; remembered by method and path."""
        return self._desk.decisions[self, method, path]

    def decide_rpc(self, path: str) -> Decision:
        """Decide about a gRPC call; remembered by its path."""
        return self._desk.rpc_decisions[self, _RPC, path]

    def decide_graphql(self, operations: Iterable[GraphQLRequest]) -> Decision:
        """Decide about GraphQL operations, all of which must be allowed."""
        return self._judge(Protocol.GRAPHQL, tuple(operations))

    def judge(self, method: str, path: str) -> Decision:
        """Decide about a REST call, anew."""
        try:
            return self._judge(Protocol.REST, (RestRequest(method, parse_path(path)),))
        except RefusedPathError as error:
            return self.refuse(f"the path is refused: {error}")

    def judge_rpc(self, path: str) -> Decision:
        """Decide about a gRPC call, anew."""
        found = _RPC_PATH.fullmatch(path)
        if found is None:
            return self.refuse("the path does not name a service and a method")
        return self._judge(Protocol.GRPC, (GrpcRequest(found[1], found[2]),))

    def refuse(self, reason: str) -> Decision:
        """Answer that a call of its is denied."""
        return self._desk.decision(Refused(Code.PERMISSION_DENIED, reason, self.entries[0].link, self.kid))

    def _judge(self, protocol: Protocol, requests: tuple[Any, ...]) -> Decision:
        problems = [_find_denial(entry, protocol, requests) for entry in self.entries]
        if None not in problems:
            return self.refuse(str(problems[0]))
        entry = self.entries[problems.index(None)]
        return self._desk.decision(Allowed(entry.link, entry.uid, self.kid))


def _find_denial(entry: LinkEntry, protocol: Protocol, requests: tuple[Any, ...]) -> str | None:
    """Answer why a link may not ask all of this, None where it may."""
    if entry.protocol is not protocol:
        return f"the link is for {entry.protocol}, not for {protocol}"
    allows = _ALLOWS[protocol]
    if not all(allows(entry.allow, request) for request in requests):
        return "the link's rules do not allow it"
    if not all(allows(entry.cap, request) for request in requests):
        return "the server's policy does not allow it"
    return None


_Asked = tuple[KnownLink, str, str]


def _decide(asked: _Asked) -> Decision:
    known, method, path = asked
    return known.judge(method, path)


def _decide_rpc(asked: _Asked) -> Decision:
    known, _, path = asked
    return known.judge_rpc(path)


def _is_short(asked: _Asked) -> bool:
    return len(asked[2]) <= _LONGEST_PATH and len(asked[1]) <= _LONGEST_METHOD


@dataclass(slots=True, eq=False)
class VerifierIndex:
    """One verifier, its keys by their SHA-256, its links by identity, and what was decided under it.

    A key is found by its hash, so that the time which that takes says nothing of how much of a guess was right.
    """

    mode: Mode
    header: str
    graphql_path: str
    names: HeaderNames
    # PEM, and the SHA-256 of each root in it.
    trust: str = ""
    roots: frozenset[str] = frozenset()
    keys: dict[bytes, KnownLink] = field(default_factory=dict)
    identities: dict[str, tuple[LinkEntry, ...]] = field(default_factory=dict)
    decisions: Memo[_Asked, Decision] = field(default_factory=lambda: Memo(_decide, wants=_is_short))
    rpc_decisions: Memo[_Asked, Decision] = field(default_factory=lambda: Memo(_decide_rpc, wants=_is_short))
    _peers: Memo[Peer, KnownLink | Decision] = field(init=False)

    def __post_init__(self) -> None:
        self._peers = Memo(self._judge_peer, wants=lambda _: True, most=_MOST_PEERS)

    def authenticate(self, heads: Heads, peer: Peer | None, now: Now) -> KnownLink | Decision:
        """Answer who calls: by the key where one came, right or wrong, and by the certificate where none did."""
        presented = heads.credential
        if presented is None:
            return self._without_key(heads, peer, now)
        found = self.keys.get(sha256(presented).digest())
        if found is None:
            return self.unknown(_wrong(presented))
        assert found.key is not None
        not_after = found.key.not_after
        if not_after is not None and now() >= not_after:
            return self.unknown("the key has expired")
        return found

    def decision(self, verdict: Allowed | Refused) -> Decision:
        """Answer a verdict as a decision of this verifier."""
        return Decision(verdict, enforced=self.mode is not Mode.AUDIT, header=self.header)

    def unknown(self, reason: str) -> Decision:
        """Answer that nobody known calls."""
        return self.decision(Refused(Code.INVALID_SERVICE_AUTH, reason))

    def _without_key(self, heads: Heads, peer: Peer | None, now: Now) -> KnownLink | Decision:
        if peer is None or heads.problem is not None:
            return self.unknown(heads.problem or "no credential came")
        if not peer.not_before <= now() < peer.not_after:
            return self.unknown("the certificate is not valid now")
        return self._peers[peer]

    def _judge_peer(self, peer: Peer) -> KnownLink | Decision:
        if peer.problem is not None:
            return self.unknown(peer.problem)
        if not peer.roots <= self.roots:
            return self.unknown("the root that vouched for the certificate is not trusted any more")
        if len(peer.uris) != 1:
            # X509-SVID, section 2: exactly one URI.
            return self.unknown("the certificate does not name one identity")
        entries = self.identities.get(peer.uris[0], ())
        if not entries:
            return self.unknown("no link to this server has that identity")
        valid = tuple(entry for entry in entries if not _is_retired(entry, peer))
        if not valid:
            return self.unknown("the certificate was replaced or revoked")
        return KnownLink(self, valid, peer.serial)


def _is_retired(entry: LinkEntry, peer: Peer) -> bool:
    return entry.issued_after is not None and peer.not_before <= entry.issued_after


def _wrong(presented: bytes) -> str:
    """Say what is wrong with a credential that is nobody's, and never what it is."""
    try:
        parse_key(presented.decode("latin-1"))
    except MalformedKeyError as error:
        return f"the credential is {error}"
    return "no link to this server has that key"


def parse_roots(trust: str) -> frozenset[str]:
    """Answer the SHA-256 of every certificate of a bundle (RFC 7468), in hexadecimal digits; raises ValueError."""
    return frozenset(sha256(base64.b64decode(text, validate=False)).hexdigest() for text in _PEM.findall(trust))


def plan_index(verifier: Verifier) -> VerifierIndex:
    """Answer the verifier, its keys by their hashes and its links by identity."""
    header = verifier.header.lower()
    index = VerifierIndex(
        verifier.mode,
        header,
        verifier.graphql_path,
        HeaderNames(header),
        trust=verifier.trust,
        roots=parse_roots(verifier.trust),
    )
    for entry in verifier.links:
        for key in entry.keys:
            index.keys.setdefault(bytes.fromhex(key.sha256), KnownLink(index, (entry,), key.kid, key))
        if entry.identity is not None:
            index.identities[entry.identity] = (*index.identities.get(entry.identity, ()), entry)
    return index


# What an empty folder means.
NOTHING = VerifierIndex(Mode.ENFORCE, DEFAULT_HEADER, "/graphql", HeaderNames(DEFAULT_HEADER))
