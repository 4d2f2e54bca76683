"""Which requests a link, or a policy's cap, allows: rules over parsed requests of the three protocols.

A request passes a list of rules if one of them allows all of it. No list at all (None) allows everything; an empty list
allows nothing, because an emptied block must never open a server.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from servicelink_contract.paths import PathPattern, matches


class Protocol(StrEnum):
    """How a Service is called."""

    REST = "REST"
    GRPC = "GRPC"
    GRAPHQL = "GraphQL"


class OperationType(StrEnum):
    """The type of a GraphQL operation."""

    QUERY = "Query"
    MUTATION = "Mutation"
    SUBSCRIPTION = "Subscription"


@dataclass(frozen=True, slots=True)
class RestRequest:
    """A request as judged: the method as sent, the path as decoded segments (see `paths.parse_path`)."""

    method: str
    segments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GrpcRequest:
    """A gRPC call: the service's full name and the method, from the path `/<service>/<method>`."""

    service: str
    method: str


@dataclass(frozen=True, slots=True)
class GraphQLRequest:
    """One GraphQL operation: its name ("" where it has none) and its root fields, by name, without aliases."""

    type: OperationType
    name: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RestRule:
    """Methods (None: any) and path patterns, both of which a request must match."""

    methods: frozenset[str] | None
    paths: tuple[PathPattern, ...]

    def allows(self, request: RestRequest) -> bool:
        """Answer whether this rule allows the request."""
        if self.methods is not None and request.method not in self.methods:
            return False
        return any(matches(pattern, request.segments) for pattern in self.paths)


@dataclass(frozen=True, slots=True)
class GrpcRule:
    """A service and its methods (None: any)."""

    service: str
    methods: frozenset[str] | None

    def allows(self, request: GrpcRequest) -> bool:
        """Answer whether this rule allows the call."""
        return request.service == self.service and (self.methods is None or request.method in self.methods)


# Always answered, and tells nothing but a type's name (GraphQL specification, section 4.1).
TYPENAME = "__typename"
# The root fields of introspection (section 4.2); they show the whole schema, so they pass only where listed.
INTROSPECTION = frozenset({"__schema", "__type"})


@dataclass(frozen=True, slots=True)
class GraphQLRule:
    """A type of operation, names of operations (None: any, also none) and root fields (None: any but introspection)."""

    type: OperationType
    operations: frozenset[str] | None
    fields: frozenset[str] | None

    def allows(self, request: GraphQLRequest) -> bool:
        """Answer whether this rule allows the operation, every root field of it."""
        if request.type is not self.type or not request.fields:
            return False
        if self.operations is not None and request.name not in self.operations:
            return False
        return all(self._allows_field(name) for name in request.fields)

    def _allows_field(self, name: str) -> bool:
        if name == TYPENAME:
            return True
        return name not in INTROSPECTION if self.fields is None else name in self.fields


def allows_rest(rules: Sequence[RestRule] | None, request: RestRequest) -> bool:
    """Answer whether the rules allow a REST request."""
    return rules is None or any(rule.allows(request) for rule in rules)


def allows_grpc(rules: Sequence[GrpcRule] | None, request: GrpcRequest) -> bool:
    """Answer whether the rules allow a gRPC call."""
    return rules is None or any(rule.allows(request) for rule in rules)


def allows_graphql(rules: Sequence[GraphQLRule] | None, request: GraphQLRequest) -> bool:
    """Answer whether the rules allow a GraphQL operation."""
    return rules is None or any(rule.allows(request) for rule in rules)
