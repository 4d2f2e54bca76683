"""An answer that is read as it comes: it may last, but not be silent, and ends as it ended."""

import asyncio
from collections.abc import AsyncIterator, Generator
from contextlib import AsyncExitStack

import pytest
from sdk_faults import (
    World,
    bad_gzip,
    fine,
    half,
    half_chunk,
    silent,
)
from sdk_worlds import WORLDS, Hands, Peer, Play, Request

import servicelink


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(request.param, stack)


class Listening:
    """An interceptor that notes how calls ended."""

    def __init__(self, heard: list[servicelink.Result]) -> None:
        self._heard = heard

    def intercept(self, call: servicelink.Call) -> Generator[None, servicelink.Outcome, None]:
        """Note it."""
        outcome = yield
        self._heard.append(outcome.result)


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
    with pytest.raises(servicelink.ServiceTimeout, match=r"stopped coming \(1 s\)"):
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


async def test_a_stream_with_a_broken_encoding_breaks_off_for_everybody_who_asks(world: World) -> None:
    heard: list[servicelink.Result] = []
    api = world.connect(await world.stage(bad_gzip), interceptors=[Listening(heard)])
    async with api.stream("GET", "/") as streamed:
        with pytest.raises(servicelink.ServiceUnavailable, match="encoding") as cut:
            await streamed.pieces()

    assert (heard, cut.value.unsent) == ([servicelink.Result.CUT], False)


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


@pytest.mark.parametrize(
    ("kind", "error"),
    [("asynchronous", asyncio.CancelledError), ("synchronous", KeyboardInterrupt), ("synchronous", SystemExit)],
)
async def test_who_goes_away_while_he_reads_a_stream_is_told_of_as_gone(kind: str, error: type[BaseException]) -> None:
    heard: list[servicelink.Result] = []
    async with AsyncExitStack() as stack:
        world = World(kind, stack)
        api = world.connect(await world.stage(fine), interceptors=[Listening(heard)])
        with pytest.raises(error):
            async with api.stream("GET", "/"):
                raise error

    assert heard == [servicelink.Result.CANCELLED]
