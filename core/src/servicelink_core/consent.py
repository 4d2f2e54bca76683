"""Consent: what the policies of a server's namespace say about one link, before the server is looked at.

Nothing here depends on whether the server exists, so an answer cannot tell. What several policies allow adds up. What
an item caps holds for the link with whatever other items allow: if one item allows everything, nothing is capped.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from servicelink_contract.wire import Rule
from servicelink_core.api.links import Link
from servicelink_core.api.policies import Grant, Policy
from servicelink_core.api.reasons import Reason


@dataclass(frozen=True, slots=True)
class Consent:
    """What a link is allowed: `cap` None is everything; `expires_at` None is without end; `reason` why, or why not."""

    given: bool
    reason: Reason
    message: str
    cap: tuple[Rule, ...] | None = None
    expires_at: dt.datetime | None = None


def judge_consent(link: Link, policies: Sequence[Policy], labels: Mapping[str, str], now: dt.datetime) -> Consent:
    """Answer what those policies, all of which select the server, say about the link.

    `labels` are those of the link's namespace. A policy that this release cannot serve gives no consent.
    """
    grants = [
        grant
        for policy in policies
        if not policy.unsupported
        for grant in policy.grants
        if grant.selects(link.namespace, labels) and _is_about(grant, link)
    ]
    if not grants and link.server.namespace == link.namespace:
        return Consent(given=True, reason=Reason.SAME_NAMESPACE, message="client and server share a namespace")
    if not grants:
        return _refusal(link)
    living = [grant for grant in grants if grant.expires_at is None or now < grant.expires_at]
    if not living:
        return _expiry(link, grants)
    fitting = [grant for grant in living if _excess(grant, link) is None]
    if not fitting:
        return _exceeding(link, living[0])
    return _consent(link, fitting)


def _is_about(grant: Grant, link: Link) -> bool:
    return grant.clients is None or (link.client.kind, link.client.name) in grant.clients


def _excess(grant: Grant, link: Link) -> str | None:
    """Name what the link asks for and the grant does not give; None where it gives all."""
    if grant.credentials is not None and link.credential not in grant.credentials:
        return f"credential type {link.credential}; it allows {', '.join(grant.credentials)}"
    if grant.caps is not None and link.protocol not in grant.caps:
        return f"protocol {link.protocol}; it allows {', '.join(grant.caps)}"
    limit = grant.max_rotation_interval
    if limit is not None and (link.rotation.manual or link.rotation.interval > limit):
        return "a rotation this rare; set rotation.schedule: Interval and a shorter rotation.interval"
    return None


def _consent(link: Link, grants: Sequence[Grant]) -> Consent:
    """Join what fitting grants give: the caps add up, and the first expiry of a cap that is needed holds for all."""
    whole = [grant for grant in grants if grant.caps is None]
    message = f"a ServiceLinkPolicy in namespace {link.server.namespace} allows the link"
    if whole:
        return Consent(given=True, reason=Reason.GRANTED, message=message, expires_at=_last_expiry(whole))
    rules = dict.fromkeys(rule for grant in grants for rule in (grant.caps or {})[link.protocol])
    ends = [grant.expires_at for grant in grants if grant.expires_at is not None]
    return Consent(
        given=True, reason=Reason.GRANTED, message=message, cap=tuple(rules), expires_at=min(ends, default=None)
    )


def _last_expiry(grants: Sequence[Grant]) -> dt.datetime | None:
    ends = [grant.expires_at for grant in grants if grant.expires_at is not None]
    return max(ends) if len(ends) == len(grants) else None


def _refusal(link: Link) -> Consent:
    return Consent(
        given=False,
        reason=Reason.REF_NOT_PERMITTED,
        message=f"{link.server} is not open to {link.client}; its owner can allow it in a ServiceLinkPolicy "
        f"in namespace {link.server.namespace}",
    )


def _expiry(link: Link, grants: Sequence[Grant]) -> Consent:
    ended = max(grant.expires_at for grant in grants if grant.expires_at is not None)
    return Consent(
        given=False,
        reason=Reason.GRANT_EXPIRED,
        message=f"the consent for {link.client} expired at {ended:%Y-%m-%dT%H:%M:%SZ}; the owner of {link.server} can "
        "move expiresAt in the ServiceLinkPolicy",
    )


def _exceeding(link: Link, grant: Grant) -> Consent:
    return Consent(
        given=False,
        reason=Reason.EXCEEDS_GRANT,
        message=f"the ServiceLinkPolicy in namespace {link.server.namespace} does not allow {_excess(grant, link)}",
    )
