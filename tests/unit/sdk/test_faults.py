"""What a server, a network or a caller may do to a call, over real sockets, in both worlds."""

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from sdk_worlds import WORLDS, Caller, Hands, Peer, Play, Request, Stage, in_thread, open_caller, staged

import servicelink
from servicelink import sync


@dataclass(slots=True)
class World:
    """Servers that misbehave, and clients of one kind for them."""

    kind: str
    stack: AsyncExitStack

    async def stage(self, play: Play) -> Stage:
        """Answer a server that does this."""
        return await self.stack.enter_async_context(staged(play))

    def connect(self, stage: Stage, hands: Hands | None = None, **options: Any) -> Caller:
        """Answer a client of it, closed at the test's end."""
        caller = open_caller(self.kind, hands, service_name="api", base_url=stage.address, **options)
        self.stack.push_async_callback(caller.close)
        return caller


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(request.param, stack)


async def fine(peer: Peer, request: Request) -> None:
    await peer.reply(200, b"fine")


async def drop(peer: Peer, request: Request) -> None:
    raise EOFError


async def half(peer: Peer, request: Request) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    raise EOFError


async def half_chunk(peer: Peer, request: Request) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    raise EOFError


async def nonsense(peer: Peer, request: Request) -> None:
    await peer.send(b"SSH-2.0-OpenSSH\r\n\r\n")
    raise EOFError


async def bad_gzip(peer: Peer, request: Request) -> None:
    await peer.reply(200, b"no gzip at all", content_encoding="gzip")


async def silent(peer: Peer, request: Request) -> None:
    await peer.until_gone()


async def silent_in_the_middle(peer: Peer, request: Request) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nfirst")
    await peer.until_gone()


async def slow_head(peer: Peer, request: Request) -> None:
    """Send a byte from time to time, so that no single read takes long."""
    for byte in b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1000:
        await peer.send(bytes([byte]))
        await asyncio.sleep(0.01)


async def slow_body(peer: Peer, request: Request) -> None:
    """As `slow_head`, in the body."""
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    for _ in range(1000):
        await peer.send(b"y")
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("play", [drop, half, half_chunk, nonsense, bad_gzip])
async def test_an_answer_that_is_not_whole_is_no_answer_and_is_not_asked_for_again(world: World, play: Play) -> None:
    stage = await world.stage(play)
    with pytest.raises(servicelink.ServiceUnavailable) as cut:
        await world.connect(stage).get("/")

    assert not cut.value.unsent
    assert len(stage.requests) == 1


@pytest.mark.parametrize("play", [silent, silent_in_the_middle, slow_head, slow_body])
async def test_the_time_limit_bounds_the_whole_answer_however_slowly_it_comes(world: World, play: Play) -> None:
    stage = await world.stage(play)

    with pytest.raises(servicelink.ServiceTimeout):
        await world.connect(stage).get("/", timeout=0.1)


async def test_a_connection_that_was_dropped_while_idle_is_not_used_again(world: World) -> None:
    async def once(peer: Peer, request: Request) -> None:
        await fine(peer, request)
        raise EOFError

    stage = await world.stage(once)
    api = world.connect(stage)
    for _ in range(3):
        assert (await api.get("/")).text == "fine"
        # The end of the connection arrives in a moment; nothing tells when.
        await asyncio.sleep(0.05)

    assert len(stage.requests) == 3


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_no_engine_sends_anything_again_by_itself(world: World, method: str) -> None:
    async def second_is_dropped(peer: Peer, request: Request) -> None:
        if len(stage.requests) > 1:
            raise EOFError
        await fine(peer, request)

    stage = await world.stage(second_is_dropped)
    api = world.connect(stage)
    await api.get("/")
    with pytest.raises(servicelink.ServiceUnavailable) as cut:
        await api.request(method, "/")

    assert (len(stage.requests), cut.value.unsent) == (2, False)


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


async def test_a_stream_is_read_as_it_comes(world: World) -> None:
    rest = asyncio.Event()

    async def in_two(peer: Peer, request: Request) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst")
        await rest.wait()
        await peer.send(b"later")

    stage = await world.stage(in_two)
    api = world.connect(stage)
    async with api.stream("GET", "/") as streamed:
        first = await streamed.first()
        rest.set()
    async with api.stream("GET", "/") as streamed:
        whole = await streamed.pieces()

    assert (first, b"".join(whole)) == (b"first", b"firstlater")
    assert "x-request-timeout-ms" not in stage.requests[0].headers


