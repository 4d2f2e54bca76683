"""What a document asks is told without a GraphQL library."""

import pytest

import servicelink
from servicelink.graphql.operation import GraphQLOperation


@pytest.mark.parametrize(
    ("document", "name", "found"),
    [
        ("{ a }", None, "query"),
        ("query { a }", None, "query"),
        ("query A { a } mutation B { b }", "B", "mutation B"),
        ("fragment query on Q { a } query mutation($a: In = {b: [1]}) @x(y: 1) { a }", None, "query mutation"),
        ('# mutation Z { z }\nquery A($a: S = "mutation B {") { a(b: """ { mutation C """) }', None, "query A"),
        ("subscription S { mutation }", None, "subscription S"),
        ("query @live { a }", None, "query"),
        ("fragment F on Q { a } { ...F }", None, "query"),
        ("{ a { b } } ", None, "query"),
    ],
)
def test_operations_are_told_apart(document: str, name: str | None, found: str) -> None:
    assert GraphQLOperation(document, operation_name=name).title == found


@pytest.mark.parametrize(
    ("document", "name"),
    [("query A { a } query B { b }", None), ("query A { a }", "B"), ("", None), ("fragment F on Q { a }", None)],
)
def test_a_document_that_does_not_say_which_operation_is_an_error(document: str, name: str | None) -> None:
    with pytest.raises(servicelink.ServiceError, match="operation"):
        GraphQLOperation(document, operation_name=name)
