"""Code of those who call GraphQL servers, and of those who choose a protocol, as `rest.py`."""

from typing import Any, assert_type

import servicelink
from servicelink import sync

PRODUCT = "query Product($id: ID!) { product(id: $id) { name } }"


async def ask() -> None:
    """Ask asynchronously."""
    async with servicelink.connect_graphql("catalog", timeout=2, retries=1) as catalog:
        assert_type(catalog, servicelink.GraphQLClient)
        data = await catalog.query(PRODUCT, {"id": "1"}, operation_name="Product", timeout=0.5)
        assert_type(data, dict[str, Any])
        assert_type(await catalog.mutate("mutation { drop }", idempotent=True), dict[str, Any])
        answers = await catalog.batch([servicelink.GraphQLOperation(PRODUCT, {"id": "1"})], retries=0)
        assert_type(answers, list[servicelink.GraphQLAnswer])
        assert_type(answers[0].unwrap(), dict[str, Any])
        assert_type(answers[0].error, servicelink.GraphQLError | None)
        assert_type(catalog.with_options(retries=0), servicelink.GraphQLClient)
        await catalog.wait_until_ready(1)


def ask_synchronously() -> None:
    """Ask synchronously."""
    with sync.GraphQLClient(service_name="catalog", base_url="http://a", path="/query", api_key="k") as catalog:
        assert_type(catalog.query("{ products { name } }", headers={"a": "b"}), dict[str, Any])
        assert_type(catalog.batch([servicelink.GraphQLOperation("{ a }")]), list[servicelink.GraphQLAnswer])
    assert_type(sync.connect_graphql("catalog"), sync.GraphQLClient)


def fail(error: servicelink.GraphQLError) -> None:
    """Look at an error."""
    assert_type(error.path, tuple[str | int, ...])
    assert_type(error.data, dict[str, Any] | None)
    assert_type(error.code, str | None)


def choose(streams: bool) -> str:  # noqa: FBT001 - a wish is one
    """Choose a protocol."""
    choice = servicelink.choose_protocol(external=False, streaming=streams, flexible_queries=not streams)
    assert_type(choice, servicelink.ProtocolChoice)
    assert_type(choice.protocol, servicelink.Protocol)
    match choice.protocol:
        case servicelink.Protocol.REST | servicelink.Protocol.GRPC:
            return choice.reason
        case servicelink.Protocol.GRAPHQL:
            return str(choice)
