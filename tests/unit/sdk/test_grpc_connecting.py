"""Why a gRPC call was not sent, or its answer not taken: said in words of ours, and by nobody but the channel."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from grpc_bound import OLD, Mount, World, user
from grpc_worlds import serving_users
from sdk_worlds import WORLDS, Hands
from users_service import Failure

import servicelink
from servicelink import CircuitBreaker, CircuitState
from servicelink.authority import Authority

NOBODY = "127.0.0.1:1"
# Too long for any name, so that nobody has to be asked.
NO_NAME = f"{'a' * 64}.invalid:1"


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(request.param, await stack.enter_async_context(serving_users()), stack)


@pytest.mark.parametrize(
    ("address", "reason"),
    [(NOBODY, f"connection refused by {NOBODY}, the last address tried"), (NO_NAME, "its name cannot be resolved")],
)
async def test_a_call_that_was_not_connected_says_why_and_that_it_was_not_sent(
    world: World, address: str, reason: str
) -> None:
    users = world.connect(address=address, retries=0, breaker=CircuitBreaker(failures=0))
    for call in (users.create, lambda: users.list(1), lambda: users.add([]), lambda: users.chat([])):
        with pytest.raises(servicelink.ServiceUnavailable, match=f"not connected: {reason} ") as failed:
            await call()
        assert failed.value.unsent


@pytest.mark.parametrize(
    "address",
    [
        "ftp://x:1",
        "users",
        "grpc://users",
        "https://users",
        "grpc://",
        "http://u:p@x:1",
        "grpc://x:1/path",
        "x:1?a=b",
        "x:70000",
    ],
)
async def test_an_address_that_is_none_is_said_so(world: World, address: str) -> None:
    with pytest.raises(servicelink.LinkNotFound, match="its address is no"):
        await world.connect(address=address).get()


@pytest.mark.parametrize(
    ("trusted", "name", "reason"),
    [("other", "127.0.0.1", "is not trusted"), ("own", "users.test", "is for another name")],
)
async def test_a_certificate_that_is_not_accepted_is_said_so(
    world: World, mount: Mount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, trusted: str, name: str, reason: str
) -> None:
    authorities = {"own": Authority("own"), "other": Authority("other")}
    leaf = authorities["own"].server(name)
    credentials = grpc.ssl_server_credentials([(leaf.private_key.encode(), leaf.certificate.encode())])
    monkeypatch.setenv("SERVICE_BINDING_ROOT", str(tmp_path))
    async with serving_users(credentials=credentials) as stage:
        # By its one address, since grpcio tells of the last of several.
        uri = stage.address.replace("localhost", "127.0.0.1")
        files = {"uri": uri, "api-key": OLD, "protocol": "grpc", "ca.crt": authorities[trusted].trust}
        mount(tmp_path / "users", files)
        users = world.connect(address=None, retries=0)
        with pytest.raises(servicelink.ServiceUnavailable, match=f"not connected: its certificate {reason}") as failed:
            await users.create()

    assert failed.value.unsent


async def test_a_server_without_tls_that_is_called_over_it_is_told_so(world: World) -> None:
    users = world.connect(address=f"grpcs://{world.stage.address}", retries=0)
    with pytest.raises(servicelink.ServiceUnavailable, match=r"no TLS could be agreed on .* called by grpc://"):
        await users.create()


async def test_what_another_kind_of_server_says_is_in_no_error(world: World) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 418 secret\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        users = world.connect(address=f"127.0.0.1:{server.sockets[0].getsockname()[1]}", retries=0)
        with pytest.raises(servicelink.ServiceUnavailable, match="not connected") as failed:
            await users.create()

    assert failed.value.unsent
    assert "418" not in repr(failed.value) + str(failed.value)


async def test_a_server_that_passes_on_that_it_was_not_connected_itself_was_asked(world: World) -> None:
    users = world.connect(retries=0)
    for words in ("connections to all backends failing; last error: Connection refused", "errors resolving a: [b]"):
        world.fail(Failure(grpc.StatusCode.UNAVAILABLE, words))
        with pytest.raises(servicelink.ServiceUnavailable, match="is not available") as failed:
            await users.create()
        assert not failed.value.unsent


async def test_a_call_whose_server_went_away_meanwhile_may_have_been_carried_out(world: World) -> None:
    world.stage.users.silent = True
    users = world.connect(retries=0)
    call = asyncio.create_task(users.create())
    await world.stage.users.until(lambda: bool(world.stage.users.seen))
    await world.stage.stop()
    with pytest.raises(servicelink.ServiceUnavailable) as failed:
        await call

    assert not failed.value.unsent


async def test_what_was_not_connected_is_tried_again_where_it_may_be_and_counts_for_the_circuit(world: World) -> None:
    hands, breaker = Hands(), CircuitBreaker("users", failures=4)
    users = world.connect(hands, address=NOBODY, breaker=breaker)
    for call in (users.get, users.create):
        with pytest.raises(servicelink.ServiceUnavailable):
            await call()

    assert hands.slept == [0.1, 0.2]
    assert breaker.state is CircuitState.OPEN


async def test_an_answer_that_is_larger_than_the_client_takes_is_its_own_limit_and_not_asked_for_again(
    world: World,
) -> None:
    breaker = CircuitBreaker("users", failures=1)
    options = [("grpc.max_receive_message_length", 3)]
    users = world.connect(Hands(), breaker=breaker, channel_options=options, idempotent=["ListUsers"])
    for call in (lambda: users.get("1"), lambda: users.list(11), lambda: users.chat(["long"])):
        with pytest.raises(servicelink.ServiceError, match="larger than the 3 bytes that the client takes") as failed:
            await call()
        assert type(failed.value) is servicelink.ServiceError
        assert "grpc.max_receive_message_length" in failed.value.next_step

    assert [seen.method for seen in world.stage.users.seen] == ["GetUser", "ListUsers", "Chat"]
    assert breaker.state is CircuitState.CLOSED


async def test_a_message_that_is_larger_than_the_server_takes_is_told_so_and_not_sent_again(world: World) -> None:
    hands, breaker = Hands(), CircuitBreaker("users", failures=1)
    large, repeated = "a" * 1000, ["CreateUser", "AddUsers", "Chat"]
    async with serving_users(options=[("grpc.max_receive_message_length", 99)]) as stage:
        users = world.connect(hands, address=stage.address, breaker=breaker, idempotent=repeated)
        for call, words in (
            (lambda: users.create(large), "the message is larger than the 99 bytes that the server takes"),
            (lambda: users.add([user(large)]), "the message is larger than the 99 bytes that the server takes"),
            (lambda: users.chat([large]), "the message is larger than the 99 bytes that the server takes"),
            (
                lambda: users.create(large, compression=grpc.Compression.Gzip),
                "a message is larger than what its receiver",
            ),
        ):
            with pytest.raises(servicelink.ServiceError, match=words) as failed:
                await call()
            assert type(failed.value) is servicelink.ServiceError
            assert "Send less at once" in failed.value.next_step
        answer = await users.create()

    assert answer == user()
    assert (hands.slept, breaker.state) == ([], CircuitState.CLOSED)


async def test_an_answer_that_is_larger_than_its_server_sends_is_no_sign_of_a_server_in_need(world: World) -> None:
    hands, breaker = Hands(), CircuitBreaker("users", failures=1)
    async with serving_users(options=[("grpc.max_send_message_length", 9)]) as stage:
        users = world.connect(hands, address=stage.address, breaker=breaker)
        with pytest.raises(servicelink.ServiceError, match="the answer is larger than the 9 bytes") as failed:
            await users.get("1")

    assert type(failed.value) is servicelink.ServiceError
    assert "Ask for less at once" in failed.value.next_step
    assert (hands.slept, breaker.state) == ([], CircuitState.CLOSED)


async def test_a_message_that_is_larger_than_the_client_sends_is_its_own_limit(world: World) -> None:
    hands, large = Hands(), "a" * 1000
    users = world.connect(hands, channel_options=[("grpc.max_send_message_length", 99)])
    for call in (lambda: users.get(large), lambda: users.add([user(large)]), lambda: users.chat([large])):
        with pytest.raises(servicelink.ServiceError, match="the message is larger than the 99 bytes that the client"):
            await call()

    assert hands.slept == []


OF_OTHER_LIBRARIES = {
    "grpc-go": "grpc: received message larger than max (5003 vs. 99)",
    "grpc-go, compressed": "grpc: received message after decompression larger than max 99",
    "grpc-go, compressed, older": "grpc: message after decompression larger than max (5003 vs. 99)",
    "grpc-java": "gRPC message exceeds maximum size 99: 5003",
    "grpc-java, compressed": "Decompressed gRPC message exceeds maximum size 99",
    "grpc-js": "Received message larger than max (5003 vs 99)",
}


@pytest.mark.parametrize("library", OF_OTHER_LIBRARIES)
async def test_a_server_of_another_language_says_in_its_words_that_a_message_is_too_large(
    world: World, library: str
) -> None:
    world.fail(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, OF_OTHER_LIBRARIES[library]))
    with pytest.raises(servicelink.ServiceError, match="larger than the 99 bytes that the server takes"):
        await world.connect().get()

    assert len(world.stage.users.seen) == 1


@pytest.mark.parametrize(
    "words",
    [
        "grpc: trying to send message larger than max (5003 vs. 99)",
        "Sent message larger than max (5003 vs. 99)",
        "Sending message exceeds the maximum configured message size.",
    ],
)
async def test_a_server_of_another_language_says_in_its_words_that_its_answer_is_too_large(
    world: World, words: str
) -> None:
    world.fail(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, words))
    with pytest.raises(servicelink.ServiceError, match=r"the answer is larger than .* the server sends"):
        await world.connect().get()

    assert len(world.stage.users.seen) == 1


async def test_a_server_that_does_not_tell_its_limit_is_understood_too(world: World) -> None:
    words = "Received message exceeds the maximum configured message size."
    world.fail(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, words))
    with pytest.raises(servicelink.ServiceError, match="larger than what the server takes"):
        await world.connect().get()


async def test_an_application_that_is_out_of_something_is_asked_again_whatever_it_says_of_it(world: World) -> None:
    hands = Hands()
    world.fail(*[Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (7 of 7 today)")] * 2)

    assert (await world.connect(hands).get()).user_id == "1"
    assert len(hands.slept) == 2
