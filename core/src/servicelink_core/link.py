"""One arrow: whether it is accepted, permitted and resolved, and where its credential stands.

`assess_link` answers all of it from one frozen view. Three readers use the answer: the link's own reconcile (the next
write, the status), the server's (which entry the verifier gets) and the workload's (what the template gets), so the
three can never disagree.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from servicelink_contract.verifier import Mode
from servicelink_core.api.durations import render_duration
from servicelink_core.api.links import Delivery, Link
from servicelink_core.api.objects import Service, Workload
from servicelink_core.api.policies import Policy
from servicelink_core.api.reasons import ConditionType as C
from servicelink_core.api.reasons import Reason
from servicelink_core.claims import doubled_variable, find_collision
from servicelink_core.consent import Consent, judge_consent
from servicelink_core.limits import DEFAULT_QUOTA, Excess, Usage
from servicelink_core.outcomes import Outcome, failed, not_evaluated, succeeded, unknown
from servicelink_core.posture import Posture, judge_posture
from servicelink_core.render.content import content_hash, render_content
from servicelink_core.resolve import Endpoint, Unresolved, resolve_endpoint
from servicelink_core.rotation import (
    BindingFacts,
    Issue,
    IssueWorld,
    SecretStep,
    SecretView,
    StandingVerifier,
    plan_issue,
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Settings that decide: `propagation_wait` as in `rotation`, `min_overlap` the shortest overlap served.

    `confirmed`: what the brake has held since before then may go; `quota`: what the links of a namespace may take;
    `scope`: the namespaces that are watched, none for all of them.
    """

    propagation_wait: dt.timedelta = dt.timedelta(seconds=150)
    min_overlap: dt.timedelta = dt.timedelta(minutes=5)
    confirmed: dt.datetime | None = None
    quota: Usage = DEFAULT_QUOTA
    scope: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Arrow:
    """All that decides about one link. `policies` select its server; `behind` are the workloads of its Service.

    `rivals` are the other links of its namespace, `settled` the UIDs of those accepted as they are now. `excess` is
    what its namespace has too much of for this link to be served. `failure` is what the API server last answered to a
    write for this link, "" if nothing.
    """

    link: Link
    namespace_labels: Mapping[str, str]
    terminating: bool
    rivals: tuple[Link, ...]
    settled: frozenset[str]
    policies: tuple[Policy, ...]
    service: Service | None
    behind: tuple[Workload, ...]
    client: Workload | None
    standing: StandingVerifier
    secret: SecretView | BindingFacts
    excess: Excess | None = None
    failure: str = ""


class Stage(StrEnum):
    """How far a link is, as its folds need to know: still coming, there, or not coming before somebody acts."""

    PENDING = "Pending"
    PROGRAMMED = "Programmed"
    BLOCKED = "Blocked"


@dataclass(frozen=True, slots=True)
class Assessment:
    """What is so. `endpoint` is None until the link is resolved; `step` is the next write to its Secret."""

    link: Link
    accepted: Outcome
    permitted: Outcome
    resolved: Outcome
    issued: Outcome
    consent: Consent
    posture: Posture
    endpoint: Endpoint | None
    step: SecretStep
    look_again: dt.datetime | None

    @property
    def stage(self) -> Stage:
        """Answer how far the link is."""
        if self.issued.holds:
            return Stage.PROGRAMMED
        return Stage.PENDING if self.issued.reason in (Reason.ISSUING, Reason.PROPAGATING) else Stage.BLOCKED


def assess_link(arrow: Arrow, limits: Limits, now: dt.datetime) -> Assessment:
    """Answer what is so about a link, each condition once those before it hold."""
    link = arrow.link
    posture = judge_posture(link.server.name, arrow.policies, arrow.standing.verifier)
    consent = judge_consent(link, arrow.policies, arrow.namespace_labels, now)
    accepted = _judge_acceptance(arrow, limits)
    permitted = _judge_permission(consent) if accepted.holds else not_evaluated(C.PERMITTED, C.ACCEPTED)
    found = _resolve(arrow, posture) if permitted.holds else not_evaluated(C.RESOLVED, C.PERMITTED)
    if isinstance(found, Outcome):
        issued, issue = not_evaluated(C.ISSUED, C.RESOLVED), None
    else:
        issue = plan_issue(_issue_world(arrow, posture, found, limits), now)
        issued = _judge_issue(arrow, issue)
    times = (issue.look_again if issue else None, consent.expires_at)
    return Assessment(
        link=link,
        accepted=accepted,
        permitted=permitted,
        resolved=found if isinstance(found, Outcome) else succeeded(C.RESOLVED, Reason.RESOLVED),
        issued=issued,
        consent=consent,
        posture=posture,
        endpoint=None if isinstance(found, Outcome) else found,
        step=issue.step if issue else SecretStep.NONE,
        look_again=min((time for time in times if time is not None and time > now), default=None),
    )


def _judge_acceptance(arrow: Arrow, limits: Limits) -> Outcome:
    problem = _find_no_room(arrow, limits) or _find_unfit(arrow.link, limits) or _find_collision(arrow)
    return problem or succeeded(C.ACCEPTED, Reason.ACCEPTED)


