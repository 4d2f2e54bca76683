"""A client finds its link, sends the credential only there, follows its rotation and says what went wrong."""

import asyncio
import gzip
import io
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sdk_bound import NEW, OLD, World
from sdk_worlds import Hands
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import servicelink
from servicelink.mounted import swap


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
    [
        {"timeout": 0},
        {"attempt_timeout": -1},
        {"timeout": math.nan},
        {"retries": -1},
        {"retries": 1.5},
        {"write_timeout": 0},
    ],
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
