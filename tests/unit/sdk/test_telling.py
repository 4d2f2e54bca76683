"""What errors and logs tell of a call that failed: what it was, where it came from, and what helps."""

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from grpc_servers import serving
from grpc_worlds import open_grpc
from sdk_faults import World
from sdk_worlds import WORLDS, Hands, Peer, Request, in_thread, open_caller

import servicelink
from servicelink import sync

KEY = "a-shared-key-0123456789"


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(request.param, stack)


@pytest.fixture
def nobody() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


async def test_an_open_circuit_names_the_last_failure_of_attempts(world: World, nobody: str) -> None:
    api = open_caller(world.kind, Hands(), service_name="api", base_url=nobody, api_key=KEY, retries=2)
    for _ in range(2):
        with pytest.raises(servicelink.ServiceUnavailable):
            await api.get("/")
    with pytest.raises(servicelink.CircuitOpen) as circuit:
        await api.get("/")
    await api.close()

    assert "too many attempts in a row failed (last: not connected: " in str(circuit.value)
    assert "Connection refused)" in str(circuit.value)
    assert KEY not in str(circuit.value)


async def test_an_open_circuit_names_the_last_answer(world: World) -> None:
    async def broken(peer: Peer, request: Request) -> None:
        await peer.reply(503, b'{"error": {"code": "OUT_OF_STOCK"}}', content_type="application/json")

    api = world.connect(await world.stage(broken), Hands(), breaker=servicelink.CircuitBreaker(failures=1), retries=0)
    await api.get("/")

    with pytest.raises(servicelink.CircuitOpen, match=r"\(last: it answered 503 OUT_OF_STOCK\)"):
        await api.get("/")


async def test_an_attempt_that_is_tried_again_is_told_at_debug_with_why(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async def once(peer: Peer, request: Request) -> None:
        await peer.reply(503 if len(stage.requests) == 1 else 200)

    stage = await world.stage(once)
    caplog.set_level(logging.DEBUG, "servicelink")
    await world.connect(stage, Hands()).get("/")

    [record] = [one for one in caplog.records if "again" in one.getMessage()]
    assert record.levelname == "DEBUG"
    assert record.getMessage() == "api GET /: attempt 1: it answered 503; again in 0.10 s"
    assert record.__dict__["attempts"] == 1


async def refuse(peer: Peer, request: Request) -> None:
    """Answer as a server does that does not take the key."""
    body = b'{"error": {"code": "INVALID_SERVICE_AUTH", "message": "no"}}'
    await peer.reply(403, body, content_type="application/json")


def by_name(world: World) -> Any:
    return servicelink.connect("api", retries=0) if world.kind == "asynchronous" else sync.connect("api", retries=0)


async def fail(world: World, client: Any) -> servicelink.ServiceError:
    """Answer how a call ends that cannot end well."""
    with pytest.raises(servicelink.ServiceError) as failed:
        await (client.get("/") if world.kind == "asynchronous" else in_thread(client.get, "/"))
    await (client.aclose() if world.kind == "asynchronous" else in_thread(client.close))
    return failed.value


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"API_API_KEY": KEY}, "API_API_KEY"),
        ({"INTERNAL_API_KEY": KEY}, "INTERNAL_API_KEY"),
        ({"API_API_KEY_FILE": "key"}, "API_API_KEY_FILE (key)"),
    ],
)
async def test_a_refused_key_of_a_variable_is_named_by_it(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, variables: dict[str, str], named: str
) -> None:
    stage = await world.stage(refuse)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_text(KEY)
    for name, value in {"API_URL": stage.address, **variables}.items():
        monkeypatch.setenv(name, value)
    error = await fail(world, by_name(world))

    assert isinstance(error, servicelink.InvalidServiceAuth)
    assert f"The key is that of {named}: see whether the server takes it" in str(error)
    assert KEY not in str(error)


async def test_a_refused_key_of_an_argument_is_named_by_it(world: World) -> None:
    error = await fail(world, world.connect(await world.stage(refuse), api_key=KEY).client)

    assert "The key is that of api_key: see" in str(error)
    assert KEY not in str(error)


async def test_a_server_that_wants_a_key_says_that_none_was_sent(world: World) -> None:
    stage = await world.stage(refuse)
    error = await fail(world, world.connect(stage).client)

    assert "none was sent" in str(error)
    assert error.next_step == "Pass api_key= or shared_key=True"


async def test_a_grpc_server_that_wants_a_key_says_that_none_was_sent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERNAL_API_KEY", KEY)
    async with serving("aio") as served:
        users = open_grpc(world.kind, service_name="users", address=f"127.0.0.1:{served.port}")
        with pytest.raises(servicelink.InvalidServiceAuth, match=r"none was sent .*Pass api_key= or shared_key=True$"):
            await users.get()
        await users.close()


