"""What the API server wrote down of calls: which replica made each, what it could change, and when it came."""

import datetime as dt
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_READS = ("get", "list", "watch")
# Asked for as creations; nothing is stored.
_REVIEWS = ("selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews")


@dataclass(frozen=True, slots=True)
class Call:
    """One call: `what` is its resource, a subresource as `pods/exec`; `code` the HTTP status it was answered with."""

    verb: str
    what: str
    namespace: str
    name: str
    code: int
    agent: str
    dry_run: bool
    came: dt.datetime
    answered: dt.datetime

    @property
    def is_write(self) -> bool:
        """Whether it could change something; holding the Lease is not meant."""
        return self.verb not in _READS and not self.dry_run and self.what not in ("leases", *_REVIEWS)

    @property
    def succeeded(self) -> bool:
        """Whether it was carried out."""
        return self.code < 300

    def is_by(self, identity: str) -> bool:
        """Answer whether the replica of that name made it."""
        return self.agent.endswith(f" ({identity})")


def parse_calls(events: Iterable[dict[str, Any]]) -> tuple[Call, ...]:
    """Parse events of audit.k8s.io/v1, the earliest first."""
    return tuple(sorted(map(_parse, events), key=lambda call: call.came))


def count_issued(log: Path, since: int) -> int:
    """Answer how many Secrets were asked to be made since the audit log was that long."""
    with log.open() as lines:
        lines.seek(since)
        return sum('"verb":"create"' in line and '"resource":"secrets"' in line for line in lines)


def wait_issued(log: Path, since: int, count: int) -> None:
    """Wait until so many were, and return that moment: what is to happen in the middle of it has no time to lose."""
    until = time.monotonic() + 30
    while count_issued(log, since) < count:
        assert time.monotonic() < until, "no operator issues anything"


def acquired_at(calls: Iterable[Call], identity: str) -> dt.datetime:
    """Answer when the API server first stored the Lease for a replica that did not lead before these calls."""
    holds = (call for call in calls if call.what == "leases" and call.verb not in _READS and call.succeeded)
    return next(call.answered for call in holds if call.is_by(identity))


def writes_after(calls: Iterable[Call], identity: str, moment: dt.datetime) -> list[Call]:
    """Answer what a replica tried to write after a moment."""
    return [call for call in calls if call.is_write and call.is_by(identity) and call.came > moment]


def _parse(event: dict[str, Any]) -> Call:
    about = event.get("objectRef", {})
    return Call(
        verb=event["verb"],
        what="/".join(about[part] for part in ("resource", "subresource") if part in about),
        namespace=about.get("namespace", ""),
        name=about.get("name", ""),
        code=event.get("responseStatus", {}).get("code", 0),
        agent=event.get("userAgent", ""),
        dry_run="dryRun=All" in event["requestURI"],
        came=dt.datetime.fromisoformat(event["requestReceivedTimestamp"]),
        answered=dt.datetime.fromisoformat(event["stageTimestamp"]),
    )
