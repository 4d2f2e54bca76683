"""What stands before a gRPC server: which calls are checked, who decides, and what is told to those refused.

A key is in the metadata, so such a call is decided before its messages are read. A certificate is known only where a
call is served; one that came with neither is refused at once, unless the verifier trusts any certificates.
"""

import math
from collections.abc import Iterable, Mapping

from grpc import StatusCode

from servicelink import context
from servicelink.calls.limits import RateLimit
from servicelink.context import TIMEOUT_HEADER, Incoming
from servicelink.counts import Counts
from servicelink.door import Door
from servicelink.grpc.exchange import CODE_KEY, PUSHBACK_KEY
from servicelink.grpc.metadata import MetadataPair, metadata_names
from servicelink.grpc.server_peers import Peers
from servicelink.headers import Heads
from servicelink.refusals import MESSAGES, log_refusal
from servicelink.verify import Allowed, Code, Decision, Desk, Peer, Refused
from servicelink_contract.paths import MalformedPatternError

HEALTH = "grpc.health.v1.Health/*"
_STATUS = {
    Code.INVALID_SERVICE_AUTH: StatusCode.UNAUTHENTICATED,
    Code.PERMISSION_DENIED: StatusCode.PERMISSION_DENIED,
    Code.RATE_LIMITED: StatusCode.RESOURCE_EXHAUSTED,
}
_TIMEOUT = TIMEOUT_HEADER.encode()

Refusal = tuple[StatusCode, str, tuple[tuple[str, str], ...]]


def render_rpc_refusal(refused: Refused) -> Refusal:
    """Answer status, details and trailing metadata for a caller that is refused."""
    trailing = [(CODE_KEY, refused.code.value)]
    if refused.retry_after > 0:
        # gRPC proposal A6, "Server Pushback".
        trailing.append((PUSHBACK_KEY, str(math.ceil(refused.retry_after * 1000))))
    return _STATUS[refused.code], MESSAGES[refused.code], tuple(trailing)


class Arrival:
    """A call that came. `is_decided` says whether it may be served; if not yet, `judge_peer` decides."""

    __slots__ = ("_desk", "_door", "_heads", "_link", "_path", "is_decided", "kept", "refused")

    def __init__(self, door: "GrpcDoor", desk: Desk, path: str, metadata: Iterable[MetadataPair]) -> None:
        self._door = door
        self._desk = desk
        self._path = path
        self._heads, self.kept = metadata_names(desk.header).read(metadata)
        self._link: Allowed | None = None
        self.refused: Refused | None = None
        self.is_decided = False

    def judge(self, peer: Peer | None) -> None:
        """Decide; afterwards `refused` says why it is not served, None where it is."""
        self.is_decided = True
        decision = self._door.decide(self._desk, self._heads, self._path, peer)
        verdict = decision.verdict
        if isinstance(verdict, Allowed):
            self._link = verdict
        elif decision.enforced:
            log_refusal(verdict)
            self.refused = verdict

    def judge_unless_certified(self) -> None:
        """Decide, unless a certificate may be there in place of a key."""
        heads = self._heads
        if heads.credential is not None or heads.problem is not None or not self._desk.trust:
            self.judge(None)

    def judge_peer(self, proved: Mapping[str, Iterable[bytes]]) -> Refused | None:
        """Decide by what the connection proved (`auth_context()`); answers the refusal, None where it is served."""
        self.judge(self._door.peers.read(proved, self._desk.trust))
        return self.refused

    def incoming(self, seconds_left: float | None) -> Incoming:
        """Answer what is carried on from it, with its deadline (None: it has none)."""
        carried = self._heads.carried
        if seconds_left is not None:
            carried.append((_TIMEOUT, b"%d" % (seconds_left * 1000)))
        return context.defer_incoming(self._link, carried)


class GrpcDoor:
    """One server's checks; raises MalformedPatternError, LinkConfigurationError."""

    def __init__(self, service: str | None, *, exempt: Iterable[str], rate_limit: RateLimit | None) -> None:
        self._exempt = frozenset(_parse_exempt(text) for text in exempt)
        # What keeps accounts is the same for all protocols; which paths of HTTP are open is not asked here.
        self._door = Door(service, exempt=(), protect=(), rate_limit=rate_limit)
        self._guard = self._door.guard
        self.peers = Peers(self._guard.now)

    def counts(self) -> Counts:
        """Answer what was decided so far."""
        return self._door.counts()

    def receive(self, path: str, metadata: Iterable[MetadataPair]) -> Arrival:
        """Take a call in, and decide about it where that can be done now."""
        arrival = Arrival(self, self._guard.current(), path, metadata)
        if path in self._exempt or path[: path.rfind("/") + 1] in self._exempt:
            arrival.is_decided = True
        else:
            arrival.judge_unless_certified()
        return arrival

    def decide(self, desk: Desk, heads: Heads, path: str, peer: Peer | None) -> Decision:
        """Decide about a call, and take note of it."""
        known = desk.authenticate(heads, peer, self._guard.now)
        return self._door.settle(known if isinstance(known, Decision) else known.decide_rpc(path))


def _parse_exempt(text: str) -> str:
    """Answer the path that is meant, or how the paths of a service begin; raises MalformedPatternError."""
    service, slash, method = text.partition("/")
    is_name = all(part.isidentifier() and part.isascii() for part in service.split("."))
    if not slash or not is_name or not (method == "*" or (method.isidentifier() and method.isascii())):
        raise MalformedPatternError(f"{text!r} is no package.Service/Method and no package.Service/*")
    return f"/{service}/" if method == "*" else f"/{text}"
