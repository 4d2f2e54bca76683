"""The asynchronous GraphQL client."""

from collections.abc import Coroutine
from typing import Any, Unpack

from servicelink.calls.flow import flow
from servicelink.graphql.exchange import DEFAULT_PATH, BatchExchange, GraphQLAnswer, SingleExchange
from servicelink.graphql.surface import GraphQLMethods
from servicelink.rest.client import AsyncCaller
from servicelink.rest.ready import until_ready
from servicelink.settings import ClientOptions


class GraphQLClient(
    AsyncCaller, GraphQLMethods[Coroutine[Any, Any, dict[str, Any]], Coroutine[Any, Any, list[GraphQLAnswer]]]
):
    """A client of one GraphQL server, for the application's life: `connect_graphql(name)`, or an explicit address.

    Arguments as of `ServiceClient`; `path` is where GraphQL is served, for addresses without a path. Raises ValueError.

        async with GraphQLClient(service_name="catalog", base_url="http://localhost:8080") as catalog:
            data = await catalog.query("{ products { name } }")
    """

    async def wait_until_ready(self, seconds: float = 30.0) -> None:
        """Wait until the link is there and its server answers `{ __typename }`, with anything but 5xx (not 501).

        The circuit is closed then. Raises what went wrong last: LinkNotFound, ServiceUnavailable, InvalidServiceAuth.
        """
        await self._driver.run(until_ready(self._line, self._probe, seconds))

    async def _ask(self, exchange: SingleExchange) -> dict[str, Any]:
        data: dict[str, Any] = await self._driver.run(flow(self._line, exchange))
        return data

    async def _ask_all(self, exchange: BatchExchange) -> list[GraphQLAnswer]:
        answers: list[GraphQLAnswer] = await self._driver.run(flow(self._line, exchange))
        return answers


def connect_graphql(name: str, *, path: str = DEFAULT_PATH, **options: Unpack[ClientOptions]) -> GraphQLClient:
    """Answer a client for the GraphQL link of that name, or for the only link to a server of that name; does no I/O.

    `path` is where GraphQL is served, for addresses without a path; the other options are told in
    docs/sdk/configuration.md. Raises ValueError.

        catalog = servicelink.connect_graphql("catalog")
        data = await catalog.query("query GetUser($id: ID!) { user(id: $id) { email } }", {"id": "123"})
    """
    return GraphQLClient(service_name=name, path=path, **options)
