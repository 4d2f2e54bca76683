"""The synchronous GraphQL client."""

from typing import Any, Unpack

from servicelink.calls.flow import flow
from servicelink.graphql.exchange import DEFAULT_PATH, BatchExchange, GraphQLAnswer, SingleExchange
from servicelink.graphql.surface import GraphQLMethods
from servicelink.rest.ready import until_ready
from servicelink.rest.sync_client import SyncCaller
from servicelink.settings import ClientOptions


class GraphQLClient(SyncCaller, GraphQLMethods[dict[str, Any], list[GraphQLAnswer]]):
    """As `servicelink.GraphQLClient`, without `await`. Thread-safe. Raises ValueError, and TypeError as there."""

    def wait_until_ready(self, seconds: float = 30.0) -> None:
        """Wait until the link is there and its server answers `{ __typename }`, with anything but 5xx (not 501).

        The circuit is closed then. Raises what went wrong last: LinkNotFound, ServiceUnavailable, InvalidServiceAuth.
        """
        self._driver.run(until_ready(self._line, self._probe, seconds))

    def _ask(self, exchange: SingleExchange) -> dict[str, Any]:
        data: dict[str, Any] = self._driver.run(flow(self._line, exchange))
        return data

    def _ask_all(self, exchange: BatchExchange) -> list[GraphQLAnswer]:
        answers: list[GraphQLAnswer] = self._driver.run(flow(self._line, exchange))
        return answers


def connect_graphql(name: str, *, path: str = DEFAULT_PATH, **options: Unpack[ClientOptions]) -> GraphQLClient:
    """Answer a client for the GraphQL link of that name, or for the only link to a server of that name; does no I/O.

    The options are those of `servicelink.connect_graphql`. Raises ValueError.
    """
    return GraphQLClient(service_name=name, path=path, **options)