async def test_a_server_that_is_not_there_is_told_with_the_variable_that_leads_to_it(
    world: World, monkeypatch: pytest.MonkeyPatch, nobody: str
) -> None:
    monkeypatch.setenv("API_URL", nobody)
    monkeypatch.setenv("INTERNAL_API_KEY", KEY)
    error = await fail(world, by_name(world))

    assert error.next_step == f"API_URL leads to {nobody}: see whether the server is there"


async def test_a_grpc_server_that_is_not_there_is_told_with_its_address(world: World, nobody: str) -> None:
    address = nobody.removeprefix("http://")
    users = open_grpc(world.kind, service_name="users", address=address, retries=0)
    with pytest.raises(servicelink.ServiceUnavailable, match=f"address leads to {address}: see whether the server is"):
        await users.get()
    await users.close()


@pytest.mark.parametrize(
    ("address", "shown", "step"),
    [
        ("localhost:18080", "'localhost:18080'", "Begin it with http://"),
        ("http://ada:geheim@api/", "'http://***@api/'", "Leave user and password out"),
        ("http://ada:ge#heim@api/", "'http://***'", "Leave user and password out"),
        ("http://api/?token=geheim", "'http://api/?***'", "Leave its query out"),
        ("http://", "'http://'", "Write it as in http://localhost:8080"),
    ],
)
async def test_an_address_that_is_none_is_named_with_its_variable_and_without_secrets(
    world: World, monkeypatch: pytest.MonkeyPatch, *, address: str, shown: str, step: str
) -> None:
    monkeypatch.setenv("API_URL", address)
    monkeypatch.setenv("INTERNAL_API_KEY", KEY)
    error = await fail(world, by_name(world))

    assert f"its address is no http or https URL of a host: API_URL is {shown}" in str(error)
    assert error.next_step.startswith(step)
    assert "heim" not in str(error)


@pytest.mark.parametrize(
    ("text", "reason"), [(b"", "empty"), (b"\xff\xfekey", "key is no text in UTF-8"), (b"slk_x", "cut off")]
)
async def test_a_key_file_that_is_no_good_is_named_with_its_variable(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, text: bytes, reason: str
) -> None:
    (tmp_path / "key").write_bytes(text)
    monkeypatch.setenv("API_URL", "http://api")
    monkeypatch.setenv("API_API_KEY_FILE", str(tmp_path / "key"))
    error = await fail(world, by_name(world))

    assert f"its key, API_API_KEY_FILE ({tmp_path}/key): {tmp_path}/key is not understood: " in str(error)
    assert reason in str(error)
    assert "0xff" not in str(error)
    assert "slk_x" not in str(error)


async def test_an_applications_own_error_says_where_its_answer_is(world: World) -> None:
    async def sold_out(peer: Peer, request: Request) -> None:
        await peer.reply(409, b'{"error": {"code": "OUT_OF_STOCK"}}', content_type="application/json")

    api = world.connect(await world.stage(sold_out))
    with pytest.raises(
        servicelink.RemoteError, match=r"409 OUT_OF_STOCK .*\. Its attribute body holds what came$"
    ) as error:
        await api.get("/", raise_for_status=True)

    assert error.value.body == '{"error": {"code": "OUT_OF_STOCK"}}'


async def test_errors_of_graphql_say_where_they_are(world: World) -> None:
    async def wrong(peer: Peer, request: Request) -> None:
        await peer.reply(200, b'{"errors": [{"message": "no such user"}]}', content_type="application/json")

    stage = await world.stage(wrong)
    kind: Any = servicelink.GraphQLClient if world.kind == "asynchronous" else sync.GraphQLClient
    catalog = kind(service_name="catalog", base_url=stage.address)
    with pytest.raises(servicelink.GraphQLError, match="Its attribute errors holds what the server says") as error:
        await (catalog.query("{ a }") if world.kind == "asynchronous" else in_thread(catalog.query, "{ a }"))
    await (catalog.aclose() if world.kind == "asynchronous" else in_thread(catalog.close))

    assert error.value.errors[0]["message"] == "no such user"
    assert "no such user" not in str(error.value)


async def test_a_folder_of_certificates_that_is_no_good_is_named_with_its_variable(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("API_URL", "https://api")
    monkeypatch.setenv("API_TLS_DIR", str(tmp_path / "none"))
    error = await fail(world, by_name(world))

    assert str(tmp_path / "none") in error.problem
    assert error.next_step == "API_TLS_DIR names a folder with uri, tls.crt, tls.key and ca.crt"
