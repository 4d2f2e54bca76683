"""Rules allow what they name, and what is emptied allows nothing."""

import pytest

from servicelink_contract.paths import parse_path, parse_pattern
from servicelink_contract.rules import (
    GraphQLRequest,
    GraphQLRule,
    GrpcRequest,
    GrpcRule,
    OperationType,
    RestRequest,
    RestRule,
    allows_graphql,
    allows_grpc,
    allows_rest,
)

READS = RestRule(frozenset({"GET", "HEAD"}), (parse_pattern("/v1/**"),))
CHARGES = RestRule(None, (parse_pattern("/v1/charges"), parse_pattern("/v1/charges/*")))


def rest(method: str, path: str) -> RestRequest:
    return RestRequest(method, parse_path(path))


def test_no_rules_allow_everything_and_an_empty_list_nothing() -> None:
    operation = GraphQLRequest(OperationType.QUERY, "", ("__schema",))

    assert allows_rest(None, rest("DELETE", "/"))
    assert allows_grpc(None, GrpcRequest("a.B", "C"))
    assert allows_graphql(None, operation)
    assert not allows_rest([], rest("GET", "/"))
    assert not allows_grpc([], GrpcRequest("a.B", "C"))
    assert not allows_graphql([], operation)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/orders", True),
        ("DELETE", "/v1/orders", False),
        ("DELETE", "/v1/charges/42", True),
        ("GET", "/v2", False),
        ("get", "/v1/orders", False),
        ("", "/v1/orders", False),
    ],
)
def test_a_rest_request_needs_one_rule_that_has_both_its_method_and_its_path(
    method: str, path: str, *, allowed: bool
) -> None:
    assert allows_rest([READS, CHARGES], rest(method, path)) is allowed


def test_method_and_path_of_two_rules_do_not_add_up() -> None:
    writes_a = RestRule(frozenset({"POST"}), (parse_pattern("/a"),))
    reads_b = RestRule(frozenset({"GET"}), (parse_pattern("/b"),))

    assert not allows_rest([writes_a, reads_b], rest("POST", "/b"))


@pytest.mark.parametrize(
    ("service", "method", "allowed"),
    [
        ("payments.v1.Payments", "Charge", True),
        ("payments.v1.Payments", "charge", False),
        ("payments.v1.Payments", "Refund", False),
        ("payments.v1.Payment", "Charge", False),
        ("health.Health", "Anything", True),
    ],
)
def test_a_grpc_call_is_compared_whole(service: str, method: str, *, allowed: bool) -> None:
    rules = [GrpcRule("payments.v1.Payments", frozenset({"Charge"})), GrpcRule("health.Health", None)]

    assert allows_grpc(rules, GrpcRequest(service, method)) is allowed


@pytest.mark.parametrize(
    ("operation", "allowed"),
    [
        (GraphQLRequest(OperationType.QUERY, "OrderById", ("order",)), True),
        (GraphQLRequest(OperationType.QUERY, "OrderById", ("order", "__typename")), True),
        (GraphQLRequest(OperationType.QUERY, "OrderById", ("order", "user")), False),
        (GraphQLRequest(OperationType.QUERY, "Other", ("order",)), False),
        (GraphQLRequest(OperationType.QUERY, "", ("order",)), False),
        (GraphQLRequest(OperationType.MUTATION, "OrderById", ("order",)), False),
        (GraphQLRequest(OperationType.QUERY, "OrderById", ("order", "__schema")), False),
        (GraphQLRequest(OperationType.QUERY, "OrderById", ()), False),
    ],
)
def test_a_graphql_operation_needs_one_rule_for_all_its_fields(operation: GraphQLRequest, *, allowed: bool) -> None:
    rule = GraphQLRule(OperationType.QUERY, frozenset({"OrderById"}), frozenset({"order"}))

    assert allows_graphql([rule], operation) is allowed


@pytest.mark.parametrize(("fields", "allowed"), [(("order",), True), (("__type",), False), (("__typename",), True)])
def test_introspection_passes_only_where_it_is_listed(fields: tuple[str, ...], *, allowed: bool) -> None:
    operation = GraphQLRequest(OperationType.QUERY, "", fields)

    assert allows_graphql([GraphQLRule(OperationType.QUERY, None, None)], operation) is allowed
    assert allows_graphql([GraphQLRule(OperationType.QUERY, None, frozenset(fields))], operation)
