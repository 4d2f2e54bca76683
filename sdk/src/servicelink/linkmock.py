"""Mocking a link for all clients of a process: what `mock_link` of the pytest plugin does."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

from servicelink.binding import Binding, FoundSource
from servicelink.calls.call import Outcome
from servicelink.calls.flow import Send
from servicelink.errors import LinkNotFound
from servicelink.mocking import AsyncMockWire, MockWire
from servicelink.rest.aiohttp_wire import AiohttpWire
from servicelink.rest.httpcore_wire import HttpcoreWire
from servicelink.testing import MockedLink


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
            if link is not None:
                return link.binding
            try:
                return real(source)
            except LinkNotFound as error:
                error.next_step = f'In this test mock_link("{source.name}") mocks it. {error.next_step}'
                raise

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
