"""gRPC clients for tests of applications: the transport is mocked, everything else runs.

    users = create_mock_grpc_client("users")
    users.method("GetUser").returns(User(user_id="123"))

    assert await name_of(users.stub(UserServiceStub), "123") == "..."
    assert users.method("GetUser").calls[0].request.user_id == "123"

As the clients of `servicelink.testing`: retries, circuit breaker, interceptors and errors are the real ones, messages
become bytes and messages again, and time is the test's.
"""

from typing import Unpack

from servicelink import sync
from servicelink.calls.breaker import CircuitBreaker
from servicelink.calls.drive import AsyncDriver, Driver
from servicelink.calls.line import Clock
from servicelink.errors import ServiceError
from servicelink.grpc.client import GrpcClient
from servicelink.grpc.mocked import GrpcAnswers, GrpcScript, RecordedRpc
from servicelink.grpc.mocked_aio import AioMockWire
from servicelink.grpc.mocked_sync import MockWire
from servicelink.grpc.schema import Proto, Schema, plain_name
from servicelink.grpc.surface import Caller, GrpcOptions
from servicelink.testing import MockClock, mock_source

__all__ = [
    "GrpcAnswers",
    "MockGrpcClient",
    "RecordedRpc",
    "SyncMockGrpcClient",
    "create_mock_grpc_client",
    "create_sync_mock_grpc_client",
]


def __dir__() -> list[str]:
    # As of `servicelink.testing`.
    return __all__


class MockedMethods:
    """A mocked client: a test's clock, a link of its own and a script are in place of what is outside of it."""

    clock: MockClock
    _script: GrpcScript
    _caller: Caller
    _schema: Schema | None

    def _take_over(self, name: str) -> None:
        line, self.clock, self._script = self._caller.line, MockClock(), GrpcScript()
        line.source = mock_source(name)
        line.clock = Clock(now=self.clock.now)
        line.breaker = line.breaker or CircuitBreaker(name, clock=self.clock.now)

    @property
    def calls(self) -> list[RecordedRpc]:
        """Every attempt, of any method, by method."""
        return self._script.calls

    def method(self, name: str) -> GrpcAnswers:
        """Say what a method answers, and see what it was asked; `GetUser`, `getUser` and `get_user` are the same.

        Raises ServiceError for a method that is not in `proto`, nor in a stub where there is one by now.
        """
        self._require(name)
        return GrpcAnswers(self._script.told(name))

    def _require(self, name: str) -> None:
        stubbed = {operation.rpartition("/")[2] for operation in self._caller.asked}
        if plain_name(name) in map(plain_name, stubbed):
            return
        if self._schema is not None:
            self._schema.method(name)
        elif stubbed:
            known = ", ".join(sorted(stubbed))
            raise ServiceError(f"no stub of this client has a method {name}", next_step=f"There is {known}")


class MockGrpcClient(MockedMethods, GrpcClient):
    """A `GrpcClient` whose server is mocked; `method("GetUser").returns()` and its like say what that answers."""

    def __init__(
        self,
        name: str,
        *,
        proto: Proto | None = None,
        package: str = "",
        service: str = "",
        **options: Unpack[GrpcOptions],
    ) -> None:
        GrpcClient.__init__(self, service_name=name, proto=proto, package=package, service=service, **options)
        self._take_over(name)
        self._driver = AsyncDriver(AioMockWire(self._script), self.clock.sleep)


class SyncMockGrpcClient(MockedMethods, sync.GrpcClient):
    """A `sync.GrpcClient` whose server is mocked; `method("GetUser").returns()` and its like say what that answers."""

    def __init__(
        self,
        name: str,
        *,
        proto: Proto | None = None,
        package: str = "",
        service: str = "",
        **options: Unpack[GrpcOptions],
    ) -> None:
        sync.GrpcClient.__init__(self, service_name=name, proto=proto, package=package, service=service, **options)
        self._take_over(name)
        self._driver = Driver(MockWire(self._script), self.clock.advance)


def create_mock_grpc_client(
    name: str = "service",
    *,
    proto: Proto | None = None,
    package: str = "",
    service: str = "",
    **options: Unpack[GrpcOptions],
) -> MockGrpcClient:
    """Answer a gRPC client whose server is mocked; `client.stub(UserServiceStub)` is a stub over it.

    Options as `servicelink.connect_grpc`.
    """
    return MockGrpcClient(name, proto=proto, package=package, service=service, **options)


def create_sync_mock_grpc_client(
    name: str = "service",
    *,
    proto: Proto | None = None,
    package: str = "",
    service: str = "",
    **options: Unpack[GrpcOptions],
) -> SyncMockGrpcClient:
    """As `create_mock_grpc_client`, without `await`; also `servicelink.sync.create_mock_grpc_client`."""
    return SyncMockGrpcClient(name, proto=proto, package=package, service=service, **options)
