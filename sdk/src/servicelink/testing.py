"""Clients for tests of applications: the transport is mocked, everything else runs.

    payments = create_mock_service_client("payments")
    payments.post.returns({"id": "ch_1"}, status=201)

    assert await charge(payments, 100) == "ch_1"
    assert payments.post.calls[0].json == {"amount": 100}

Retries, circuit breaker, interceptors and errors are the real ones, so that a test sees what production would. Time is
the test's: pauses pass at once, and `client.clock.advance(30)` lets an open circuit try again.
"""

import time
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack
from typing import Protocol as Interface

import httpx

from servicelink import sync
from servicelink.binding import Binding, Credential, FixedSource, Source
from servicelink.calls.breaker import CircuitBreaker
from servicelink.calls.drive import AsyncDriver, Driver
from servicelink.calls.line import Clock, Line
from servicelink.graphql.client import GraphQLClient
from servicelink.graphql.operation import MUTATION, QUERY
from servicelink.graphql.surface import GraphQLOptions
from servicelink.mocked_answers import Answer, Answers, GraphQLAnswers, RecordedCall, RecordedOperation, Told
from servicelink.mocking import AsyncMockWire, MockWire, Script
from servicelink.rest.client import ServiceClient
from servicelink.rest.surface import RequestOptions
from servicelink.sandbox import LinkSandbox, SandboxLink
from servicelink.settings import ClientOptions
from servicelink_contract.binding import DEFAULT_HEADER
from servicelink_contract.key import render_key

if TYPE_CHECKING:
    from servicelink.grpc.mocked import GrpcAnswers, GrpcScript, RecordedRpc

__all__ = [
    "Answer",
    "Answers",
    "GraphQLAnswers",
    "LinkSandbox",
    "MockClock",
    "MockGraphQLClient",
    "MockLink",
    "MockMethod",
    "MockOperation",
    "MockServiceClient",
    "MockedLink",
    "RecordedCall",
    "RecordedOperation",
    "SandboxLink",
    "SyncMockGraphQLClient",
    "SyncMockServiceClient",
    "create_mock_graphql_client",
    "create_mock_service_client",
    "create_sync_mock_graphql_client",
    "create_sync_mock_service_client",
]


def __dir__() -> list[str]:
    # For whoever has names completed: what is imported here is not offered.
    return __all__


R = TypeVar("R")
# A key that no server knows.
_KEY = render_key("MOCKMOCK", bytes(32))
_numbers = count(1)


class MockClock:
    """Time as a test wants it, in seconds; it stands still unless it is moved."""

    def __init__(self) -> None:
        # As the time limits of calls that are being served are counted: with another beginning they would have passed
        # long ago, or be ages away.
        self._seconds = time.monotonic()

    def now(self) -> float:
        """Answer the time."""
        return self._seconds

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._seconds += seconds

    async def sleep(self, seconds: float) -> None:
        """Let time pass, asynchronously."""
        self.advance(seconds)


class MockMethod(Answers, Generic[R]):
    """A method of a mocked client: calling it makes the call, the rest says what the server answers."""

    def __init__(self, told: Told[RecordedCall], call: Callable[..., R]) -> None:
        super().__init__(told)
        self._call = call

    def __call__(self, url: str | httpx.URL, **options: Unpack[RequestOptions]) -> R:
        """Make a call; options as `ServiceClient.request`."""
        return self._call(url, **options)


class MockOperation(GraphQLAnswers, Generic[R]):
    """Queries or mutations of a mocked client: calling it makes the call, the rest says what the server answers."""

    def __init__(self, told: Told[RecordedOperation], call: Callable[..., R]) -> None:
        super().__init__(told)
        self._call = call

    def __call__(
        self, document: str, variables: Mapping[str, Any] | None = None, **options: Unpack[GraphQLOptions]
    ) -> R:
        """Make a call; options as `GraphQLClient.query`."""
        return self._call(document, variables, options)


