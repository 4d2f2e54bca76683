"""The posture of one server: what its policies together say about mode, header and verifier."""

from collections.abc import Sequence
from dataclasses import dataclass

from servicelink_contract.binding import DEFAULT_HEADER
from servicelink_contract.verifier import Mode, Verifier
from servicelink_core.api.policies import DEFAULT_GRAPHQL_PATH, Policy


@dataclass(frozen=True, slots=True)
class Posture:
    """How a server treats calls; `policy` is the one that decides (None: nobody said anything)."""

    mode: Mode
    header: str
    graphql_path: str
    injects: bool
    revoked_kids: frozenset[str]
    policy: Policy | None


def judge_posture(service: str, policies: Sequence[Policy], standing: Verifier | None) -> Posture:
    """Join the policies that select a Service; `standing` is the verifier that it has now.

    Enforce is sticky: without a policy (deleted, perhaps by a mis-sorted prune) what enforces goes on enforcing, and
    reads keys where it read them.
    """
    decider = deciding_policy(service, policies)
    if decider is None:
        return _without_policy(standing)
    return Posture(
        mode=decider.mode,
        header=decider.header,
        graphql_path=decider.graphql_path,
        injects=decider.injects and not decider.unsupported,
        revoked_kids=frozenset(kid for policy in policies for kid in policy.revoked_kids),
        policy=decider,
    )


def _without_policy(standing: Verifier | None) -> Posture:
    sticks = standing is not None and standing.mode is Mode.ENFORCE
    return Posture(
        mode=Mode.ENFORCE if sticks else Mode.AUDIT,
        header=standing.header if standing and sticks else DEFAULT_HEADER,
        graphql_path=standing.graphql_path if standing and sticks else DEFAULT_GRAPHQL_PATH,
        injects=False,
        revoked_kids=frozenset(),
        policy=None,
    )


def deciding_policy(service: str, policies: Sequence[Policy]) -> Policy | None:
    """Answer the policy that decides: one that names the Service before `*`, then the stricter, then the older."""
    naming = [policy for policy in policies if policy.names(service)]
    candidates = naming or [policy for policy in policies if policy.selects(service)]
    return min(candidates, key=_rank, default=None)


def disagrees(policy: Policy, decider: Policy) -> bool:
    """Answer whether a policy says about a Service what the deciding one overrules."""
    said, held = ((one.mode, one.header, one.graphql_path, one.injects, one.unsupported) for one in (policy, decider))
    return said != held


def _rank(policy: Policy) -> tuple[bool, str, str]:
    return (policy.mode is not Mode.ENFORCE, policy.created.isoformat(), policy.name)
