"""Reading CRD bodies: each reader notes a problem with its field path and goes on, so that all are found together.

The API server has checked bodies by the schema of the definitions; an older definition may still be installed, so what
is read here is checked again where a wrong value could do harm.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from servicelink_contract.rules import Protocol
from servicelink_contract.wire import Rule, parse_rules
from servicelink_core.api.durations import parse_duration

T = TypeVar("T")
Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong at a field path (`spec.rotation.overlap`), in words that say the value and the mend."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


@dataclass(frozen=True, slots=True)
class Invalid:
    """A body that cannot be parsed, with every problem; `name` is namespace/name."""

    name: str
    uid: str
    generation: int
    problems: tuple[Problem, ...]


@dataclass(slots=True)
class Reader:
    """Reads the fields below one path; problems of all readers of a body are in one list."""

    body: Body
    path: str
    problems: list[Problem] = field(default_factory=list)

    def below(self, name: str) -> "Reader":
        """Answer a reader of an object field; of an empty object where it is absent."""
        return Reader(self.take(name, dict, {}), f"{self.path}.{name}", self.problems)

    def below_each(self, name: str) -> list["Reader"]:
        """Answer a reader for each object of a list field."""
        found = self.take(name, list, [])
        return [Reader(item, f"{self.path}.{name}[{place}]", self.problems) for place, item in enumerate(found)]

    def take(self, name: str, kind: type[T], default: T) -> T:
        """Answer a field of that type, or the default where it is absent or null."""
        value = self.body.get(name)
        if value is None:
            return default
        if not isinstance(value, kind):
            self.note(name, f"{value!r} is no {kind.__name__}")
            return default
        return value

    def need(self, name: str) -> str:
        """Answer a text field that must be there."""
        value = self.take(name, str, "")
        if not value:
            self.note(name, "is missing")
        return value

    def names(self, name: str) -> tuple[str, ...]:
        """Answer a list of texts."""
        found = self.take(name, list, [])
        return tuple(one for one in found if isinstance(one, str))

    def duration(self, name: str, default: dt.timedelta | None) -> dt.timedelta | None:
        """Answer a GEP-2257 duration."""
        text = self.take(name, str, "")
        if not text:
            return default
        try:
            return parse_duration(text)
        except ValueError as error:
            self.note(name, str(error))
            return default

    def time(self, name: str) -> dt.datetime | None:
        """Answer an RFC 3339 time."""
        text = self.take(name, str, "")
        if not text:
            return None
        try:
            return parse_time(text)
        except ValueError:
            self.note(name, f"'{text}' is no time; write one such as 2026-12-01T02:00:00Z")
            return None

    def rules(self, protocol: Protocol) -> tuple[Rule, ...] | None:
        """Answer the allow rules of a protocol's block (`rest`, `grpc`, `graphql`); None where there is no block."""
        name = protocol.lower()
        if self.body.get(name) is None:
            return None
        try:
            return parse_rules(protocol, self.below(name).body.get("allow") or [])
        except (ValueError, TypeError, KeyError) as error:
            self.note(f"{name}.allow", str(error))
            return ()

    def note(self, name: str, message: str) -> None:
        """Note a problem of a field."""
        self.problems.append(Problem(f"{self.path}.{name}", message))


def parse_time(text: str) -> dt.datetime:
    """Parse an RFC 3339 time; raises ValueError."""
    time = dt.datetime.fromisoformat(text.upper())
    if time.tzinfo is None:
        raise ValueError(f"'{text}' has no time zone")
    return time.astimezone(dt.UTC)


def render_time(time: dt.datetime) -> str:
    """Render a time in whole seconds, RFC 3339 in UTC, as metav1.Time."""
    return time.astimezone(dt.UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"