async def test_a_stream_that_was_read_gives_its_connection_back_and_one_that_was_not_closes_it(world: World) -> None:
    async def long(peer: Peer, request: Request) -> None:
        await peer.reply(200, b"x" * 1_000_000)

    stage = await world.stage(long)
    api = world.connect(stage)
    for _ in range(2):
        async with api.stream("GET", "/") as streamed:
            await streamed.pieces()
    after_reading = stage.connections
    async with api.stream("GET", "/") as streamed:
        await streamed.first()
    async with api.stream("GET", "/") as streamed:
        await streamed.pieces()

    assert (after_reading, stage.connections) == (1, 2)


async def test_a_stream_may_last_longer_than_the_limit_but_not_be_silent_for_as_long(world: World) -> None:
    async def slow_then_silent(peer: Peer, request: Request) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        for _ in range(24):
            await peer.send(b"y")
            await asyncio.sleep(0.05)
        await peer.until_gone()

    stage = await world.stage(slow_then_silent)
    seen = asyncio.get_running_loop().time()
    with pytest.raises(servicelink.ServiceTimeout, match="stopped coming"):
        async with world.connect(stage).stream("GET", "/", timeout=1.0) as streamed:
            await streamed.pieces()

    assert asyncio.get_running_loop().time() - seen > 2.0


async def test_a_stream_that_does_not_begin_in_time_ends(world: World) -> None:
    stage = await world.stage(silent)

    with pytest.raises(servicelink.ServiceTimeout):
        async with world.connect(stage).stream("GET", "/", timeout=0.05):
            pass


@pytest.mark.parametrize("play", [half, half_chunk])
async def test_a_stream_that_breaks_off_raises_and_speaks_against_the_server(world: World, play: Play) -> None:
    stage = await world.stage(play)
    breaker = servicelink.CircuitBreaker(failures=1)
    with pytest.raises(servicelink.ServiceUnavailable) as cut:
        async with world.connect(stage, breaker=breaker).stream("GET", "/x") as streamed:
            await streamed.pieces()

    assert (cut.value.link, cut.value.operation) == ("api", "GET /x")
    assert breaker.state is servicelink.CircuitState.OPEN


async def test_what_a_reader_of_a_stream_raises_is_its_own_affair(world: World) -> None:
    stage = await world.stage(fine)
    breaker = servicelink.CircuitBreaker(failures=1)
    api = world.connect(stage, breaker=breaker)
    with pytest.raises(LookupError):
        async with api.stream("GET", "/"):
            raise LookupError

    assert breaker.state is servicelink.CircuitState.CLOSED


async def test_an_error_instead_of_a_stream_has_its_code_and_body(world: World) -> None:
    async def wrong(peer: Peer, request: Request) -> None:
        code = "PERMISSION_DENIED" if request.line.startswith("GET /denied") else "TOO_LARGE"
        await peer.reply(
            403 if "denied" in request.line else 413,
            f'{{"error": {{"code": "{code}"}}}}'.encode(),
            content_type="application/json",
        )

    stage = await world.stage(wrong)
    api = world.connect(stage)
    with pytest.raises(servicelink.PermissionDenied):
        async with api.stream("GET", "/denied"):
            pass
    with pytest.raises(servicelink.RemoteError) as remote:
        async with api.stream("GET", "/", raise_for_status=True):
            pass
    async with api.stream("GET", "/") as streamed:
        assert b"TOO_LARGE" in b"".join(await streamed.pieces())

    assert (remote.value.code, "TOO_LARGE" in remote.value.body) == ("TOO_LARGE", True)


async def test_a_stream_that_begins_busy_is_tried_again(world: World) -> None:
    async def busy(peer: Peer, request: Request) -> None:
        await peer.reply(503 if len(stage.requests) == 1 else 200, b"x" * 100_000)

    stage = await world.stage(busy)
    async with world.connect(stage, Hands()).stream("GET", "/") as streamed:
        assert len(b"".join(await streamed.pieces())) == 100_000


