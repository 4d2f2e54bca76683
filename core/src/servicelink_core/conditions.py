"""The status of a link: what was found, as conditions that kstatus understands.

Ready is Unknown with Reconciling while the operator works, False with Stalled when only somebody else can go on. What
may still come, since GitOps applies things in any order, is waited for before it counts as stalled.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from servicelink_core.api.fields import parse_time, render_time
from servicelink_core.api.links import Inject, Link
from servicelink_core.api.objects import Rollout, Workload
from servicelink_core.api.reasons import ConditionType as C
from servicelink_core.api.reasons import Reason
from servicelink_core.link import Assessment, refuses
from servicelink_core.outcomes import (
    Outcome,
    conditions_by_type,
    failed,
    not_evaluated,
    render_conditions,
    stalled,
    succeeded,
    unknown,
)
from servicelink_core.rotation import BindingFacts, SecretView
from servicelink_core.workload import Injected, Injection

PATIENCE = dt.timedelta(minutes=2)
_MAY_STILL_COME = {
    Reason.CLIENT_NOT_FOUND,
    Reason.SERVER_NOT_FOUND,
    Reason.PORT_NOT_FOUND,
    Reason.REF_NOT_PERMITTED,
}

Status = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Findings:
    """All that a link's status tells. `standing` says whether its verifier still has an entry of the link.

    `failure` is why the API server refused the change of its client, `pace` why that change waits; "" if neither.
    """

    assessment: Assessment
    secret: SecretView | BindingFacts
    client: Workload | None
    injection: Injection
    standing: bool
    failure: str = ""
    pace: str = ""


@dataclass(frozen=True, slots=True)
class Settlement:
    """A status; `final` if it will not change by itself; otherwise when to look again."""

    status: Status
    final: bool
    look_again: dt.datetime | None


def settle_link(findings: Findings, previous: Mapping[str, Any], now: dt.datetime) -> Settlement:
    """Answer the status of a link; `previous` is the one it has now."""
    link = findings.assessment.link
    outcomes = _outcomes(findings)
    summary, look_again = _summarise(outcomes[:5], conditions_by_type(previous), link.generation, now)
    conditions = render_conditions((*outcomes, *summary), link.generation, previous, now)
    withdrawing = not findings.assessment.consent.given and findings.standing
    times = [time for time in (look_again, findings.assessment.look_again) if time]
    return Settlement(
        status={**_facts(findings), "conditions": conditions},
        final=summary[-1].type is not C.RECONCILING and not withdrawing,
        look_again=min(times, default=None),
    )


def settle_invalid(
    generation: int, problems: Sequence[object], previous: Mapping[str, Any], now: dt.datetime
) -> Settlement:
    """Answer the status of a link that cannot be parsed: every problem with its field path."""
    accepted = failed(C.ACCEPTED, Reason.INVALID_SPEC, "; ".join(map(str, problems)))
    conditions = render_conditions((accepted, *stalled(accepted)), generation, previous, now)
    return Settlement({"observedGeneration": generation, "conditions": conditions}, final=True, look_again=None)


def _outcomes(findings: Findings) -> tuple[Outcome, ...]:
    """Answer one outcome per condition; Ready stands on the first five."""
    one = findings.assessment
    injected = _judge_injected(findings) if one.issued.holds else not_evaluated(C.INJECTED, C.ISSUED)
    return (
        *(one.accepted, one.permitted, one.resolved, one.issued, injected),
        _judge_rollout(findings) if injected.holds else not_evaluated(C.ROLLED_OUT, C.INJECTED),
        _judge_enforcement(one) if one.permitted.holds else not_evaluated(C.ENFORCED, C.PERMITTED),
        unknown(C.HEALTHY, Reason.NOT_SERVED, f"this release does not probe{_unserved(one.link, 'health')}"),
        unknown(C.ROTATED, Reason.NOT_SERVED, f"this release does not rotate{_unserved(one.link, 'rotation')}"),
    )


def _unserved(link: Link, block: str) -> str:
    suspended = " and spec.suspend have" if link.suspend else " has"
    return f"; spec.{block}{suspended} no effect yet"


def _judge_injected(findings: Findings) -> Outcome:
    if findings.assessment.link.binding.inject is Inject.NONE:
        return succeeded(C.INJECTED, Reason.NOT_REQUESTED)
    match findings.injection.state:
        case Injected.DONE:
            return succeeded(C.INJECTED, Reason.INJECTED)
        case Injected.CONFLICT:
            return failed(C.INJECTED, Reason.INJECTION_CONFLICT, findings.injection.message)
        case Injected.WAITING if findings.failure:
            return failed(C.INJECTED, Reason.FORBIDDEN, findings.failure)
        case Injected.WAITING:
            return unknown(C.INJECTED, Reason.INJECTING, findings.pace or "the client's template gets the binding")


def _judge_rollout(findings: Findings) -> Outcome:
    client = findings.client
    if findings.assessment.link.binding.inject is Inject.NONE or client is None:
        return succeeded(C.ROLLED_OUT, Reason.NOT_REQUESTED)
    where = f"{client.ref.kind.lower()} {client.ref.name} -n {client.ref.namespace}"
    match client.rollout:
        case Rollout.DONE:
            return succeeded(C.ROLLED_OUT, Reason.ROLLED_OUT)
        case Rollout.PENDING:
            return failed(C.ROLLED_OUT, Reason.ROLLOUT_PENDING, f"kubectl rollout status {where}")
        case Rollout.FAILED:
            return failed(C.ROLLED_OUT, Reason.ROLLOUT_FAILED, f"new Pods are not ready; kubectl describe {where}")
        case Rollout.PAUSED:
            return failed(C.ROLLED_OUT, Reason.PAUSED, f"paused; kubectl rollout resume {where}")
        case Rollout.SCALED_TO_ZERO:
            return failed(C.ROLLED_OUT, Reason.SCALED_TO_ZERO, f"no Pods; kubectl scale {where} --replicas=1")


def _judge_enforcement(assessment: Assessment) -> Outcome:
    if refuses(assessment):
        message = "the verifier says Enforce; this release does not hear from servers whether they check calls"
        return unknown(C.ENFORCED, Reason.NOT_SERVED, message)
    return failed(
        C.ENFORCED, Reason.AUDIT_MODE, "calls without a link pass; a ServiceLinkPolicy with mode: Enforce ends that"
    )


def _summarise(
    outcomes: Sequence[Outcome], before: Mapping[str, Any], generation: int, now: dt.datetime
) -> tuple[tuple[Outcome, ...], dt.datetime | None]:
    """Answer Ready and what goes with it, and when patience ends."""
    first = next((outcome for outcome in outcomes if not outcome.holds), None)
    if first is None:
        return (succeeded(C.READY, Reason.ACTIVE),), None
    if first.holds is None:
        return _reconciling(first), None
    if first.reason not in _MAY_STILL_COME or _has_stalled(first, before, generation):
        return stalled(first), None
    until = _waiting_since(first, before, now) + PATIENCE
    return (_reconciling(first), until) if now < until else (stalled(first), None)


def _reconciling(cause: Outcome) -> tuple[Outcome, ...]:
    return (
        unknown(C.READY, cause.reason, cause.message),
        succeeded(C.RECONCILING, cause.reason, cause.message),
    )


def _has_stalled(cause: Outcome, before: Mapping[str, Any], generation: int) -> bool:
    old = before.get(C.STALLED)
    if old is None:
        return False
    return bool(old["reason"] == cause.reason and old.get("observedGeneration") == generation)


def _waiting_since(cause: Outcome, before: Mapping[str, Any], now: dt.datetime) -> dt.datetime:
    """Answer since when this is waited for: as long as work goes on and the condition does not hold."""
    reconciling, condition = before.get(C.RECONCILING), before.get(cause.type)
    if reconciling is None or condition is None or condition["status"] != "False":
        return now
    return max(parse_time(one["lastTransitionTime"]) for one in (reconciling, condition))


def _facts(findings: Findings) -> Status:
    """Answer the rest of a status. Without consent it says nothing that the spec does not say."""
    assessment = findings.assessment
    link = assessment.link
    facts: Status = {"observedGeneration": link.generation, "client": link.client.name, "server": str(link.server)}
    if not assessment.consent.given:
        return facts
    if isinstance(findings.secret, BindingFacts) and findings.secret.link_uid == link.uid:
        facts["binding"] = {"name": link.binding.secret_name}
        facts["credential"] = _credential(findings.secret)
    facts["mode"] = str(assessment.posture.mode)
    if assessment.endpoint is not None:
        facts["endpoint"] = {"uri": assessment.endpoint.uri, "address": assessment.endpoint.address}
    return facts


def _credential(secret: BindingFacts) -> dict[str, str]:
    if secret.kid is None or secret.issued_at is None:
        return {"phase": "Issue"}
    return {"id": secret.kid, "issuedAt": render_time(secret.issued_at), "phase": "Stable"}
