"""Outcomes: one finding about one condition, before it becomes part of a status."""

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from servicelink_core.api.fields import render_time
from servicelink_core.api.reasons import ConditionType, Reason

MESSAGE_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Outcome:
    """A condition's type, whether it holds (None: not known), the reason, and a message of at most 200 characters."""

    type: ConditionType
    holds: bool | None
    reason: Reason
    message: str

    @property
    def status(self) -> str:
        """Answer the status as metav1.Condition writes it."""
        return "Unknown" if self.holds is None else str(self.holds)


def succeeded(kind: ConditionType, reason: Reason, message: str = "") -> Outcome:
    """Answer an outcome that holds."""
    return Outcome(kind, holds=True, reason=reason, message=bounded(message))


def failed(kind: ConditionType, reason: Reason, message: str) -> Outcome:
    """Answer an outcome that does not hold."""
    return Outcome(kind, holds=False, reason=reason, message=bounded(message))


def unknown(kind: ConditionType, reason: Reason, message: str) -> Outcome:
    """Answer an outcome that is not known."""
    return Outcome(kind, holds=None, reason=reason, message=bounded(message))


def not_evaluated(kind: ConditionType, after: ConditionType) -> Outcome:
    """Answer the outcome of what is not looked at before something else holds."""
    return unknown(kind, Reason.NOT_EVALUATED, f"looked at once {after} is True")


def stalled(cause: Outcome) -> tuple[Outcome, Outcome]:
    """Answer Ready and Stalled for what only the user can mend."""
    return (
        failed(ConditionType.READY, cause.reason, cause.message),
        succeeded(ConditionType.STALLED, cause.reason, cause.message),
    )


def render_conditions(
    outcomes: Iterable[Outcome], generation: int, previous: Mapping[str, Any], now: dt.datetime
) -> list[dict[str, Any]]:
    """Render metav1.Conditions; a condition's time is that of the last change of its status in `previous`."""
    before = conditions_by_type(previous)
    return [_render(outcome, before.get(outcome.type), generation, now) for outcome in outcomes]


def conditions_by_type(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Answer the conditions of a status by their type."""
    return {one["type"]: one for one in status.get("conditions") or ()}


def _render(outcome: Outcome, old: Mapping[str, Any] | None, generation: int, now: dt.datetime) -> dict[str, Any]:
    since = old["lastTransitionTime"] if old and old["status"] == outcome.status else render_time(now)
    return {
        "type": str(outcome.type),
        "status": outcome.status,
        "observedGeneration": generation,
        "lastTransitionTime": since,
        "reason": str(outcome.reason),
        "message": outcome.message,
    }


def bounded(message: str) -> str:
    """Cut a message to the length that a terminal and a status bear."""
    return message if len(message) <= MESSAGE_LENGTH else f"{message[: MESSAGE_LENGTH - 1]}…"
