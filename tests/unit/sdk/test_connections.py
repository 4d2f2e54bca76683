"""Connections are kept while they are good, bounded, each process's own, and given back."""

import asyncio
import gc
import os
import threading
import warnings
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest
import uvicorn
from sdk_faults import World, fine
from sdk_worlds import WORLDS, Peer, Request, in_thread, staged

import servicelink
from servicelink import sync
from servicelink.rest.limits import parse_pool


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(request.param, stack)


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


async def test_a_connection_that_a_thread_was_given_is_nobody_elses_before_it_begins_to_send(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begins, goes_on = threading.Event(), threading.Event()
    send = httpcore.HTTPConnection.handle_request

    def slowly(connection: Any, request: Any) -> Any:
        begins.set()
        assert goes_on.wait(20)
        return send(connection, request)

    async with staged(fine) as stage:
        api = sync.ServiceClient(service_name="api", base_url=stage.address, limits=httpx.Limits(max_connections=2))
        await in_thread(api.get, "/")
        (shared,) = api._wire._pools.values()  # noqa: SLF001 - a client does not show its pool
        [connection] = shared.pool.connections
        free = connection.is_idle(), connection.is_available()
        monkeypatch.setattr(httpcore.HTTPConnection, "handle_request", slowly)
        calling = asyncio.create_task(in_thread(api.get, "/"))
        await asyncio.to_thread(begins.wait, 20)
        other = asyncio.create_task(in_thread(api.get, "/"))
        while len(shared.pool.connections) < 2:  # noqa: ASYNC110 - another thread opens it
            await asyncio.sleep(0.001)
        given = connection.is_idle(), connection.is_available(), connection.has_expired()
        goes_on.set()
        answers = await asyncio.gather(calling, other)
        await in_thread(api.close)

    assert (free, given) == ((True, True), (False, False, False))
    assert [answer.status_code for answer in answers] == [200, 200]


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


@pytest.mark.parametrize("limits", [None, httpx.Limits(max_connections=9, keepalive_expiry=None)])
def test_an_idle_connection_is_given_up_before_a_server_of_usual_settings_closes_it(
    limits: httpx.Limits | None,
) -> None:
    server = uvicorn.Config("none", log_config=None)

    assert parse_pool(limits, None).idle_for < server.timeout_keep_alive


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


async def test_an_event_loop_that_ended_without_closing_leaves_no_socket_behind() -> None:
    def count_after(times: int) -> int:
        for _ in range(times):
            # Not by `asyncio.run`, which closes what a client has left.
            loop = asyncio.new_event_loop()
            assert loop.run_until_complete(_get_fine(api))
            loop.close()
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    with warnings.catch_warnings():
        # What asyncio says of those that were left open.
        warnings.simplefilter("ignore", ResourceWarning)
        async with staged(fine) as stage:
            api = servicelink.ServiceClient(service_name="api", base_url=stage.address)
            first = await in_thread(count_after, 1)
            later = await in_thread(count_after, 20)
            await api.aclose()
        gc.collect()

    assert later - first < 10
    assert stage.connections == 21


async def _get_fine(api: servicelink.ServiceClient) -> bool:
    return (await api.get("/")).text == "fine"


BEGUN = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nfirst"
WITHOUT_LENGTH = b"HTTP/1.1 200 OK\r\n\r\nfirst"


@pytest.mark.parametrize("begun", [b"", BEGUN, WITHOUT_LENGTH])
async def test_closing_a_client_fails_its_calls_under_way_at_once(world: World, begun: bytes) -> None:
    came = asyncio.Event()

    async def hold(peer: Peer, request: Request) -> None:
        await peer.send(begun)
        came.set()
        await peer.until_gone()

    stage = await world.stage(hold)
    api = world.connect(stage, timeout=10)
    call = asyncio.create_task(api.get("/"))
    await came.wait()
    # Until it waits for more; nothing tells when.
    await asyncio.sleep(0.05)
    await api.close()
    with pytest.raises(servicelink.ServiceUnavailable) as cut:
        await asyncio.wait_for(call, 5)

    assert (type(cut.value), cut.value.unsent) == (servicelink.ServiceUnavailable, False)


@pytest.mark.parametrize("begun", [BEGUN, WITHOUT_LENGTH])
async def test_closing_a_client_ends_a_stream_that_somebody_reads(world: World, begun: bytes) -> None:
    async def hold(peer: Peer, request: Request) -> None:
        await peer.send(begun)
        await peer.until_gone()

    async def read() -> None:
        async with api.stream("GET", "/") as streamed:
            reads.set()
            await streamed.pieces()

    stage, reads = await world.stage(hold), asyncio.Event()
    api = world.connect(stage, timeout=10)
    reading = asyncio.create_task(read())
    await reads.wait()
    # As above.
    await asyncio.sleep(0.05)
    await api.close()
    with pytest.raises(servicelink.ServiceUnavailable) as cut:
        await asyncio.wait_for(reading, 5)

    assert (type(cut.value), cut.value.unsent) == (servicelink.ServiceUnavailable, False)


async def test_closing_a_client_fails_a_call_that_waits_for_a_connection_and_cancels_nobody() -> None:
    came = asyncio.Event()

    async def hold(peer: Peer, request: Request) -> None:
        came.set()
        await peer.until_gone()

    async with staged(hold) as stage:
        limits = httpx.Limits(max_connections=1)
        api = servicelink.ServiceClient(service_name="api", base_url=stage.address, timeout=10, limits=limits)
        calls = [asyncio.create_task(api.get("/")) for _ in range(2)]
        await came.wait()
        await api.aclose()
        failed = await asyncio.gather(*calls, return_exceptions=True)

    assert [type(one) for one in failed] == [servicelink.ServiceUnavailable] * 2
    assert len(stage.requests) == 1