class Mocked:
    """A mocked client: a test's clock, a link of its own and a script are in place of what is outside of it."""

    clock: MockClock
    _script: Script
    _line: Line

    def _take_over(self, name: str) -> None:
        line, self.clock, self._script = self._line, MockClock(), Script()
        line.source = mock_source(name)
        line.clock = Clock(now=self.clock.now)
        line.breaker = line.breaker or CircuitBreaker(name, clock=self.clock.now)


class MockMethods(Mocked, Generic[R]):
    """The methods of a mocked client."""

    request: Callable[..., R]

    @property
    def calls(self) -> list[RecordedCall]:
        """Every attempt, of any method."""
        return self._script.calls

    @property
    def get(self) -> MockMethod[R]:
        """GET: call it, or say what it answers."""
        return self._method("GET")

    @property
    def post(self) -> MockMethod[R]:
        """POST: call it, or say what it answers."""
        return self._method("POST")

    @property
    def put(self) -> MockMethod[R]:
        """PUT: call it, or say what it answers."""
        return self._method("PUT")

    @property
    def patch(self) -> MockMethod[R]:
        """PATCH: call it, or say what it answers."""
        return self._method("PATCH")

    @property
    def delete(self) -> MockMethod[R]:
        """DELETE: call it, or say what it answers."""
        return self._method("DELETE")

    @property
    def head(self) -> MockMethod[R]:
        """HEAD: call it, or say what it answers."""
        return self._method("HEAD")

    @property
    def options(self) -> MockMethod[R]:
        """OPTIONS: call it, or say what it answers."""
        return self._method("OPTIONS")

    def _method(self, method: str) -> MockMethod[R]:
        return MockMethod(self._script.told(method), partial(self.request, method))


class MockOperations(Mocked, Generic[R]):
    """Queries and mutations of a mocked client."""

    _call: Callable[..., R]

    @property
    def calls(self) -> list[RecordedOperation]:
        """Every attempt, also those of batches; queries first."""
        return self._script.operations

    @property
    def query(self) -> MockOperation[R]:
        """Queries: call it, or say what they answer."""
        return self._operation(QUERY)

    @property
    def mutate(self) -> MockOperation[R]:
        """Mutations: call it, or say what they answer."""
        return self._operation(MUTATION)

    def _operation(self, kind: str) -> MockOperation[R]:
        return MockOperation(self._script.told_of(kind), partial(self._call, kind))


class MockServiceClient(MockMethods[Coroutine[Any, Any, httpx.Response]], ServiceClient):
    """A `ServiceClient` whose server is mocked; `get.returns()` and its like say what that answers."""

    def __init__(self, name: str, **options: Unpack[ClientOptions]) -> None:
        ServiceClient.__init__(self, service_name=name, **options)
        self._take_over(name)
        self._driver = AsyncDriver(AsyncMockWire(self._script), self.clock.sleep)


class SyncMockServiceClient(MockMethods[httpx.Response], sync.ServiceClient):
    """A `sync.ServiceClient` whose server is mocked; `get.returns()` and its like say what that answers."""

    def __init__(self, name: str, **options: Unpack[ClientOptions]) -> None:
        sync.ServiceClient.__init__(self, service_name=name, **options)
        self._take_over(name)
        self._driver = Driver(MockWire(self._script), self.clock.advance)


class MockGraphQLClient(MockOperations[Coroutine[Any, Any, dict[str, Any]]], GraphQLClient):
    """A `GraphQLClient` whose server is mocked; `query.returns()` and its like say what that answers."""

    def __init__(self, name: str, **options: Unpack[ClientOptions]) -> None:
        GraphQLClient.__init__(self, service_name=name, **options)
        self._take_over(name)
        self._driver = AsyncDriver(AsyncMockWire(self._script), self.clock.sleep)


