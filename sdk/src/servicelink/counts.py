"""Counts of decisions, by link, kid and code; bounded, since a process outlives many keys."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType

from servicelink.verify import Allowed, Code, Decision

# Different rows per outcome; a server has at most some hundred links with two keys each.
MAX_ROWS = 4096
OTHERS = "(others)"


@dataclass(frozen=True, slots=True)
class Counted:
    """What a number counts: link and kid (None where no credential was verified) and the code (None: accepted)."""

    link: str | None
    kid: str | None
    code: Code | None


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of calls since the start: let through as verified, refused, and let through though not allowed (Audit).

    Past 4096 rows each, further ones are counted under the link "(others)".
    """

    accepted: Mapping[Counted, int]
    refused: Mapping[Counted, int]
    would_refuse: Mapping[Counted, int]


class _Outcome(Enum):
    ACCEPTED = auto()
    REFUSED = auto()
    WOULD_REFUSE = auto()


class Tally:
    """Counts decisions; thread-safe."""

    def __init__(self, *, max_rows: int = MAX_ROWS) -> None:
        self._max_rows = max_rows
        self._lock = threading.Lock()
        self._rows: dict[_Outcome, Counter[Counted]] = {outcome: Counter() for outcome in _Outcome}

    def add(self, decision: Decision) -> None:
        """Count one decision."""
        verdict = decision.verdict
        row = Counted(verdict.link, verdict.kid, None if isinstance(verdict, Allowed) else verdict.code)
        with self._lock:
            rows = self._rows[_outcome(decision)]
            if row not in rows and len(rows) >= self._max_rows:
                row = Counted(OTHERS, None, row.code)
            rows[row] += 1

    def counts(self) -> Counts:
        """Answer the numbers as they are now."""
        with self._lock:
            accepted, refused, would = (MappingProxyType(dict(self._rows[outcome])) for outcome in _Outcome)
        return Counts(accepted, refused, would)


def _outcome(decision: Decision) -> _Outcome:
    if isinstance(decision.verdict, Allowed):
        return _Outcome.ACCEPTED
    return _Outcome.REFUSED if decision.enforced else _Outcome.WOULD_REFUSE
