"""What stands before a server that is called over HTTP: which calls are checked, who decides, how often, who counts.

ASGI and WSGI hand it what they know of a request and do what it says. Paths are judged undecoded, since decoding loses
what tells two readings apart; applications route by the decoded path, so the two must agree.
"""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from urllib.parse import quote

from servicelink.calls.limits import Pace, RateLimit
from servicelink.counts import MAX_ROWS, Counts, Tally
from servicelink.graphql.asked import LARGEST_BODY, TOO_LARGE, HttpRequest
from servicelink.graphql.judge import judge, load
from servicelink.guard import observe_guard
from servicelink.headers import Heads
from servicelink.memo import Memo
from servicelink.verify import OVERRIDDEN, Allowed, Code, Decision, Desk, Guard, Known, Peer, Refused
from servicelink_contract.paths import PathPattern, RefusedPathError, matches, parse_path, parse_pattern

_PATH_CHARACTERS = "/:@!$&'()*+,;=~"
_LONGEST_PATH = 256
_LONGEST_LENGTH = 12


@dataclass(frozen=True, slots=True)
class PathReading:
    """A request's path: as it is judged, whether it is checked, and whether the application reads the same in it."""

    path: str
    is_checked: bool
    agrees: bool


class Rates:
    """How often each link may call. Thread-safe, and bounded as the counts are."""

    def __init__(self, limit: RateLimit, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._paces: dict[tuple[str, str], Pace] = {}

    def refuse(self, allowed: Allowed) -> Refused | None:
        """Take note of a call that is allowed; answers its refusal where the link calls too often."""
        key = allowed.link, allowed.uid
        pace = self._paces.get(key)
        if pace is None:
            if len(self._paces) >= MAX_ROWS:
                self._paces.clear()
            pace = self._paces.setdefault(key, Pace(self._limit))
        wait = pace.take(self._clock())
        if wait <= 0:
            return None
        return Refused(Code.RATE_LIMITED, "the link calls too often", allowed.link, allowed.kid, retry_after=wait)


class Door:
    """One server's checks; raises MalformedPatternError, LinkConfigurationError."""

    def __init__(
        self,
        service: str | None,
        *,
        exempt: Iterable[str],
        protect: Iterable[str],
        rate_limit: RateLimit | None,
    ) -> None:
        self._exempt = tuple(parse_pattern(text) for text in exempt)
        self._protect = tuple(parse_pattern(text) for text in protect)
        self._rates = None if rate_limit is None else Rates(rate_limit)
        self._tally = Tally()
        # What protects no path, as gRPC's door, is asked no GraphQL.
        self.guard: Guard = observe_guard(service, os.environ, load_graphql=load if self._protect else None)
        # Read now what is there, so that no call has to wait for it.
        self.guard.current()
        self._readings: Memo[tuple[bytes | None, str], PathReading] = Memo(self._read_path, wants=_is_short)

    def counts(self) -> Counts:
        """Answer what was decided so far."""
        return self._tally.counts()

    def read_path(self, raw: bytes | None, path: str) -> PathReading:
        """Read a path: undecoded (None: not known), and as the application will."""
        return self._readings[raw, path]

    def decide(
        self, desk: Desk, heads: Heads, method: str, reading: PathReading, *, peer: Peer | None = None
    ) -> Decision | Known:
        """Decide about a call; answers who calls where that depends on the body, for `judge_body`."""
        known = desk.authenticate(heads, peer, self.guard.now)
        if isinstance(known, Decision):
            return self.settle(known)
        if heads.overrides:
            return self.settle(known.refuse(OVERRIDDEN))
        if known.wants_body and reading.agrees and reading.path == desk.graphql_path:
            return self._before_body(known, heads)
        decision = known.decide(method, reading.path)
        if not reading.agrees and decision.identity is not None:
            decision = known.refuse("the path has two readings")
        if self._rates is not None:
            return self.settle(decision)
        # As `settle` does, with one call less: this is the way of every ordinary call.
        self._tally.add(decision)
        return decision

    def judge_body(self, known: Known, request: HttpRequest) -> Decision:
        """Decide about a GraphQL request of somebody known, whom `decide` let ask."""
        decision = judge(known, request)
        self._tally.add(decision)
        return decision

    def _before_body(self, known: Known, heads: Heads) -> Decision | Known:
        """Refuse what no body makes better, before any of it is read.

        Also by how often the link calls, as reading what it asks takes longer than all else, whatever comes of it.
        """
        if any(_is_too_large(value) for name, value in heads.kept if name.lower() == b"content-length"):
            return self.settle(known.refuse(TOO_LARGE))
        refused = None if self._rates is None else self._rates.refuse(known.identity)
        return known if refused is None else self.settle(replace(known.refuse(refused.reason), verdict=refused))

    def settle(self, decision: Decision) -> Decision:
        """Take note of a decision; answers it, or that the link calls too often."""
        if self._rates is not None and decision.identity is not None:
            refused = self._rates.refuse(decision.identity)
            if refused is not None:
                decision = replace(decision, verdict=refused)
        self._tally.add(decision)
        return decision

    def _read_path(self, seen: tuple[bytes | None, str]) -> PathReading:
        raw, decoded = seen
        # `raw_path` is optional (ASGI HTTP specification, 2.4), and some servers leave the query in.
        path = _quote(decoded) if raw is None else raw.split(b"?", 1)[0].decode("latin-1")
        try:
            segments = parse_path(path)
        except RefusedPathError:
            # What cannot be read is nobody's exemption; and where it is allowed, there are no rules it could pass.
            return PathReading(path, is_checked=True, agrees=True)
        agrees = decoded == "/" + "/".join(segments)
        exempt = agrees and (_any(self._exempt, segments) or not self._protects(segments))
        return PathReading(path, is_checked=not exempt, agrees=agrees)

    def _protects(self, segments: tuple[str, ...]) -> bool:
        # Frameworks route a path with a final slash as they do without it, so the slash must not open it.
        return _any(self._protect, segments) or (segments[-1:] == ("",) and _any(self._protect, segments[:-1]))


def _quote(decoded: str) -> str:
    # Bytes that are no UTF-8 come as surrogates (PEP 383), and must be refused, not raised for.
    return quote(decoded, safe=_PATH_CHARACTERS, errors="surrogateescape")


def _is_too_large(length: bytes) -> bool:
    # Not by int() alone, which refuses, and at some length raises for, what is no number.
    return not length.isdigit() or len(length) > _LONGEST_LENGTH or int(length) > LARGEST_BODY


def _is_short(seen: tuple[bytes | None, str]) -> bool:
    return len(seen[1]) <= _LONGEST_PATH and len(seen[0] or b"") <= _LONGEST_PATH


def _any(patterns: tuple[PathPattern, ...], segments: tuple[str, ...]) -> bool:
    return any(matches(pattern, segments) for pattern in patterns)
