"""A client finds its link, sends the credential only there, follows its rotation and says what went wrong."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import servicelink
from servicelink_contract.binding import LinkDocument, render_link_document
from servicelink_contract.key import render_key

OLD = render_key("AAAAAAAA", b"a" * 32)
NEW = render_key("BBBBBBBB", b"b" * 32)
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
Mount = Callable[[Path, Mapping[str, str]], None]


@dataclass(slots=True)
class Server:
    """An application that takes one key, and notes what it was sent."""

    accepted: str = OLD.text
    seen: list[Request] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    on_refusal: Callable[[], None] = lambda: None
    address: str = ""

    async def answer(self, request: Request) -> Response:
        """Answer by the path."""
        self.seen.append(request)
        self.bodies.append(await request.body())
        if request.headers.get("x-service-auth") != self.accepted:
            self.on_refusal()
            return JSONResponse({"error": {"code": "INVALID_SERVICE_AUTH"}}, 403)
        match request.url.path:
            case "/denied":
                return JSONResponse({"error": {"code": "PERMISSION_DENIED"}}, 403)
            case "/broken":
                return JSONResponse({"error": {"code": "OUT_OF_STOCK"}}, 409)
            case "/elsewhere":
                return Response(status_code=302, headers={"location": "/here", "set-cookie": "a=b"})
            case "/never":
                # Until the client is gone.
                await request.receive()
        return JSONResponse({"ok": True})


@dataclass(slots=True)
class World:
    """A server and the client's bindings."""

    server: Server
    root: Path
    mount: Mount

    def bind(self, link: str = "web-to-api", key: str = OLD.text, **changes: Any) -> None:
        """Mount a binding to the server."""
        document = LinkDocument(**{"link": f"shop/{link}", "server": "backend/api", **changes})
        files = {"uri": self.server.address, "api-key": key, "protocol": "rest"}
        self.mount(self.root / link, {**files, "link.json": render_link_document(document)})


