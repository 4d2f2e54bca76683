"""What a server, a network or a caller may do to a call, over real sockets, in both worlds."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from sdk_faults import (
    World,
    bad_gzip,
    drop,
    fine,
    half,
    half_chunk,
    nonsense,
    silent,
    silent_in_the_middle,
    slow_body,
    slow_head,
)
from sdk_worlds import WORLDS, Caller, Hands, Peer, Play, Request, Stage, in_thread

import servicelink


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(request.param, stack)


@pytest.mark.parametrize("play", [drop, half, half_chunk, nonsense, bad_gzip])
async def test_an_answer_that_is_not_whole_is_no_answer_and_is_not_asked_for_again(world: World, play: Play) -> None:
    stage = await world.stage(play)
    with pytest.raises(servicelink.ServiceUnavailable) as cut:
        await world.connect(stage).get("/")

    assert not cut.value.unsent
    assert len(stage.requests) == 1


@pytest.mark.parametrize("charset", ["undefined", "hex", "rot13", "utf-8", "no-such"])
async def test_an_error_in_a_charset_that_is_none_has_its_body_all_the_same(world: World, charset: str) -> None:
    async def wrong(peer: Peer, request: Request) -> None:
        await peer.reply(500, b"sorry \xff", content_type=f"text/plain; charset={charset}")

    api = world.connect(await world.stage(wrong))
    with pytest.raises(servicelink.RemoteError) as remote:
        await api.get("/", raise_for_status=True)

    assert (remote.value.status, remote.value.body) == (500, "sorry \N{REPLACEMENT CHARACTER}")


async def test_the_words_beside_a_status_may_be_of_any_language(world: World) -> None:
    async def not_found(peer: Peer, request: Request) -> None:
        await peer.send("HTTP/1.1 404 не найдено\r\ncontent-length: 4\r\n\r\nnone".encode())

    api = world.connect(await world.stage(not_found))
    answer = await api.get("/")
    async with api.stream("GET", "/") as streamed:
        pieces = await streamed.pieces()

    assert (answer.status_code, answer.extensions["reason_phrase"].decode()) == (404, "не найдено")
    assert pieces == [b"none"]


ODD_CODES = ["A\nlink gone: answered", "\ud800", "\x1b[31m", "a" * 65, "", 7]


@pytest.mark.parametrize("code", ODD_CODES)
async def test_a_code_that_is_no_name_is_not_repeated(world: World, code: Any) -> None:
    async def wrong(peer: Peer, request: Request) -> None:
        await peer.reply(409, json.dumps({"error": {"code": code}}).encode(), content_type="application/json")

    with pytest.raises(servicelink.RemoteError) as remote:
        await world.connect(await world.stage(wrong)).get("/", raise_for_status=True)

    assert (remote.value.code, remote.value.problem) == (None, "the application answered 409")


@pytest.mark.parametrize("play", [silent, silent_in_the_middle, slow_head, slow_body])
async def test_the_time_limit_bounds_the_whole_answer_however_slowly_it_comes(world: World, play: Play) -> None:
    stage = await world.stage(play)

    with pytest.raises(servicelink.ServiceTimeout):
        await world.connect(stage).get("/", timeout=0.1)


@pytest.mark.parametrize("seconds", [3e6, 3e7, 1e10, 1e300])
async def test_a_time_limit_may_be_as_long_as_anybody_likes(world: World, seconds: float) -> None:
    api = world.connect(await world.stage(fine), write_timeout=seconds)

    assert (await api.post("/", content=b"x", timeout=seconds)).text == "fine"


async def test_an_attempt_that_takes_too_long_is_tried_again(world: World) -> None:
    async def first_is_silent(peer: Peer, request: Request) -> None:
        await (silent if len(stage.requests) == 1 else fine)(peer, request)

    stage = await world.stage(first_is_silent)
    answer = await world.connect(stage, Hands()).get("/", attempt_timeout=1.0)

    assert (answer.text, len(stage.requests)) == ("fine", 2)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_busy_server_is_asked_again_when_it_says(world: World, status: int) -> None:
    async def busy(peer: Peer, request: Request) -> None:
        if len(stage.requests) == 1:
            await peer.reply(status, retry_after="2")
        else:
            await fine(peer, request)

    stage = await world.stage(busy)
    hands = Hands()
    answer = await world.connect(stage, hands).get("/")

    assert (answer.text, hands.slept) == ("fine", [2.0])
    assert [request.headers["x-request-timeout-ms"] for request in stage.requests] == ["5000", "3000"]


async def test_a_date_says_when_to_come_back_as_well(world: World) -> None:
    async def busy(peer: Peer, request: Request) -> None:
        if len(stage.requests) == 1:
            # Three seconds after the time of the test's clock.
            await peer.reply(503, retry_after="Tue, 14 Nov 2023 22:13:23 GMT")
        else:
            await fine(peer, request)

    stage = await world.stage(busy)
    hands = Hands()
    await world.connect(stage, hands).get("/")

    assert hands.slept == [3.0]


@pytest.mark.parametrize(("method", "options"), [("POST", {}), ("PATCH", {}), ("GET", {"idempotent": False})])
async def test_what_must_not_be_done_twice_is_sent_once(world: World, method: str, options: dict[str, Any]) -> None:
    async def busy(peer: Peer, request: Request) -> None:
        await peer.reply(503)

    stage = await world.stage(busy)
    answer = await world.connect(stage, Hands()).request(method, "/", **options)

    assert (answer.status_code, len(stage.requests)) == (503, 1)


async def test_a_post_that_is_said_to_be_idempotent_is_tried_again_with_its_body(world: World) -> None:
    async def busy(peer: Peer, request: Request) -> None:
        await peer.reply(503 if len(stage.requests) == 1 else 200)

    stage = await world.stage(busy)
    answer = await world.connect(stage, Hands()).with_options(idempotent=True).post("/", json={"n": 1}, timeout=60)

    assert answer.status_code == 200
    assert [request.body for request in stage.requests] == [b'{"n":1}'] * 2


async def test_a_server_that_stops_reading_is_noticed(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # Connections are made by the kernel; nobody ever reads from them.
        stage = Stage(silent, f"http://127.0.0.1:{listener.getsockname()[1]}")
        api = world.connect(stage, write_timeout=0.2, timeout=60)

        with pytest.raises(servicelink.ServiceTimeout):
            await api.post("/", content=b"x" * 50_000_000)


async def echo(_scope: Any, receive: Any, send: Any) -> None:
    """Answer before the body is there, and repeat it."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"begun:", "more_body": True})
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        await send({"type": "http.response.body", "body": message["body"], "more_body": more})


