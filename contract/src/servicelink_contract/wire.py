"""Allow rules as JSON: the same fields as in the API."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, assert_never

from servicelink_contract.paths import PathPattern, parse_pattern
from servicelink_contract.rules import GraphQLRule, GrpcRule, OperationType, Protocol, RestRule

Rule = RestRule | GrpcRule | GraphQLRule
T = TypeVar("T")

_FIELDS = {
    Protocol.REST: {"methods", "paths"},
    Protocol.GRPC: {"service", "methods"},
    Protocol.GRAPHQL: {"type", "operations", "fields"},
}


def take(source: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """Answer a field that must be there and of exactly that type (True is no number); raises ValueError or KeyError."""
    value = source[name]
    if type(value) is not kind:
        raise ValueError(f"{name} is no {kind.__name__}")
    return value


def rules_to_json(rules: Sequence[Rule]) -> list[dict[str, Any]]:
    """Answer the rules as JSON objects, names sorted; a field that is None is left out."""
    return [{name: value for name, value in _to_json(rule).items() if value is not None} for rule in rules]


def parse_rules(protocol: Protocol, rules: Sequence[dict[str, Any]]) -> tuple[Rule, ...]:
    """Parse the rules of one protocol; raises ValueError, TypeError or KeyError where one is not understood whole."""
    return tuple(_parse(protocol, rule) for rule in rules)


def _to_json(rule: Rule) -> dict[str, Any]:
    match rule:
        case RestRule():
            return {"methods": _names(rule.methods), "paths": [_pattern_text(pattern) for pattern in rule.paths]}
        case GrpcRule():
            return {"service": rule.service, "methods": _names(rule.methods)}
        case GraphQLRule():
            return {"type": rule.type, "operations": _names(rule.operations), "fields": _names(rule.fields)}
        case _:
            assert_never(rule)


def _parse(protocol: Protocol, rule: dict[str, Any]) -> Rule:
    # An unknown field may be a restriction that this release cannot honour.
    if unknown := set(rule) - _FIELDS[protocol]:
        raise ValueError(f"unknown fields of a rule: {sorted(unknown)}")
    match protocol:
        case Protocol.REST:
            return RestRule(_set(rule, "methods"), tuple(parse_pattern(text) for text in take(rule, "paths", list)))
        case Protocol.GRPC:
            return GrpcRule(take(rule, "service", str), _set(rule, "methods"))
        case Protocol.GRAPHQL:
            return GraphQLRule(OperationType(rule["type"]), _set(rule, "operations"), _set(rule, "fields"))
        case _:
            assert_never(protocol)


def _set(rule: dict[str, Any], name: str) -> frozenset[str] | None:
    if name not in rule:
        return None
    names = take(rule, name, list)
    if not all(type(one) is str for one in names):
        raise ValueError(f"{name} is no list of names")
    return frozenset(names)


def _names(names: frozenset[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)


def _pattern_text(pattern: PathPattern) -> str:
    return "/" + "/".join((*pattern.segments, *(["**"] if pattern.open_end else [])))
