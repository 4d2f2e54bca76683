"""Mocking a link for all clients of a process: what `mock_link` of the pytest plugin does."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from servicelink.binding import Binding, FoundSource
from servicelink.calls.call import Outcome
from servicelink.calls.flow import Send
from servicelink.graphql.operation import MUTATION, QUERY
from servicelink.mocking import (
    Answers,
    AsyncMockWire,
    GraphQLAnswers,
    MockWire,
    RecordedCall,
    RecordedOperation,
    Script,
)
from servicelink.rest.aiohttp_wire import AiohttpWire
from servicelink.rest.httpcore_wire import HttpcoreWire
from servicelink.testing import mock_binding

if TYPE_CHECKING:
    from servicelink.grpc.mocked import GrpcAnswers, GrpcScript, RecordedRpc


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


class MockedLinks:
    """The links that are mocked in one test; real ones are left alone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._links: dict[str, MockedLink] = {}
        monkeypatch.setattr(FoundSource, "current", self._sourced(FoundSource.current))
        monkeypatch.setattr(FoundSource, "reload", self._sourced(FoundSource.reload))
        monkeypatch.setattr(AiohttpWire, "send", self._async_sent(AiohttpWire.send))
        monkeypatch.setattr(HttpcoreWire, "send", self._sent(HttpcoreWire.send))
        if find_spec("grpc") is not None:
            self._mock_grpc(monkeypatch)

    def mock(self, name: str) -> MockedLink:
        """Mock a link by the name that the application connects to."""
        return self._links.setdefault(name, MockedLink(name))

    def _mock_grpc(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from servicelink.grpc.aio_wire import AioWire  # noqa: PLC0415 - other protocols do without grpcio
        from servicelink.grpc.mocked_aio import AioMockWire  # noqa: PLC0415 - as above
        from servicelink.grpc.mocked_sync import MockWire as MockRpcWire  # noqa: PLC0415 - as above
        from servicelink.grpc.sync_wire import SyncWire  # noqa: PLC0415 - as above

        real_async, real = AioWire.send, SyncWire.send

        async def send_async(wire: AioWire, send: Send) -> Outcome:
            link = self._links.get(send.call.link)
            if link is None:
                return await real_async(wire, send)
            return await AioMockWire(link.grpc_script).send(send)

        def send(wire: SyncWire, send: Send) -> Outcome:
            link = self._links.get(send.call.link)
            return real(wire, send) if link is None else MockRpcWire(link.grpc_script).send(send)

        monkeypatch.setattr(AioWire, "send", send_async)
        monkeypatch.setattr(SyncWire, "send", send)

    def _sourced(self, real: Callable[[FoundSource], Binding]) -> Callable[[FoundSource], Binding]:
        def current(source: FoundSource) -> Binding:
            link = self._links.get(source.name)
            return real(source) if link is None else link.binding

        return current

    def _sent(self, real: Callable[[HttpcoreWire, Send], Outcome]) -> Callable[[HttpcoreWire, Send], Outcome]:
        def send(wire: HttpcoreWire, send: Send) -> Outcome:
            link = self._links.get(send.call.link)
            return real(wire, send) if link is None else MockWire(link.script).send(send)

        return send

    def _async_sent(self, real: Callable[[AiohttpWire, Send], Any]) -> Callable[[AiohttpWire, Send], Any]:
        async def send(wire: AiohttpWire, send: Send) -> Outcome:
            link = self._links.get(send.call.link)
            found: Outcome = await (real(wire, send) if link is None else AsyncMockWire(link.script).send(send))
            return found

        return send