async def test_a_body_may_be_sent_on_after_its_answer_has_begun(serve: Callable[[Any], Awaitable[str]]) -> None:
    begun = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"one "
        await begun.wait()
        yield b"two "
        yield b"three"

    address = await serve(echo)
    async with (
        servicelink.ServiceClient(service_name="api", base_url=address, write_timeout=30) as api,
        api.stream("POST", "/", content=body()) as response,
    ):
        begun.set()
        answer = await response.aread()

    assert answer == b"begun:one two three"


async def wait_until_ready(world: World, caller: Caller, seconds: float) -> None:
    waiting = caller.client.wait_until_ready
    await (waiting(seconds) if world.kind == "asynchronous" else in_thread(waiting, seconds))


async def test_a_server_on_its_way_is_waited_for_and_its_circuit_stays_closed(world: World) -> None:
    async def starting(peer: Peer, request: Request) -> None:
        if len(stage.requests) < 5:
            raise EOFError
        await peer.reply(503 if len(stage.requests) < 10 else 404)

    stage = await world.stage(starting)
    hands = Hands()
    caller = world.connect(stage, hands)
    await wait_until_ready(world, caller, 30)

    assert (len(stage.requests), len(hands.slept)) == (10, 9)
    assert stage.requests[0].line == "GET /healthz HTTP/1.1"
    assert caller.client.breaker.state is servicelink.CircuitState.CLOSED


async def test_nobody_waits_for_a_server_longer_than_asked(world: World) -> None:
    stage = await world.stage(drop)
    hands = Hands()
    with pytest.raises(servicelink.ServiceUnavailable):
        await wait_until_ready(world, world.connect(stage, hands), 1.0)

    assert sum(hands.slept) <= 1.0


async def test_waiting_for_a_server_takes_no_turns_of_the_clients_rate(world: World) -> None:
    async def starting(peer: Peer, request: Request) -> None:
        await peer.reply(503 if len(stage.requests) < 4 else 200)

    stage = await world.stage(starting)
    caller = world.connect(stage, Hands(), rate_limit=servicelink.RateLimit(1, per=60))
    await wait_until_ready(world, caller, 30)

    assert len(stage.requests) == 4
    assert (await caller.get("/")).status_code == 200