class SyncMockGraphQLClient(MockOperations[dict[str, Any]], sync.GraphQLClient):
    """A `sync.GraphQLClient` whose server is mocked; `query.returns()` and its like say what that answers."""

    def __init__(self, name: str, **options: Unpack[ClientOptions]) -> None:
        sync.GraphQLClient.__init__(self, service_name=name, **options)
        self._take_over(name)
        self._driver = Driver(MockWire(self._script), self.clock.advance)


def create_mock_service_client(name: str = "service", **options: Unpack[ClientOptions]) -> MockServiceClient:
    """Answer a client whose server is mocked; options as `servicelink.connect`."""
    return MockServiceClient(name, **options)


def create_sync_mock_service_client(name: str = "service", **options: Unpack[ClientOptions]) -> SyncMockServiceClient:
    """As `create_mock_service_client`, without `await`; also `servicelink.sync.create_mock_service_client`."""
    return SyncMockServiceClient(name, **options)


def create_mock_graphql_client(name: str = "service", **options: Unpack[ClientOptions]) -> MockGraphQLClient:
    """Answer a GraphQL client whose server is mocked; options as `servicelink.connect_graphql`."""
    return MockGraphQLClient(name, **options)


def create_sync_mock_graphql_client(name: str = "service", **options: Unpack[ClientOptions]) -> SyncMockGraphQLClient:
    """As `create_mock_graphql_client`, without `await`; also `servicelink.sync.create_mock_graphql_client`."""
    return SyncMockGraphQLClient(name, **options)


class MockedLink:
    """A link whose server is mocked: `get.returns()` and its like say what that answers."""

    def __init__(self, name: str) -> None:
        self.binding = mock_binding(name)
        self.script = Script()
        self.get, self.post, self.put = self._method("GET"), self._method("POST"), self._method("PUT")
        self.patch, self.delete = self._method("PATCH"), self._method("DELETE")
        self.head, self.options = self._method("HEAD"), self._method("OPTIONS")
        self.query, self.mutate = (GraphQLAnswers(self.script.told_of(kind)) for kind in (QUERY, MUTATION))
        self._rpcs: GrpcScript | None = None

    @property
    def calls(self) -> list[RecordedCall]:
        """Every attempt, of any method."""
        return self.script.calls

    @property
    def operations(self) -> list[RecordedOperation]:
        """Every attempt of a GraphQL operation."""
        return self.script.operations

    @property
    def rpcs(self) -> "list[RecordedRpc]":
        """Every attempt of a gRPC call, by method."""
        return self.grpc_script.calls

    def method(self, name: str) -> "GrpcAnswers":
        """Say what a gRPC method answers, and see what it was asked: `GetUser`, `getUser` or `get_user`."""
        from servicelink.grpc.mocked import GrpcAnswers  # noqa: PLC0415 - other protocols do without grpcio

        return GrpcAnswers(self.grpc_script.told(name))

    @property
    def grpc_script(self) -> "GrpcScript":
        """What its gRPC methods answer."""
        from servicelink.grpc.mocked import GrpcScript  # noqa: PLC0415 - as above

        if self._rpcs is None:
            self._rpcs = GrpcScript()
        return self._rpcs

    def _method(self, method: str) -> Answers:
        return Answers(self.script.told(method))


class MockLink(Interface):
    """The fixture `mock_link`, for annotations: called with a link's name, it mocks the server of all its clients."""

    def __call__(self, name: str) -> MockedLink:
        """Mock a link by the name that the application connects to; the same name answers the same `MockedLink`."""


def mock_source(name: str) -> Source:
    """Answer where a mocked client finds its link."""
    return FixedSource(mock_binding(name))


def mock_binding(name: str) -> Binding:
    """Answer the binding of a mocked link."""
    # An address of its own: what clients learnt of a link in one test, another must not inherit.
    # With a port, which gRPC asks for.
    uri = f"http://mock-{next(_numbers)}.invalid:80"
    return Binding(name, uri, Credential(DEFAULT_HEADER, _KEY.text, _KEY.kid), name)