async def test_a_cancelled_call_closes_its_connection_and_counts_neither_way() -> None:
    gone = asyncio.Event()
    came = asyncio.Event()

    async def watch(peer: Peer, request: Request) -> None:
        came.set()
        await peer.until_gone()
        gone.set()

    breaker = servicelink.CircuitBreaker(failures=1)
    async with staged(watch) as stage:
        api = servicelink.ServiceClient(service_name="api", base_url=stage.address, breaker=breaker)
        call = asyncio.create_task(api.get("/"))
        await came.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(gone.wait(), 5)
        await api.aclose()

    assert breaker.state is servicelink.CircuitState.CLOSED


async def test_connections_are_kept_and_no_more_are_idle_than_the_limits_say(world: World) -> None:
    together = asyncio.Barrier(8)

    async def meet(peer: Peer, request: Request) -> None:
        await together.wait()
        await fine(peer, request)

    stage = await world.stage(meet)
    limits = httpx.Limits(max_connections=50, max_keepalive_connections=2, keepalive_expiry=60)
    api = world.connect(stage, limits=limits)
    opened = []
    for _ in range(2):
        await asyncio.gather(*(api.get("/") for _ in range(8)))
        opened.append(stage.connections)

    assert opened == [8, 14]


async def test_no_more_connections_are_opened_than_the_limits_say(world: World) -> None:
    stage = await world.stage(fine)
    api = world.connect(stage, limits=httpx.Limits(max_connections=2))
    await asyncio.gather(*(api.get("/") for _ in range(20)))

    assert stage.connections <= 2
    assert len(stage.requests) == 20


async def test_waiting_for_a_connection_of_ones_own_speaks_against_no_server(world: World) -> None:
    held, released = asyncio.Event(), asyncio.Event()

    async def hold(peer: Peer, request: Request) -> None:
        held.set()
        await released.wait()
        await fine(peer, request)

    stage = await world.stage(hold)
    api = world.connect(stage, limits=httpx.Limits(max_connections=1))
    first = asyncio.create_task(api.get("/", timeout=30))
    await held.wait()
    for _ in range(6):
        with pytest.raises(servicelink.ServiceTimeout, match="own connections"):
            await api.get("/", timeout=0.02, retries=0)
    released.set()

    assert ((await first).text, (await api.get("/")).text) == ("fine", "fine")
    assert len(stage.requests) == 2


async def test_a_connection_that_was_idle_for_too_long_is_not_used(world: World) -> None:
    stage = await world.stage(fine)
    api = world.connect(stage, limits=httpx.Limits(keepalive_expiry=0.05))
    await api.get("/")
    # Nothing but time makes it old.
    await asyncio.sleep(0.1)
    await api.get("/")

    assert stage.connections == 2


async def test_a_forked_child_opens_connections_of_its_own_and_finds_locks_open() -> None:
    async with staged(fine) as stage:
        api = sync.ServiceClient(service_name="api", base_url=stage.address)
        await asyncio.to_thread(api.get, "/")
        answered = await asyncio.to_thread(_call_in_child, api)
        await asyncio.to_thread(api.get, "/")
        api.close()

    assert answered == b"fine"
    assert stage.connections == 2


def _call_in_child(api: sync.ServiceClient) -> bytes:
    reading, writing = os.pipe()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        # As if the fork came while another thread was busy with the breaker.
        with api.breaker._lock:  # noqa: SLF001 - somebody must hold it
            held.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    child = os.fork()
    if child == 0:
        try:
            api.breaker.reset()
            os.write(writing, api.get("/").content)
        finally:
            os._exit(0)
    done.set()
    holder.join()
    os.waitpid(child, 0)
    os.close(writing)
    return os.read(reading, 100)


def test_an_asynchronous_client_used_before_a_fork_works_in_the_child() -> None:
    api = servicelink.ServiceClient(service_name="api", base_url="http://127.0.0.1:1", retries=0)

    async def use() -> str:
        try:
            await api.get("/")
        except servicelink.ServiceUnavailable as error:
            return "unsent" if error.unsent else "cut"
        finally:
            await api.aclose()
        return "?"

    before = asyncio.run(use())
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, asyncio.run(use()).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)

    assert (before, os.read(reading, 100)) == ("unsent", b"unsent")


async def test_threads_share_a_synchronous_client() -> None:
    async with staged(fine) as stage:
        api = sync.ServiceClient(service_name="api", base_url=stage.address)
        answers = await asyncio.gather(*(asyncio.to_thread(lambda: api.get("/").text) for _ in range(50)))
        api.close()

    assert answers == ["fine"] * 50


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
