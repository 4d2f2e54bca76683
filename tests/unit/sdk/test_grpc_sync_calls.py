"""Calls under way of the synchronous client are grpcio's: answered later, cancelled, written to."""

import asyncio
import gc
import queue
import threading
from collections import deque
from collections.abc import AsyncIterator, Generator
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_asked import Notes, asked, asked_for, line, stub_of
from grpc_worlds import GrpcStage, serving_users
from sdk_worlds import in_thread
from users_service import failing

import servicelink
from servicelink import Call, Outcome, sync


@pytest.fixture
async def stage() -> AsyncIterator[GrpcStage]:
    async with serving_users() as found:
        yield found


@pytest.fixture
async def client(stage: GrpcStage) -> AsyncIterator[servicelink.GrpcClient]:
    async with servicelink.GrpcClient(service_name="users", address=stage.address) as found:
        yield found


@pytest.fixture
async def plain(stage: GrpcStage) -> AsyncIterator[sync.GrpcClient]:
    with sync.GrpcClient(service_name="users", address=stage.address) as found:
        yield found


async def test_a_synchronous_answer_comes_with_metadata_and_status(plain: sync.GrpcClient) -> None:
    answer, call = await in_thread(stub_of(plain).GetUser.with_call, asked("7"))

    assert (answer.user_id, call.code()) == ("7", grpc.StatusCode.OK)
    assert dict(call.initial_metadata())["x-seen"] == "7"
    assert dict(call.trailing_metadata())["x-last"] == "yes"


async def test_a_synchronous_call_may_be_answered_later(plain: sync.GrpcClient, stage: GrpcStage) -> None:
    future = stub_of(plain).GetUser.future(asked("7"))
    told: queue.Queue[Any] = queue.Queue()
    future.add_done_callback(told.put)
    answer = await in_thread(future.result, 10)
    stage.users.failures = deque([failing("NOT_FOUND")])
    failed = stub_of(plain).AddUsers.future(iter([]))
    problem = await in_thread(failed.exception)

    assert isinstance(future, grpc.Future)
    assert (answer.user_id, future.done(), future.running(), future.cancel()) == ("7", True, False, False)
    assert told.get(timeout=10) is future
    assert isinstance(problem, servicelink.RemoteError)
    assert (failed.code(), failed.details()) == (grpc.StatusCode.NOT_FOUND, "as the test said")
    assert failed.traceback() is not None


async def test_a_synchronous_call_that_is_answered_later_may_be_cancelled(
    plain: sync.GrpcClient, stage: GrpcStage
) -> None:
    stage.users.silent = True
    future = stub_of(plain).GetUser.future(asked())
    await stage.users.until(lambda: len(stage.users.seen) == 1)
    with pytest.raises(grpc.FutureTimeoutError):
        future.result(0.01)
    active = future.is_active()
    cancelled = future.cancel()
    with pytest.raises(grpc.FutureCancelledError):
        await in_thread(future.result)

    assert (active, cancelled, future.cancelled(), future.code()) == (True, True, True, grpc.StatusCode.CANCELLED)
    assert plain.breaker.state is servicelink.CircuitState.CLOSED


async def test_a_synchronous_stream_lets_its_caller_write_before_it_reads(plain: sync.GrpcClient) -> None:
    lines: queue.Queue[Any] = queue.Queue()
    chat = stub_of(plain).Chat(iter(lines.get, None))
    seen = []
    for text in ("a", "b"):
        lines.put(line(text))
        seen.append((await in_thread(next, chat)).text)
    lines.put(None)

    assert (seen, await in_thread(list, chat), chat.code()) == (["A", "B"], [], grpc.StatusCode.OK)
    assert (chat.is_active(), chat.cancel(), chat.add_callback(print)) == (False, False, False)
    assert isinstance(chat, grpc.Call)


async def test_a_synchronous_stream_is_cancelled_while_it_begins_and_while_it_runs(stage: GrpcStage) -> None:
    notes = Notes()
    stage.users.silent = True
    with sync.GrpcClient(service_name="users", address=stage.address, interceptors=[notes]) as client:
        early = stub_of(client).ListUsers(asked_for(2))
        await stage.users.until(lambda: len(stage.users.seen) == 1)
        first = early.cancel()
        with pytest.raises(servicelink.ServiceError, match="its caller cancelled it"):
            await in_thread(next, early)
        stage.users.silent, stage.users.go = False, asyncio.Semaphore(0)
        late = stub_of(client).ListUsers(asked_for(2))
        told = threading.Event()
        await in_thread(next, late)
        late.add_callback(told.set)
        second = late.cancel()
        with pytest.raises(servicelink.ServiceError, match="its caller cancelled it"):
            await in_thread(next, late)

        assert await in_thread(told.wait, 10)
        assert (first, second, late.cancelled(), late.is_active()) == (True, True, True, False)
        assert await in_thread(late.code) is grpc.StatusCode.CANCELLED
    assert notes.seen == ["cancelled", "cancelled"]


async def test_a_synchronous_stream_that_nobody_holds_any_more_is_cancelled(
    plain: sync.GrpcClient, stage: GrpcStage
) -> None:
    told = threading.Event()
    stage.users.go = asyncio.Semaphore(0)
    stream = stub_of(plain).ListUsers(asked_for(2))
    await in_thread(next, stream)
    rpc = stream._future.result().rpc  # noqa: SLF001 - what is beneath it
    rpc.add_callback(told.set)
    del stream
    gc.collect()

    assert await in_thread(told.wait, 10)
    assert rpc.cancelled()


class Gate:
    """An interceptor that lets nothing pass until it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()

    def intercept(self, call: Call) -> Generator[None, Outcome, None]:
        """Wait."""
        self.opened.wait(10)
        yield


async def test_a_synchronous_call_that_is_cancelled_before_it_is_sent_is_cancelled_as_it_is(stage: GrpcStage) -> None:
    stage.users.silent, gate = True, Gate()
    with sync.GrpcClient(service_name="users", address=stage.address, interceptors=[gate]) as client:
        stream = stub_of(client).ListUsers(asked_for(2))
        stream.cancel()
        gate.opened.set()
        with pytest.raises(servicelink.ServiceError, match="its caller cancelled it"):
            await in_thread(next, stream)


async def test_a_synchronous_stream_in_a_with_block_is_cancelled_at_its_end(stage: GrpcStage) -> None:
    notes = Notes()
    stage.users.go = asyncio.Semaphore(0)
    with (
        sync.GrpcClient(service_name="users", address=stage.address, interceptors=[notes]) as client,
        stub_of(client).ListUsers(asked_for(2)) as users,
    ):
        await in_thread(next, users)

    assert users.cancelled()
    assert notes.seen == ["cancelled"]


async def test_a_synchronous_channel_is_one_of_grpcios(plain: sync.GrpcClient) -> None:
    states: queue.Queue[grpc.ChannelConnectivity] = queue.Queue()
    with plain.channel as channel:
        assert isinstance(channel, grpc.Channel)
        channel.subscribe(states.put, try_to_connect=True)
        found: list[grpc.ChannelConnectivity] = []
        while grpc.ChannelConnectivity.READY not in found:
            found.append(await in_thread(states.get, timeout=10))
        channel.unsubscribe(states.put)
