"""What stands before a gRPC server: which calls are checked, who decides, and what is told to those refused.

A key is in the metadata, so such a call is decided before its messages are read. A certificate is known only where a
call is served: one that came with neither is refused at once, or there, before any message of it is waited for.
"""

import math
from collections.abc import Iterable, Mapping

from grpc import StatusCode

from servicelink import context
from servicelink.calls.limits import RateLimit
from servicelink.context import Incoming
from servicelink.counts import Counts
from servicelink.door import Door
from servicelink.grpc.exchange import CODE_KEY, PUSHBACK_KEY
from servicelink.grpc.metadata import MetadataHeads, MetadataPair, metadata_names
from servicelink.grpc.server_peers import Peers
from servicelink.memo import Memo
from servicelink.refusals import MESSAGES, log_refusal
from servicelink.verify import Allowed, Code, Decision, Desk, Peer, Refused
from servicelink_contract.paths import MalformedPatternError

_LONGEST = 256
HEALTH = "grpc.health.v1.Health/*"
# In servers of threads a client that watches and reads nothing would hold up all who ask: grpcio's service keeps its
# lock while it sends.
HEALTH_CHECK = "grpc.health.v1.Health/Check"
_STATUS = {
    Code.INVALID_SERVICE_AUTH: StatusCode.UNAUTHENTICATED,
    Code.PERMISSION_DENIED: StatusCode.PERMISSION_DENIED,
    Code.RATE_LIMITED: StatusCode.RESOURCE_EXHAUSTED,
}

Refusal = tuple[StatusCode, str, tuple[tuple[str, str], ...]]


def render_rpc_refusal(refused: Refused) -> Refusal:
    """Answer status, details and trailing metadata for a caller that is refused."""
    trailing = [(CODE_KEY, refused.code.value)]
    if refused.retry_after > 0:
        # gRPC proposal A6, "Server Pushback".
        trailing.append((PUSHBACK_KEY, str(math.ceil(refused.retry_after * 1000))))
    return _STATUS[refused.code], MESSAGES[refused.code], tuple(trailing)


class Arrival(MetadataHeads):
    """A call that came. `is_decided` says whether it may be served; if not yet, `judge_peer` decides.

    `refused` says why it is not served, None where it is; `link` who calls, None where nobody is verified.
    """

    __slots__ = ("desk", "door", "is_decided", "link", "path", "refused")

    door: "GrpcDoor"
    desk: Desk
    path: str
    is_decided: bool
    link: Allowed | None
    refused: Refused | None

    def judge_peer(self, proved: Mapping[str, Iterable[bytes]]) -> Refused | None:
        """Decide by what the connection proved (`auth_context()`); answers the refusal, None where it is served."""
        self.door.judge(self, self.door.peers.read(proved, self.desk.trust))
        return self.refused

    def incoming(self, seconds_left: float | None) -> Incoming:
        """Answer what is carried on from it, with its deadline (None: it has none)."""
        return context.defer_incoming(self.link, self.goes_on, seconds_left)


class GrpcDoor:
    """One server's checks; raises MalformedPatternError, LinkConfigurationError."""

    def __init__(self, service: str | None, *, exempt: Iterable[str], rate_limit: RateLimit | None) -> None:
        known = frozenset(_parse_exempt(text) for text in exempt)
        self._exempt: Memo[str, bool] = Memo(
            lambda path: path in known or path[: path.rfind("/") + 1] in known, wants=lambda path: len(path) <= _LONGEST
        )
        # What keeps accounts is the same for all protocols; which paths of HTTP are open is not asked here.
        self._door = Door(service, exempt=(), protect=(), rate_limit=rate_limit)
        self._guard = self._door.guard
        self._names = metadata_names(self._guard.header)
        self.peers = Peers(self._guard.now)

    def counts(self) -> Counts:
        """Answer what was decided so far."""
        return self._door.counts()

    def receive(self, path: str, metadata: Iterable[MetadataPair]) -> Arrival:
        """Take a call in, and decide about it now if it came with a key, or if no certificate may be there."""
        desk = self._guard.current()
        arrival: Arrival = Arrival()
        names = self._names
        if names.credential != desk.header:
            names = self._names = metadata_names(desk.header)
        names.read(metadata, arrival)
        arrival.path, arrival.desk, arrival.door = path, desk, self
        arrival.link = arrival.refused = None
        if self._exempt[path]:
            arrival.is_decided = True
        elif arrival.credential is not None or arrival.problem is not None or not desk.trust:
            self.judge(arrival, None)
        else:
            arrival.is_decided = False
        return arrival

    def judge(self, arrival: Arrival, peer: Peer | None) -> None:
        """Decide about a call, and take note of it."""
        known = arrival.desk.authenticate(arrival, peer, self._guard.now)
        decision = self._door.settle(known if isinstance(known, Decision) else known.decide_rpc(arrival.path))
        arrival.is_decided = True
        verdict = decision.verdict
        if isinstance(verdict, Allowed):
            arrival.link = verdict
        elif decision.enforced:
            log_refusal(verdict, arrival.path.removeprefix("/"), arrival.goes_on)
            arrival.refused = verdict


def _parse_exempt(text: str) -> str:
    """Answer the path that is meant, or how the paths of a service begin; raises MalformedPatternError."""
    service, slash, method = text.partition("/")
    is_name = all(part.isidentifier() and part.isascii() for part in service.split("."))
    if not slash or not is_name or not (method == "*" or (method.isidentifier() and method.isascii())):
        raise MalformedPatternError(f"{text!r} is no package.Service/Method and no package.Service/*")
    return f"/{service}/" if method == "*" else f"/{text}"