def _find_no_room(arrow: Arrow, limits: Limits) -> Outcome | None:
    """Answer why the operator cannot serve any link there, or no further one."""
    link, excess = arrow.link, arrow.excess
    if arrow.terminating:
        return failed(C.ACCEPTED, Reason.NAMESPACE_TERMINATING, f"namespace {link.namespace} is being deleted")
    if limits.scope and link.server.namespace not in limits.scope:
        message = f"namespace {link.server.namespace} is not watched by this operator (its setting watchNamespaces)"
        return failed(C.ACCEPTED, Reason.OUT_OF_SCOPE, message)
    if excess is None:
        return None
    message = f"the links of namespace {link.namespace} have more than {excess.most} {excess.what}; delete some of them"
    return failed(C.ACCEPTED, Reason.LIMIT_EXCEEDED, f"{message}, or raise {excess.setting}")


def _find_unfit(link: Link, limits: Limits) -> Outcome | None:
    """Answer what the link asks for and does not get."""
    if link.unsupported:
        fields = ", ".join(link.unsupported)
        return failed(C.ACCEPTED, Reason.NOT_SUPPORTED, f"this release does not serve {fields}; leave it out")
    if link.rotation.overlap < limits.min_overlap:
        least, given = render_duration(limits.min_overlap), render_duration(link.rotation.overlap)
        return failed(
            C.ACCEPTED,
            Reason.INVALID_SPEC,
            f"spec.rotation.overlap is {given}; this operator asks for at least {least} (its setting minOverlap)",
        )
    doubled = doubled_variable(link)
    if doubled is None:
        return None
    message = f"spec.binding.env: {doubled} is set by the link itself; use another name"
    return failed(C.ACCEPTED, Reason.INVALID_SPEC, message)


def _find_collision(arrow: Arrow) -> Outcome | None:
    """Answer what another link has that this one wants."""
    found = find_collision(arrow.link, arrow.rivals, arrow.settled)
    if found is None:
        return None
    message = f"ServiceLink {found.holder.name} already has {found.what}; change spec.binding of one of the two"
    return failed(C.ACCEPTED, Reason.CONFLICTED, message)


def _judge_permission(consent: Consent) -> Outcome:
    judge = succeeded if consent.given else failed
    return judge(C.PERMITTED, consent.reason, consent.message)


def _resolve(arrow: Arrow, posture: Posture) -> Endpoint | Outcome:
    client = arrow.link.client
    if arrow.client is None:
        kind = client.kind.lower()
        return failed(
            C.RESOLVED,
            Reason.CLIENT_NOT_FOUND,
            f"there is no {client.kind} {client}; `kubectl get {kind} -n {client.namespace}` lists what is there",
        )
    if arrow.client.deleting:
        return failed(
            C.RESOLVED,
            Reason.CLIENT_NOT_FOUND,
            f"{client.kind} {client} is being deleted; the link goes on once there is another of that name",
        )
    found = resolve_endpoint(arrow.link, arrow.service, arrow.behind, posture.graphql_path)
    return failed(C.RESOLVED, found.reason, found.message) if isinstance(found, Unresolved) else found


def _issue_world(arrow: Arrow, posture: Posture, endpoint: Endpoint, limits: Limits) -> IssueWorld:
    return IssueWorld(
        link_name=arrow.link.name,
        link_uid=arrow.link.uid,
        secret=arrow.secret,
        standing=arrow.standing,
        mode=posture.mode,
        wait=limits.propagation_wait,
        content_hash=lambda: content_hash(render_content(arrow.link, endpoint, posture.header)),
        wants_kid_secret=arrow.link.binding.delivery is Delivery.ENV,
        revoked=posture.revoked_kids,
    )


def _judge_issue(arrow: Arrow, issue: Issue) -> Outcome:
    link = arrow.link
    match issue.waits_for:
        case None:
            return succeeded(C.ISSUED, Reason.ISSUED)
        case Reason.SECRET_CONFLICT:
            name = link.binding.secret_name
            return failed(
                C.ISSUED,
                Reason.SECRET_CONFLICT,
                f"Secret {link.namespace}/{name} is not this link's; set spec.binding.secretName, or delete it: "
                f"kubectl delete secret {name} -n {link.namespace}",
            )
        case Reason.VERIFIER_CONFLICT:
            return failed(
                C.ISSUED,
                Reason.VERIFIER_CONFLICT,
                f"a ConfigMap servicelink-verifier-{link.server.name} in namespace {link.server.namespace} is not the "
                "operator's; delete or rename it",
            )
        case Reason.VERIFIER_FULL:
            return failed(
                C.ISSUED,
                Reason.VERIFIER_FULL,
                f"the verifier of {link.server} has no room for this link; write rules shorter, or delete links to it",
            )
        case _ if arrow.failure:
            return failed(C.ISSUED, Reason.FORBIDDEN, arrow.failure)
        case reason:
            return unknown(C.ISSUED, reason, issue.message)


def refuses(assessment: Assessment) -> bool:
    """Answer whether the link's server refuses calls that are not allowed."""
    return assessment.posture.mode is Mode.ENFORCE