@pytest.fixture
async def world(
    tmp_path: Path, mount: Mount, serve: Callable[[Any], Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> World:
    server = Server()
    route = Route("/{path:path}", server.answer, methods=METHODS)
    server.address = await serve(Starlette(routes=[route]))
    monkeypatch.setenv("SERVICE_BINDING_ROOT", str(tmp_path / "bindings"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("INTERNAL_API_KEY", raising=False)
    return World(server, tmp_path / "bindings", mount)


@pytest.mark.parametrize("name", ["web-to-api", "api", "backend/api"])
async def test_a_link_is_found_by_its_name_and_by_its_servers(world: World, name: str) -> None:
    world.bind()
    async with servicelink.connect(name) as api:
        answer = await api.post("/v1/charges", json={"amount": 1}, params={"q": "x"})

    assert answer.json() == {"ok": True}
    assert (str(world.server.seen[0].url.query), world.server.bodies) == ("q=x", [b'{"amount":1}'])


async def test_two_links_to_one_server_are_listed(world: World) -> None:
    world.bind("one")
    world.bind("two")

    with pytest.raises(servicelink.LinkNotFound, match="one, two"):
        await servicelink.connect("api").get("/")


@pytest.mark.parametrize("url", ["API_SERVICE_URL", "API_URL"])
@pytest.mark.parametrize("key", ["API_API_KEY", "API_API_KEY_FILE", "INTERNAL_API_KEY"])
async def test_variables_serve_where_there_is_no_binding(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, url: str, key: str
) -> None:
    (tmp_path / "key").write_text(OLD.text + "\n")
    monkeypatch.setenv(url, world.server.address)
    monkeypatch.setenv(key, str(tmp_path / "key") if key.endswith("FILE") else OLD.text)

    async with servicelink.connect("api") as api:
        assert (await api.get("/")).status_code == 200


async def test_a_link_that_is_nowhere_is_an_error_that_says_where_it_was_looked_for(world: World) -> None:
    with pytest.raises(servicelink.LinkNotFound) as missing:
        await servicelink.connect("no-such").get("/")

    for place in (str(world.root / "no-such"), "NO_SUCH_SERVICE_URL", "NO_SUCH_URL"):
        assert place in str(missing.value)


async def test_an_address_without_a_key_is_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_URL", world.server.address)

    with pytest.raises(servicelink.LinkNotFound, match="INTERNAL_API_KEY"):
        await servicelink.connect("api").get("/")


async def test_connecting_does_no_io_so_the_link_may_come_later(world: World) -> None:
    async with servicelink.connect("web-to-api") as api:
        world.bind()
        assert (await api.get("/")).status_code == 200


@pytest.mark.parametrize("method", METHODS)
async def test_every_method_reaches_the_server(world: World, method: str) -> None:
    world.bind()
    async with servicelink.connect("api") as api:
        await getattr(api, method.lower())("/")

    assert world.server.seen[0].method == method


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "//elsewhere.example/", "https://elsewhere.example/"])
async def test_the_credential_goes_to_no_other_origin(world: World, url: str) -> None:
    world.bind()

    with pytest.raises(servicelink.ServiceError, match="leads elsewhere"):
        await servicelink.connect("api").get(url)


async def test_redirects_are_answers_and_cookies_are_forgotten(world: World) -> None:
    world.bind()
    async with servicelink.connect("api") as api:
        answer = await api.get("/elsewhere")
        await api.get("/")

    assert (answer.status_code, len(world.server.seen)) == (302, 2)
    assert "cookie" not in world.server.seen[1].headers


async def test_an_encoded_url_arrives_as_it_is(world: World) -> None:
    world.bind()
    async with servicelink.connect("api") as api:
        await api.get("/a/%2e%2e/b%2Fc%20d?q=%41")

    assert world.server.seen[0].scope["raw_path"] == b"/a/%2e%2e/b%2Fc%20d"
    assert world.server.seen[0].scope["query_string"] == b"q=%41"


@pytest.mark.parametrize("given", ["client", "call", "link"])
async def test_a_call_ends_at_its_time_limit(world: World, given: str) -> None:
    world.bind(timeout=0.05 if given == "link" else 60.0)
    options = {"timeout": 0.05} if given == "call" else {}
    async with servicelink.connect("api", timeout=0.05 if given == "client" else None) as api:
        with pytest.raises(servicelink.ServiceTimeout, match=r"0\.05 s"):
            await api.get("/never", **options)


async def test_a_rotated_key_is_used_by_the_next_refused_call_itself(world: World) -> None:
    world.bind()
    async with servicelink.connect("api") as api:
        await api.get("/")
        world.server.accepted = NEW.text
        world.server.on_refusal = lambda: world.bind(key=NEW.text)
        answer = await api.post("/", json={"n": 1})

    assert answer.status_code == 200
    assert world.server.bodies[1:] == [b'{"n":1}'] * 2


async def test_a_refused_key_that_did_not_change_is_sent_once(world: World) -> None:
    world.bind()
    world.server.accepted = NEW.text
    async with servicelink.connect("api") as api:
        with pytest.raises(servicelink.InvalidServiceAuth) as refused:
            await api.get("/x", headers={"X-Request-ID": "r-1"})

    error = refused.value
    assert (error.link, error.operation, error.request_id) == ("shop/web-to-api", "GET /x", "r-1")
    assert error.next_step in str(error)
    assert len(world.server.seen) == 1
    assert OLD.text not in f"{error!s}{error!r}{vars(error)}"


async def test_a_denied_call_raises(world: World) -> None:
    world.bind()
    async with servicelink.connect("api") as api:
        with pytest.raises(servicelink.PermissionDenied):
            await api.get("/denied")


async def test_the_applications_errors_are_responses_unless_asked_otherwise(world: World) -> None:
    world.bind()
    async with servicelink.connect("api") as api:
        answer = await api.get("/broken")
        with pytest.raises(servicelink.RemoteError) as broken:
            await api.get("/broken", raise_for_status=True)

    assert answer.status_code == 409
    assert (broken.value.status, broken.value.code) == (409, "OUT_OF_STOCK")
    assert "OUT_OF_STOCK" in broken.value.body


async def test_nothing_that_is_handed_back_holds_the_credential(world: World) -> None:
    world.bind()
    async with servicelink.connect("api") as api:
        answer = await api.get("/")

    assert "x-service-auth" not in answer.request.headers
    assert answer.elapsed.total_seconds() > 0


async def test_a_server_that_is_not_there_has_seen_nothing(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
    async with servicelink.ServiceClient(service_name="api", base_url=f"http://127.0.0.1:{free}") as api:
        with pytest.raises(servicelink.ServiceUnavailable) as away:
            await api.get("/")

    assert away.value.unsent


async def test_a_dropped_call_is_not_sent_again(world: World) -> None:
    received: list[bytes] = []

    async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.read(65536):
            received.append(head)
            if len(received) > 1:
                break
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(drop, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    async with server, servicelink.ServiceClient(service_name="api", base_url=address) as api:
        await api.get("/")
        with pytest.raises(servicelink.ServiceUnavailable) as cut:
            await api.get("/")

    assert (len(received), cut.value.unsent) == (2, False)
    assert b"x-service-auth" not in received[0]


def test_a_client_serves_any_event_loop() -> None:
    async def use(api: servicelink.ServiceClient) -> None:
        with pytest.raises(servicelink.ServiceUnavailable):
            await api.get("/")
        await api.aclose()

    api = servicelink.ServiceClient(service_name="api", base_url="http://127.0.0.1:1")
    asyncio.run(use(api))
    asyncio.run(use(api))
