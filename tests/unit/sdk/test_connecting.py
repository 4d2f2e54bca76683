"""A synchronous client keeps its time limit also before it is connected, and goes on from an address that is silent."""

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from sdk_faults import fine
from sdk_worlds import WORLDS, open_caller, staged

import servicelink
from servicelink import ServiceTimeout, sync

REAL = socket.getaddrinfo


@pytest.fixture
def slow_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Names are looked up for as long as the test lasts."""
    over = threading.Event()

    def look_up(*asked: Any, **more: Any) -> Any:
        over.wait()
        return REAL(*asked, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield
    over.set()


@pytest.mark.usefixtures("slow_names")
def test_a_name_that_is_looked_up_for_long_is_not_waited_for() -> None:
    with sync.ServiceClient(base_url="http://api:1", service_name="api", timeout=0.3, retries=0) as client:
        began = time.monotonic()
        with pytest.raises(ServiceTimeout):
            client.get("/")

        assert time.monotonic() - began < 3


@pytest.fixture
def silent() -> Iterator[tuple[str, int]]:
    """An address that takes no connection and refuses none: its backlog is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.2", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield listener.getsockname()
        for one in waiting:
            one.close()


class Hello(BaseHTTPRequestHandler):
    """Answers with nothing, successfully."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def answering(silent: tuple[str, int]) -> Iterator[str]:
    """The same port of another address, where there is a server."""
    with ThreadingHTTPServer(("127.0.0.1", silent[1]), Hello) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield "127.0.0.1"
        server.shutdown()
        thread.join()


def test_an_address_that_is_silent_is_passed_over_in_time(
    monkeypatch: pytest.MonkeyPatch, silent: tuple[str, int], answering: str
) -> None:
    places = [(address, silent[1]) for address in (silent[0], answering)]
    found = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", place) for place in places]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    with sync.ServiceClient(base_url=f"http://api:{silent[1]}", service_name="api", timeout=3, retries=0) as client:
        assert client.get("/").status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1:65536", "127.0.0.1:{port}", "a..b", "a" * 64, ".a", "[::1]:70000"])
@pytest.mark.parametrize("kind", WORLDS)
async def test_an_address_that_nobody_can_have_is_no_link_and_nothing_is_sent_anywhere(kind: str, host: str) -> None:
    async with staged(fine) as stage:
        # Modulo 65536 it is the server's own port.
        port = int(stage.address.rpartition(":")[2]) + 65536
        address = f"http://{host.format(port=port)}/"
        api = open_caller(kind, service_name="api", base_url=address, api_key="AAAA", timeout=3, retries=0)
        with pytest.raises(servicelink.LinkNotFound, match="address"):
            await api.get("/")
        await api.close()

    assert stage.connections == 0
