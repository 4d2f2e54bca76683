"""The chart's admission policies: whether they stand, and guard what this release's are to guard.

What they are to say is in guards.json, which `make reference` writes from the chart; words for people are not in it.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from servicelink_operator.cluster.api import Api, Object
from servicelink_operator.cluster.errors import ForbiddenError, NotFoundError
from servicelink_operator.cluster.kinds import ADMISSION_POLICY, ADMISSION_POLICY_BINDING, SUBJECT_REVIEW

# What they are about: the operator's identity, and users.
GUARDS = ("secrets", "configmaps", "workloads", "verifiers", "links", "policies")
# Those that hold only where the operator acts: elsewhere another one may.
_OF_USERS = frozenset({"verifiers", "links", "policies"})
# Stands in guards.json for the name of the operator's user.
OPERATOR = "<operator>"
_MEND = "install it with the chart (guards.enabled), or run with --require-guards=false"
# What the API server adds where nothing is said; a rule's `scope` beside.
_DEFAULTS: Mapping[str, Any] = {"matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {}}


@dataclass(frozen=True, slots=True)
class Guarded:
    """Whom the guards are about: what their names begin with, the operator's user, and where it acts (none: all)."""

    prefix: str
    username: str
    scope: frozenset[str] = frozenset()


async def observe_username(api: Api) -> str:
    """Answer as whom the API server knows this operator."""
    review = {"apiVersion": SUBJECT_REVIEW.api_version, "kind": SUBJECT_REVIEW.kind}
    answer = await api.create(SUBJECT_REVIEW, None, review)
    return str(answer["status"]["userInfo"]["username"])


async def observe_guards(api: Api, guarded: Guarded) -> str | None:
    """Answer what is wrong with the admission policies that fence the operator and its users, None if nothing."""
    problems = await asyncio.gather(*(_observe_guard(api, guarded, what) for what in GUARDS))
    return next((f"GuardMissing: {problem}" for problem in problems if problem is not None), None)


async def _observe_guard(api: Api, guarded: Guarded, what: str) -> str | None:
    name = f"{guarded.prefix}-guard-{what}"
    try:
        policy = await api.read(ADMISSION_POLICY, None, name)
        binding = await api.read(ADMISSION_POLICY_BINDING, None, name)
    except NotFoundError:
        return f"there is no ValidatingAdmissionPolicy {name} with a binding of that name; {_MEND}"
    except ForbiddenError:
        return f"{name} may not be read; grant the operator get on it and its binding"
    different = find_policy_difference(what, policy["spec"], guarded.username)
    if different:
        return f"ValidatingAdmissionPolicy {name} is not this release's, it differs in {different}; {_MEND}"
    scope = guarded.scope if what in _OF_USERS else frozenset()
    unbound = find_binding_difference(name, binding["spec"], scope)
    return f"the binding {name} does not deny all that it is to, by its {unbound}; {_MEND}" if unbound else None


def find_policy_difference(what: str, spec: Mapping[str, Any], username: str) -> str | None:
    """Name the fields in which a policy is not what this release's guard is to be; None where there are none."""
    wanted = json.loads(_wanted_text().replace(OPERATOR, json.dumps(username)[1:-1]))[what]
    return ", ".join(_differences(describe_policy(spec), wanted, "spec")) or None


def find_binding_difference(name: str, spec: Mapping[str, Any], scope: frozenset[str]) -> str | None:
    """Name the field by which a binding lets through what is to be denied; None where it does not."""
    if spec.get("policyName") != name:
        return "spec.policyName"
    if "Deny" not in (spec.get("validationActions") or ()):
        return "spec.validationActions"
    if spec.get("paramRef"):
        return "spec.paramRef"
    narrowed = _told(spec.get("matchResources") or {}, _DEFAULTS)
    for field, value in narrowed.items():
        if field != "namespaceSelector" or not _selects(value, scope):
            return f"spec.matchResources.{field}"
    return None


def _selects(selector: Mapping[str, Any], scope: frozenset[str]) -> bool:
    """Answer whether a selector of namespaces, as the chart writes it, selects all that the operator acts on."""
    expressions = selector.get("matchExpressions") or []
    if not scope or len(expressions) != 1 or selector.get("matchLabels"):
        return False
    by_name = (expressions[0]["key"], expressions[0]["operator"]) == ("kubernetes.io/metadata.name", "In")
    return by_name and scope <= set(expressions[0]["values"])


def describe_policy(spec: Mapping[str, Any]) -> Object:
    """Answer what a policy's spec decides by, the same with the API server's defaults and without."""
    constraints = _told(spec.get("matchConstraints") or {}, _DEFAULTS)
    for rules in ("resourceRules", "excludeResourceRules"):
        if constraints.get(rules):
            constraints[rules] = [_told(rule, {"scope": "*"}) for rule in constraints[rules]]
    return {
        "failurePolicy": spec.get("failurePolicy", "Fail"),
        "paramKind": spec.get("paramKind"),
        "matchConstraints": constraints,
        "matchConditions": spec.get("matchConditions") or [],
        "variables": spec.get("variables") or [],
        "validations": [one["expression"] for one in spec.get("validations") or ()],
    }


def _told(fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in defaults or value != defaults[name]}


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any], path: str) -> Iterator[str]:
    for name in sorted({*found, *wanted}):
        mine, theirs = found.get(name), wanted.get(name)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            yield from _differences(mine, theirs, f"{path}.{name}")
        elif mine != theirs:
            yield f"{path}.{name}"


@cache
def _wanted_text() -> str:
    return files(__package__).joinpath("guards.json").read_text()
