"""A client finds its link, sends the credential only there, follows its rotation and says what went wrong."""

import asyncio
import gzip
import io
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from sdk_worlds import WORLDS, Caller, Hands, in_thread, open_caller
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import servicelink
from servicelink import CallRow, Protocol, sync
from servicelink.mounted import swap
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
            case "/forbidden":
                return JSONResponse({"error": {"code": "NOT_YOURS"}}, 403)
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
    """A server, the client's bindings, and clients of one kind."""

    kind: str
    server: Server
    root: Path
    mount: Mount
    stack: AsyncExitStack

    def bind(self, link: str = "web-to-api", key: str = OLD.text, **changes: Any) -> None:
        """Mount a binding to the server."""
        document = LinkDocument(**{"link": f"shop/{link}", "server": "backend/api", **changes})
        files = {"uri": self.server.address, "api-key": key, "protocol": "rest"}
        self.mount(self.root / link, {**files, "link.json": render_link_document(document)})

    def connect(self, name: str = "api", hands: Hands | None = None, **options: Any) -> Caller:
        """Answer a client, closed at the test's end."""
        caller = open_caller(self.kind, hands, service_name=name, **options)
        self.stack.push_async_callback(caller.close)
        return caller


@pytest.fixture(params=WORLDS)
async def world(  # noqa: PLR0917 - fixtures
    tmp_path: Path,
    mount: Mount,
    serve: Callable[[Any], Awaitable[str]],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> AsyncIterator[World]:
    server = Server()
    route = Route("/{path:path}", server.answer, methods=METHODS)
    server.address = await serve(Starlette(routes=[route]))
    monkeypatch.setenv("SERVICE_BINDING_ROOT", str(tmp_path / "bindings"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("INTERNAL_API_KEY", raising=False)
    async with AsyncExitStack() as stack:
        yield World(request.param, server, tmp_path / "bindings", mount, stack)


@pytest.mark.parametrize("name", ["web-to-api", "api", "backend/api"])
async def test_a_link_is_found_by_its_name_and_by_its_servers(world: World, name: str) -> None:
    world.bind()
    answer = await world.connect(name).post("/v1/charges", json={"amount": 1}, params={"q": "x"})

    assert answer.json() == {"ok": True}
    assert (str(world.server.seen[0].url.query), world.server.bodies) == ("q=x", [b'{"amount":1}'])


async def test_two_links_to_one_server_are_listed(world: World) -> None:
    world.bind("one")
    world.bind("two")

    with pytest.raises(servicelink.LinkNotFound, match="one, two"):
        await world.connect().get("/")


@pytest.mark.parametrize("url", ["API_SERVICE_URL", "API_URL"])
@pytest.mark.parametrize("key", ["API_API_KEY", "API_API_KEY_FILE", "INTERNAL_API_KEY"])
async def test_variables_serve_where_there_is_no_binding(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, url: str, key: str
) -> None:
    (tmp_path / "key").write_text(OLD.text + "\n")
    monkeypatch.setenv(url, world.server.address)
    monkeypatch.setenv(key, str(tmp_path / "key") if key.endswith("FILE") else OLD.text)

    assert (await world.connect().get("/")).status_code == 200


async def test_a_key_file_of_a_binding_goes_in_the_header_that_the_binding_names(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    swap(tmp_path / "pay", {"api-key": OLD.text, "header": "x-pay-key"})
    monkeypatch.setenv("API_URL", world.server.address)
    monkeypatch.setenv("API_API_KEY_FILE", str(tmp_path / "pay" / "api-key"))

    # The server of these tests looks elsewhere.
    with pytest.raises(servicelink.InvalidServiceAuth):
        await world.connect().get("/")

    assert world.server.seen[0].headers["x-pay-key"] == OLD.text
    assert "x-service-auth" not in world.server.seen[0].headers


async def test_a_server_that_takes_certificates_is_never_shown_the_shared_key(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("API_URL", world.server.address)
    monkeypatch.setenv("API_TLS_DIR", str(tmp_path / "pay"))
    monkeypatch.setenv("INTERNAL_API_KEY", OLD.text)

    with pytest.raises(servicelink.LinkNotFound, match="pay"):
        await world.connect().get("/")

    assert world.server.seen == []


async def test_a_service_is_found_by_the_variable_that_existing_services_set(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFICATION_SERVICE_URL", world.server.address)
    monkeypatch.setenv("INTERNAL_API_KEY", f"{OLD.text}, {NEW.text}")

    for name in ("notification", "notification-service", "shop/notification"):
        assert (await world.connect(name).get("/")).status_code == 200


async def test_a_link_that_is_nowhere_is_an_error_that_says_where_it_was_looked_for(world: World) -> None:
    with pytest.raises(servicelink.LinkNotFound) as missing:
        await world.connect("no-such").get("/")

    for place in (str(world.root / "no-such"), "NO_SUCH_SERVICE_URL", "NO_SUCH_URL"):
        assert place in str(missing.value)


async def test_an_address_without_a_key_is_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_URL", world.server.address)

    with pytest.raises(servicelink.LinkNotFound, match="INTERNAL_API_KEY"):
        await world.connect().get("/")


async def test_an_explicit_address_gets_the_shared_key_only_when_asked_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERNAL_API_KEY", OLD.text)
    plain = world.connect(base_url=world.server.address)
    keyed = world.connect(base_url=world.server.address, shared_key=True)

    with pytest.raises(servicelink.InvalidServiceAuth):
        await plain.get("/")
    assert "x-service-auth" not in world.server.seen[0].headers
    assert (await keyed.get("/")).status_code == 200


def test_a_key_without_an_address_and_a_shared_key_that_is_not_there_are_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("INTERNAL_API_KEY", raising=False)

    with pytest.raises(ValueError, match="base_url"):
        servicelink.ServiceClient(service_name="api", api_key=OLD.text)
    with pytest.raises(servicelink.LinkNotFound, match="INTERNAL_API_KEY"):
        servicelink.ServiceClient(service_name="api", base_url="http://api", shared_key=True)


@pytest.mark.parametrize(
    "bad",
    [{"timeout": 0}, {"attempt_timeout": -1}, {"timeout": math.nan}, {"retries": -1}, {"write_timeout": 0}],
)
def test_settings_that_cannot_be_are_errors_at_once(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        servicelink.connect("api", **bad)


async def test_an_option_that_no_call_takes_is_an_error(world: World) -> None:
    world.bind()

    with pytest.raises(TypeError, match="follow_redirects"):
        await world.connect().get("/", follow_redirects=True)


async def test_connecting_does_no_io_so_the_link_may_come_later(world: World) -> None:
    api = world.connect("web-to-api")
    with pytest.raises(servicelink.LinkNotFound):
        await api.get("/")
    world.bind()

    assert (await api.get("/")).status_code == 200


@pytest.mark.parametrize("method", METHODS)
async def test_every_method_reaches_the_server(world: World, method: str) -> None:
    world.bind()
    found = getattr(world.connect().client, method.lower())
    await (found("/") if world.kind == "asynchronous" else asyncio.to_thread(found, "/"))

    assert world.server.seen[0].method == method


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/",
        "//elsewhere.example/",
        "https://elsewhere.example/",
        "http://user:password@127.0.0.1/",
        "http:\\\\elsewhere.example",
    ],
)
async def test_the_credential_goes_to_no_other_origin(world: World, url: str) -> None:
    world.bind()

    with pytest.raises(servicelink.ServiceError):
        await world.connect().get(url)
    assert world.server.seen == []


@pytest.mark.parametrize("path", ["@elsewhere.example/", ":1/", "\\\\elsewhere.example", "/%00", "x/../../y"])
async def test_whatever_is_given_as_a_path_stays_on_the_links_host(world: World, path: str) -> None:
    world.bind()
    try:
        answer = await world.connect().get(path)
    except servicelink.ServiceError:
        return

    assert f"http://{answer.request.url.netloc.decode()}" == world.server.address


class Redirecting:
    """An interceptor that changes where a call goes."""

    def intercept(self, call: servicelink.Call) -> Generator[None, servicelink.Outcome, None]:
        """Lead it elsewhere."""
        call.message.url = httpx.URL("http://127.0.0.1:9/")
        yield


async def test_an_interceptor_cannot_lead_the_credential_elsewhere(world: World) -> None:
    world.bind()

    with pytest.raises(servicelink.ServiceError, match="leads elsewhere"):
        await world.connect(interceptors=[Redirecting()]).get("/")


async def test_an_interceptor_cannot_change_the_credential(world: World) -> None:
    class Forging:
        """An interceptor that sets the credential's header."""

        def intercept(self, call: servicelink.Call) -> Generator[None, servicelink.Outcome, None]:
            """Set it."""
            call.metadata["x-service-auth"] = "forged"
            assert call.kid == OLD.kid
            yield

    world.bind()
    await world.connect(interceptors=[Forging()]).get("/")

    assert world.server.seen[0].headers.getlist("x-service-auth") == [OLD.text]


async def test_a_url_of_the_links_own_origin_is_taken(world: World) -> None:
    world.bind()

    assert (await world.connect().get(f"{world.server.address}/v1")).status_code == 200


async def test_redirects_are_answers_and_cookies_are_forgotten(world: World) -> None:
    # By a name: cookies of addresses are kept by nobody.
    world.server.address = world.server.address.replace("127.0.0.1", "localhost")
    world.bind()
    api = world.connect()
    answer = await api.get("/elsewhere")
    await api.get("/")

    assert (answer.status_code, len(world.server.seen)) == (302, 2)
    assert "cookie" not in world.server.seen[1].headers


async def test_an_encoded_url_arrives_as_it_is(world: World) -> None:
    world.bind()
    await world.connect().get("/a/%2e%2e/b%2Fc%20d?q=%41#part")

    assert world.server.seen[0].scope["raw_path"] == b"/a/%2e%2e/b%2Fc%20d"
    assert world.server.seen[0].scope["query_string"] == b"q=%41"


async def test_headers_are_those_of_httpx_and_the_credentials_name_is_ours(world: World) -> None:
    world.bind()
    given = [("X-Twice", "1"), ("X-Twice", "2"), ("User-Agent", "own"), ("X-Service-Auth", "another")]
    answer = await world.connect().get("/", headers=given)
    headers = world.server.seen[0].headers

    assert (headers.getlist("x-twice"), headers["user-agent"]) == (["1", "2"], "own")
    assert headers.getlist("x-service-auth") == [OLD.text]
    assert "x-service-auth" not in answer.request.headers


@pytest.mark.parametrize("value", ["a\nx: y", "a\r\nx: y", "a\0b"])
async def test_a_header_with_a_line_break_is_never_sent(world: World, value: str) -> None:
    world.bind()

    with pytest.raises(servicelink.ServiceError, match="line break"):
        await world.connect().get("/", headers={"x-evil": value})
    assert world.server.seen == []


class Naming:
    """An interceptor that adds a header."""

    def __init__(self, name: str, value: str) -> None:
        self._header = name, value

    def intercept(self, call: servicelink.Call) -> Generator[None, servicelink.Outcome, None]:
        """Add it."""
        name, value = self._header
        call.metadata[name] = value
        yield


ODD_FIELDS = [("x-note", "secret "), ("x-note", "\tsecret"), ("x-note", "sec\x1bret"), ("x-note", "secret\x7f")]
ODD_NAMES = [("x note", "secret"), ("", "secret"), ("x:note", "secret"), ("x,note", "secret"), ("x\nnote", "secret")]


@pytest.mark.parametrize("added", ["by the call", "by an interceptor"])
@pytest.mark.parametrize("field", [*ODD_FIELDS, *ODD_NAMES, ("x-note", "secret\nx: y")])
async def test_a_header_that_cannot_be_sent_is_its_callers_error_alone(
    world: World, field: tuple[str, str], added: str
) -> None:
    world.bind()
    names = added == "by an interceptor"
    api = world.connect(interceptors=[Naming(*field)] if names else [])
    for _ in range(6):
        with pytest.raises(servicelink.ServiceError) as bad:
            await api.get("/", headers=None if names else dict([field]))
        assert type(bad.value) is servicelink.ServiceError
        assert (repr(field[0]) in str(bad.value), "ret" in str(bad.value)) == (True, False)

    assert (world.server.seen, api.client.breaker.state) == ([], servicelink.CircuitState.CLOSED)
    assert (await world.connect().get("/", headers={"x-note": "Ada L.", "x-none": ""})).status_code == 200


async def test_a_length_that_is_none_is_its_callers_error_alone(world: World) -> None:
    world.bind()
    api = world.connect()
    for _ in range(6):
        with pytest.raises((servicelink.ServiceError, ValueError)) as bad:
            await api.post("/", content=b"zz", headers={"content-length": "x"})
        assert not isinstance(bad.value, servicelink.ServiceUnavailable)

    assert api.client.breaker.state is servicelink.CircuitState.CLOSED


@pytest.mark.parametrize("given", ["client", "call", "link", "options"])
async def test_a_call_ends_at_its_time_limit(world: World, given: str) -> None:
    world.bind(timeout=0.05 if given == "link" else 60.0)
    api = world.connect(timeout=0.05 if given == "client" else None)
    if given == "options":
        api = api.with_options(timeout=0.05)

    with pytest.raises(servicelink.ServiceTimeout, match=r"0\.05 s") as late:
        await api.get("/never", **({"timeout": 0.05} if given == "call" else {}))
    assert not late.value.unsent


async def test_a_rotated_key_is_used_by_the_next_refused_call_itself(world: World) -> None:
    world.bind()
    api = world.connect()
    await api.get("/")
    world.server.accepted = NEW.text
    world.server.on_refusal = lambda: world.bind(key=NEW.text)
    answer = await api.post("/", json={"n": 1})

    assert answer.status_code == 200
    assert world.server.bodies[1:] == [b'{"n":1}'] * 2


async def test_a_refused_key_that_did_not_change_is_sent_once(world: World) -> None:
    world.bind()
    world.server.accepted = NEW.text
    with pytest.raises(servicelink.InvalidServiceAuth) as refused:
        await world.connect().get("/x", headers={"X-Request-ID": "r-1"})

    error = refused.value
    assert (error.link, error.operation, error.request_id) == ("shop/web-to-api", "GET /x", "r-1")
    assert error.next_step in str(error)
    assert len(world.server.seen) == 1


async def test_a_body_that_is_used_up_is_not_sent_again_with_a_new_key(world: World) -> None:
    world.bind()
    world.server.accepted = NEW.text
    world.server.on_refusal = lambda: world.bind(key=NEW.text)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"once"

    content: Any = pieces() if world.kind == "asynchronous" else iter([b"once"])
    with pytest.raises(servicelink.InvalidServiceAuth):
        await world.connect().post("/", content=content)
    assert world.server.bodies == [b"once"]


async def test_files_that_can_be_rewound_are_sent_again_with_a_new_key(world: World) -> None:
    world.bind()
    world.server.accepted = NEW.text
    world.server.on_refusal = lambda: world.bind(key=NEW.text)
    answer = await world.connect().post("/", files={"a": io.BytesIO(b"content"), "b": ("name", b"more")})

    assert answer.status_code == 200
    first, second = world.server.bodies
    assert first == second
    assert b"content" in first


async def test_a_denied_call_raises_and_an_applications_403_does_not(world: World) -> None:
    world.bind()
    api = world.connect()

    with pytest.raises(servicelink.PermissionDenied):
        await api.get("/denied")
    assert (await api.get("/forbidden")).status_code == 403


async def test_the_applications_errors_are_responses_unless_asked_otherwise(world: World) -> None:
    world.bind()
    api = world.connect()
    answer = await api.get("/broken")
    with pytest.raises(servicelink.RemoteError) as broken:
        await api.get("/broken", raise_for_status=True)

    assert answer.status_code == 409
    assert (broken.value.status, broken.value.code) == (409, "OUT_OF_STOCK")
    assert "OUT_OF_STOCK" in broken.value.body


async def test_nothing_that_is_handed_back_holds_the_credential(world: World) -> None:
    world.bind()
    answer = await world.connect().get("/")

    assert "x-service-auth" not in answer.request.headers
    assert answer.elapsed.total_seconds() > 0
    assert answer.extensions["http_version"] == b"HTTP/1.1"


async def test_a_server_that_is_not_there_has_seen_nothing(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
    api = world.connect("api", Hands(), base_url=f"http://127.0.0.1:{free}")
    with pytest.raises(servicelink.ServiceUnavailable) as away:
        await api.get("/")

    assert away.value.unsent


async def test_with_options_shares_connections_and_circuit(world: World) -> None:
    world.bind()
    api = world.connect()
    await api.get("/")
    other = api.with_options(timeout=1, retries=0, idempotent=True)
    await other.get("/")

    first, second = (request.scope["client"] for request in world.server.seen)
    assert first == second
    assert other.client.breaker is api.client.breaker


@pytest.mark.parametrize("size", [0, 10, 65536, 65537, 3_000_000])
async def test_bodies_of_any_size_arrive_whole(world: World, size: int) -> None:
    world.bind()
    content = bytes(index % 251 for index in range(size))
    await world.connect().request("PUT", "/", content=content)

    assert world.server.bodies == [content]
    assert world.server.seen[0].headers.get("content-length", "0") == str(size)


async def test_a_streamed_body_arrives_in_chunks(world: World) -> None:
    world.bind()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 50_000

    content: Any = pieces() if world.kind == "asynchronous" else iter([b"x" * 50_000] * 3)
    await world.connect().post("/", content=content)

    assert world.server.bodies == [b"x" * 150_000]
    assert world.server.seen[0].headers["transfer-encoding"] == "chunked"


async def test_an_answer_that_is_compressed_is_decoded(world: World, serve: Callable[[Any], Awaitable[str]]) -> None:
    async def answer(request: Request) -> Response:
        return Response(gzip.compress(b"hello"), headers={"content-encoding": "gzip"})

    address = await serve(Starlette(routes=[Route("/", answer)]))

    assert (await world.connect(base_url=address).get("/")).text == "hello"


def test_a_client_serves_any_event_loop() -> None:
    async def use(api: servicelink.ServiceClient) -> None:
        with pytest.raises(servicelink.ServiceUnavailable):
            await api.get("/", retries=0)
        await api.aclose()

    api = servicelink.ServiceClient(service_name="api", base_url="http://127.0.0.1:1")
    asyncio.run(use(api))
    asyncio.run(use(api))


async def use_httpx(world: World, **options: Any) -> httpx.Response:
    """Make a call with httpx's own client over the link."""
    if world.kind == "asynchronous":
        transport = servicelink.httpx_transport("api")
        async with httpx.AsyncClient(transport=transport, base_url="http://api", trust_env=False) as client:
            return await client.request(**options)

    def call() -> httpx.Response:
        with httpx.Client(transport=sync.httpx_transport("api"), base_url="http://api", trust_env=False) as client:
            return client.request(**options)

    return await in_thread(call)


async def test_httpxs_own_clients_go_over_a_link(world: World) -> None:
    world.bind()
    answer = await use_httpx(
        world, method="POST", url="/a%2Fb?q=1", json={"n": 1}, headers={"x-service-auth": "forged"}
    )
    seen = world.server.seen[0]

    assert answer.json() == {"ok": True}
    assert (seen.scope["raw_path"], seen.scope["query_string"], world.server.bodies) == (
        b"/a%2Fb",
        b"q=1",
        [b'{"n":1}'],
    )
    assert seen.headers["host"] == world.server.address.removeprefix("http://")
    assert seen.headers.getlist("x-service-auth") == [OLD.text]
    with pytest.raises(servicelink.ServiceError, match="leads elsewhere"):
        await use_httpx(world, method="GET", url="http://elsewhere.example/")
    with pytest.raises(servicelink.PermissionDenied):
        await use_httpx(world, method="GET", url="/denied")
    measured = servicelink.metrics()[CallRow("shop/web-to-api", Protocol.REST, "answered")]
    assert measured.calls >= 1
