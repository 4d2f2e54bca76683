"""The methods of a GraphQL client, for both worlds: `D` is what one operation answers, `B` what a batch does."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypedDict, TypeVar, Unpack

from servicelink.calls.options import CallOptions
from servicelink.errors import ServiceError
from servicelink.graphql.exchange import DEFAULT_PATH, BatchExchange, SingleExchange
from servicelink.graphql.operation import MUTATION, QUERY, GraphQLOperation
from servicelink.rest.caller import Caller
from servicelink.rest.fields import Headers
from servicelink.settings import ClientOptions
from servicelink_contract.rules import Protocol

D = TypeVar("D")
B = TypeVar("B")
# Asks nothing of the application; health checks of GraphQL servers do it.
PROBE = GraphQLOperation("{ __typename }")


class GraphQLOptions(TypedDict, total=False):
    """What a call takes beside its document and variables.

    `operation_name` says which operation of a document with several. `timeout` is seconds for this call,
    `attempt_timeout` for each attempt, `retries` further attempts; `idempotent` says that doing a mutation twice does
    no harm.
    """

    operation_name: str | None
    headers: Headers | None
    timeout: float | None
    attempt_timeout: float | None
    retries: int | None
    idempotent: bool | None


class BatchOptions(TypedDict, total=False):
    """What a batch takes, as `GraphQLOptions`."""

    headers: Headers | None
    timeout: float | None
    attempt_timeout: float | None
    retries: int | None
    idempotent: bool | None


# The methods for the kinds of operations; a subscription has none.
_METHODS = {QUERY: "query", MUTATION: "mutate"}
_OF_CALL = frozenset({"timeout", "attempt_timeout", "retries", "idempotent"})
_KNOWN = _OF_CALL | {"headers", "operation_name"}


class GraphQLMethods(Caller, Generic[D, B]):
    """A client's calls."""

    _protocol = Protocol.GRAPHQL
    _path: str

    def __init__(
        self,
        service_name: str,
        *,
        base_url: str | None = None,
        path: str = DEFAULT_PATH,
        api_key: str | None = None,
        shared_key: bool = False,
        **options: Unpack[ClientOptions],
    ) -> None:
        super().__init__(
            service_name=service_name, base_url=base_url, api_key=api_key, shared_key=shared_key, **options
        )
        if not path.startswith("/"):
            raise ValueError(f"path is {path!r}; it starts with /")
        self._path = path

    @abstractmethod
    def _ask(self, exchange: SingleExchange) -> D:
        """Make a call with one operation."""

    @abstractmethod
    def _ask_all(self, exchange: BatchExchange) -> B:
        """Make a call with a batch."""

    def query(self, document: str, variables: Mapping[str, Any] | None = None, **options: Unpack[GraphQLOptions]) -> D:
        """Ask a query; answers its data. It may be made twice: see `retries`.

        Raises GraphQLError for errors of the application (partial data is its `data`), RemoteError for 4xx and 5xx
        without any, LinkNotFound, ServiceUnavailable, ServiceTimeout, CircuitOpen, RateLimited, InvalidServiceAuth,
        PermissionDenied, and ServiceError for a document without such a query.
        """
        return self._call(QUERY, document, variables, dict(options))

    def mutate(self, document: str, variables: Mapping[str, Any] | None = None, **options: Unpack[GraphQLOptions]) -> D:
        """Ask a mutation; answers its data. It is made once, unless `idempotent=True`; raises as `query`."""
        return self._call(MUTATION, document, variables, dict(options))

    def batch(self, operations: Sequence[GraphQLOperation], **options: Unpack[BatchOptions]) -> B:
        """Ask several operations in one call, of a server that knows batches; answers a GraphQLAnswer for each.

        It may be made twice if all are queries. Raises as `query`, but for GraphQLError, which the answers hold.
        """
        given, asked = _known(dict(options)), tuple(operations)
        for one in asked:
            if not isinstance(one, GraphQLOperation):
                raise TypeError(f"a batch holds GraphQLOperations, and this one a {type(one).__name__}: wrap it in one")
        with self._named():
            if not asked:
                raise ServiceError(
                    "a batch holds at least one operation", next_step="Call it only where there is something to ask"
                )
            exchange = BatchExchange(
                asked, self._options_of(given), path=self._path, headers=given.get("headers"), is_batch=True
            )
        return self._ask_all(exchange)

    def _call(self, kind: str, document: str, variables: Mapping[str, Any] | None, options: dict[str, Any]) -> D:
        given = _known(options)
        with self._named():
            operation = GraphQLOperation(document, variables, given.get("operation_name"))
            if operation.kind != kind:
                step = (
                    f"Pass it to {_METHODS[operation.kind]}()" if operation.kind in _METHODS else "Ask for it otherwise"
                )
                raise ServiceError(f"the document holds a {operation.kind} and no {kind}", next_step=step)
            exchange = SingleExchange(
                (operation,), self._options_of(given), path=self._path, headers=given.get("headers")
            )
        return self._ask(exchange)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Have errors of before there is a call say whose they are."""
        try:
            yield
        except ServiceError as error:
            error.link = self._name
            raise

    def _options_of(self, given: dict[str, Any]) -> CallOptions:
        said = {name: given[name] for name in given.keys() & _OF_CALL}
        return CallOptions(**said).over(self._options) if said else self._options

    def _probe(self, options: CallOptions) -> SingleExchange:
        return SingleExchange((PROBE,), options, path=self._path)


def _known(options: dict[str, Any]) -> dict[str, Any]:
    if unknown := options.keys() - _KNOWN:
        raise TypeError(f"a call takes no {', '.join(sorted(unknown))}")
    return options
