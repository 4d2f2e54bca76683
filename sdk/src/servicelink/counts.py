"""Counts of decisions, by link, kid and code; bounded, since a process outlives many keys."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from servicelink import forks
from servicelink.verify import Allowed, Code, Decision

# Different rows per outcome; a server has at most some hundred links with two keys each.
MAX_ROWS = 4096
OTHERS = "(others)"
_Row: TypeAlias = tuple[str | None, str | None, Code | None]
# Each number in a list, so that a call looks for its row once.
_Rows: TypeAlias = dict[_Row, list[int]]


@dataclass(frozen=True, slots=True)
class Counted:
    """What a number counts: link and kid (None where no credential was verified) and the code (None: accepted)."""

    link: str | None
    kid: str | None
    code: Code | None


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of calls of this process: let through as verified, refused, and let through though not allowed (Audit).

    Past 4096 rows each, further ones are counted under the link "(others)".
    """

    accepted: Mapping[Counted, int]
    refused: Mapping[Counted, int]
    would_refuse: Mapping[Counted, int]


class Tally:
    """Counts decisions; thread-safe. A forked child begins at zero."""

    def __init__(self, *, max_rows: int = MAX_ROWS) -> None:
        self._max_rows = max_rows
        self._lock = forks.Lock()
        self.renew()
        forks.renew_in_children(self)

    def renew(self) -> None:
        """Begin at zero."""
        # Plain tuples of what a `Counted` says: they hash without running Python.
        self._accepted: _Rows = {}
        self._refused: _Rows = {}
        self._would_refuse: _Rows = {}

    def add(self, decision: Decision) -> None:
        """Count one decision."""
        verdict = decision.verdict
        if isinstance(verdict, Allowed):
            rows = self._accepted
            row: _Row = verdict.link, verdict.kid, None
        else:
            rows = self._refused if decision.enforced else self._would_refuse
            row = verdict.link, verdict.kid, verdict.code
        with self._lock.inner:
            number = rows.get(row) or self._open(rows, row)
            number[0] += 1

    def _open(self, rows: _Rows, row: _Row) -> list[int]:
        if len(rows) >= self._max_rows:
            row = OTHERS, None, row[2]
        return rows.setdefault(row, [0])

    def counts(self) -> Counts:
        """Answer the numbers as they are now."""
        with self._lock:
            found = [
                {Counted(*row): number for row, (number,) in rows.items()}
                for rows in (self._accepted, self._refused, self._would_refuse)
            ]
        return Counts(*map(MappingProxyType, found))
