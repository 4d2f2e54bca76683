"""The status of a policy: whether it is in force, and which links it permits."""

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from servicelink_core.api.fields import Problem
from servicelink_core.api.policies import Policy
from servicelink_core.api.reasons import ConditionType as C
from servicelink_core.api.reasons import Reason
from servicelink_core.outcomes import Outcome, failed, render_conditions, stalled, succeeded
from servicelink_core.posture import deciding_policy, disagrees

SAMPLES = 50


@dataclass(frozen=True, slots=True)
class PolicyWorld:
    """A policy, the other policies of its namespace, and the links (namespace/name) that it permits.

    `held` counts the entries in its Services' verifiers that stay although their links vanished.
    """

    policy: Policy
    others: tuple[Policy, ...]
    links: tuple[str, ...]
    held: int = 0


def settle_policy(world: PolicyWorld, previous: Mapping[str, Any], now: dt.datetime) -> dict[str, Any]:
    """Answer the status of a policy; `previous` is the one it has now."""
    names = sorted(world.links)
    accepted = _judge(world.policy, (world.policy, *world.others))
    return {
        **_render(accepted, world.policy.generation, previous, now, _tell_held(world.held)),
        "linkCount": len(names),
        **({"links": names[:SAMPLES]} if names else {}),
    }


def settle_invalid_policy(
    generation: int, problems: Iterable[Problem], previous: Mapping[str, Any], now: dt.datetime
) -> dict[str, Any]:
    """Answer the status of a policy that cannot be parsed."""
    accepted = failed(C.ACCEPTED, Reason.INVALID_SPEC, "; ".join(map(str, problems)))
    return _render(accepted, generation, previous, now)


def _tell_held(count: int) -> str:
    if not count:
        return ""
    return f"{count} entries are held: very many links vanished at once; apply them again, or set confirmRemovals"


def _judge(policy: Policy, policies: tuple[Policy, ...]) -> Outcome:
    if policy.unsupported:
        fields = ", ".join(policy.unsupported)
        return failed(C.ACCEPTED, Reason.NOT_SUPPORTED, f"this release does not serve {fields}; leave it out")
    for service in policy.services:
        decider = deciding_policy(service, policies)
        if decider is not None and decider.uid != policy.uid and disagrees(policy, decider):
            return failed(
                C.ACCEPTED,
                Reason.CONFLICTED,
                f"ServiceLinkPolicy {decider.name} decides mode, header and verifier of {service}; allowFrom counts",
            )
    return succeeded(C.ACCEPTED, Reason.ACCEPTED)


def _render(  # noqa: PLR0917 (what a status is made of)
    accepted: Outcome, generation: int, previous: Mapping[str, Any], now: dt.datetime, message: str = ""
) -> dict[str, Any]:
    summary = (succeeded(C.READY, Reason.ACTIVE, message),) if accepted.holds else stalled(accepted)
    conditions = render_conditions((accepted, *summary), generation, previous, now)
    return {"observedGeneration": generation, "conditions": conditions}
