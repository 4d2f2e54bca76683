"""Applications that ask GraphQL servers are tested without one, over clients whose transport alone is mocked."""

from collections.abc import Callable
from typing import Any

import pytest

import servicelink
from servicelink import sync
from servicelink.graphql.operation import GraphQLOperation
from servicelink.testing import Answer

USER = "query GetUser($id: ID!) { user(id: $id) { email } }"


async def test_a_mocked_query_answers_its_data_and_is_recorded() -> None:
    catalog = servicelink.create_mock_graphql_client("catalog")
    catalog.query.returns({"user": {"email": "a@b"}})
    data = await catalog.query(USER, {"id": "1"}, headers={"x-tenant": "shop"})
    [call] = catalog.query.calls

    assert data == {"user": {"email": "a@b"}}
    assert (call.kind, call.name, call.document, call.variables) == ("query", "GetUser", USER, {"id": "1"})
    assert (call.headers["x-tenant"], call.attempt) == ("shop", 1)
    assert "x-service-auth" not in call.headers
    assert (catalog.calls, catalog.mutate.call_count) == ([call], 0)


async def test_operations_are_told_apart_by_name_and_answer_in_turn() -> None:
    catalog = servicelink.create_mock_graphql_client()
    catalog.query.returns({"any": 1}).returns({"user": 1}, operation="GetUser").in_turn({"first": 1})

    answers = [await catalog.query("{ a }"), await catalog.query(USER), await catalog.query("{ a }")]

    assert answers == [{"first": 1}, {"user": 1}, {"any": 1}]


async def test_errors_of_the_application_and_of_the_way_to_it_are_the_real_ones() -> None:
    catalog = servicelink.create_mock_graphql_client()
    catalog.mutate.fails("NOT_FOUND", path=("drop", 0), data={"drop": None})
    with pytest.raises(servicelink.GraphQLError) as failed:
        await catalog.mutate("mutation { drop }")
    catalog.mutate.raises(servicelink.ServiceTimeout)
    with pytest.raises(servicelink.ServiceTimeout):
        await catalog.mutate("mutation { drop }")
    catalog.query.raises(servicelink.PermissionDenied)
    with pytest.raises(servicelink.PermissionDenied):
        await catalog.query("{ a }")

    assert (failed.value.code, failed.value.path, failed.value.data) == ("NOT_FOUND", ("drop", 0), {"drop": None})
    assert catalog.mutate.call_count == 2


@pytest.mark.parametrize("made", ["error", "class"])
async def test_an_error_of_the_application_may_be_given_as_such(made: str) -> None:
    given = servicelink.GraphQLError(200, "NOT_FOUND", "no such user")
    given.path, given.data = ("user", "email"), {"user": None}
    catalog = servicelink.create_mock_graphql_client()
    catalog.query.raises(given if made == "error" else servicelink.GraphQLError)
    with pytest.raises(servicelink.GraphQLError) as failed:
        await catalog.query("{ a }")
    [answer] = await catalog.batch([GraphQLOperation("{ a }")])

    expected = (200, "NOT_FOUND", ("user", "email"), {"user": None})
    seen = failed.value
    assert (seen.status, seen.code, seen.path, seen.data) == (expected if made == "error" else (200, None, (), None))
    assert answer.error is not None
    assert answer.error.code == seen.code


async def test_queries_are_tried_again_as_in_production() -> None:
    catalog = servicelink.create_mock_graphql_client()
    catalog.query.in_turn(Answer(None, 503), {"a": 1})

    assert await catalog.query("{ a }") == {"a": 1}
    assert [call.attempt for call in catalog.query.calls] == [1, 2]


async def test_a_batch_is_answered_operation_by_operation() -> None:
    catalog = servicelink.create_mock_graphql_client()
    catalog.query.return_value = {"a": 1}
    catalog.mutate.fails("BAD")
    first, second = await catalog.batch([GraphQLOperation("{ a }"), GraphQLOperation("mutation M { b }")])

    assert first.unwrap() == {"a": 1}
    assert second.error is not None
    assert second.error.code == "BAD"
    assert [call.kind for call in catalog.calls] == ["query", "mutation"]
    assert catalog.query.return_value == {"a": 1}


async def test_answers_may_hold_errors_as_graphql_has_them() -> None:
    catalog = servicelink.create_mock_graphql_client()
    error = {"message": "gone", "path": ["user"], "extensions": {"code": "NOT_FOUND"}}
    catalog.query.returns({"user": None}, errors=[error])
    with pytest.raises(servicelink.GraphQLError) as failed:
        await catalog.query(USER)

    seen = failed.value
    assert (seen.code, seen.path, seen.data, seen.errors) == ("NOT_FOUND", ("user",), {"user": None}, (error,))


def test_an_error_made_without_its_status_says_how_one_is_had() -> None:
    with pytest.raises(TypeError, match=r"GraphQLError takes a status first, not 'gone'"):
        servicelink.GraphQLError("gone")  # type: ignore[arg-type] # on purpose

    assert servicelink.RemoteError(404, "NOT_FOUND").body == ""


async def test_what_nobody_said_is_a_failure_of_the_test() -> None:
    with pytest.raises(AssertionError, match=r"^query has no answer"):
        await servicelink.create_mock_graphql_client().query("{ a }")
    with pytest.raises(AssertionError, match=r"query GetUser has no answer; say client\.query\.returns"):
        await servicelink.create_mock_graphql_client().query(USER)


def test_the_synchronous_twin_answers_without_await() -> None:
    catalog = sync.create_mock_graphql_client("catalog")
    catalog.query.returns({"a": 1})

    assert catalog.query("{ a }") == {"a": 1}
    assert isinstance(catalog, sync.GraphQLClient)


def test_a_mocked_link_answers_clients_that_the_application_made(mock_link: Callable[[str], Any]) -> None:
    catalog = sync.connect_graphql("catalog")
    link = mock_link("catalog")
    link.query.returns({"a": 1})
    link.get.returns([])

    assert catalog.query("query A { a }") == {"a": 1}
    assert sync.connect("catalog").get("/v1").json() == []
    assert [(one.kind, one.name) for one in link.operations] == [("query", "A")]
