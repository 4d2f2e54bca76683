"""What grpcio's own calls can do, ours can: metadata and status, writing, cancelling, futures, letting go."""

import asyncio
import gc
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_asked import Notes, asked, asked_for, line, stub_of
from grpc_worlds import GrpcStage, serving_users
from sdk_worlds import in_thread
from users_service import REFUSED, failing, generated

import servicelink
from servicelink import CircuitBreaker, sync


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


async def test_an_answer_comes_with_metadata_and_status(client: servicelink.GrpcClient) -> None:
    call = stub_of(client).GetUser(asked("7"))
    done: list[Any] = []
    call.add_done_callback(done.append)
    await call.wait_for_connection()
    initial = await call.initial_metadata()

    assert isinstance(call, grpc.aio.UnaryUnaryCall)
    assert ((await call).user_id, initial["x-seen"]) == ("7", "7")
    assert (await call.trailing_metadata())["x-last"] == "yes"
    assert (await call.code(), await call.details()) == (grpc.StatusCode.OK, "")
    assert (call.done(), call.cancelled(), call.cancel(), done) == (True, False, False, [call])


async def test_an_error_comes_with_metadata_and_status(client: servicelink.GrpcClient, stage: GrpcStage) -> None:
    stage.users.failures = deque([failing("NOT_FOUND")])
    call = stub_of(client).GetUser(asked())

    assert (await call.code(), await call.details()) == (grpc.StatusCode.NOT_FOUND, "as the test said")
    with pytest.raises(servicelink.RemoteError):
        await call


async def test_a_call_that_was_never_sent_has_a_status_too(stage: GrpcStage) -> None:
    breaker = CircuitBreaker(failures=1)
    async with servicelink.GrpcClient(service_name="users", address="127.0.0.1:1", breaker=breaker) as client:
        with pytest.raises(servicelink.ServiceUnavailable):
            await stub_of(client).CreateUser(generated()[0].User())
        call = stub_of(client).ListUsers(asked_for(1))

        assert (await call.code(), list(await call.trailing_metadata())) == (grpc.StatusCode.UNAVAILABLE, [])
        with pytest.raises(servicelink.CircuitOpen):
            await call.wait_for_connection()
        with pytest.raises(servicelink.CircuitOpen):
            await call.initial_metadata()


async def test_messages_may_be_written_one_by_one(client: servicelink.GrpcClient) -> None:
    stub = stub_of(client)
    adding = stub.AddUsers()
    for _ in range(3):
        await adding.write(generated()[0].User())
    await adding.done_writing()
    chat = stub.Chat()
    await chat.write(line("a"))
    first = await chat.read()
    await chat.write(line("b"))
    second = await chat.read()
    await chat.done_writing()

    assert (await adding).count == 3
    assert (first.text, second.text, await chat.read()) == ("A", "B", grpc.aio.EOF)
    assert await chat.code() is grpc.StatusCode.OK


async def test_writing_into_a_call_that_was_refused_raises_why(
    client: servicelink.GrpcClient, stage: GrpcStage
) -> None:
    for method in ("AddUsers", "Chat"):
        stage.users.failures = deque([REFUSED])
        call = getattr(stub_of(client), method)()
        await call.code()
        with pytest.raises(servicelink.InvalidServiceAuth):
            await call.write(line("a"))


async def test_whoever_stops_waiting_cancels_the_call_and_no_circuit_counts_it(stage: GrpcStage) -> None:
    stage.users.silent = True
    breaker, notes = CircuitBreaker(failures=1), Notes()
    async with servicelink.GrpcClient(
        service_name="users", address=stage.address, breaker=breaker, interceptors=[notes]
    ) as client:
        stub = stub_of(client)
        calls = [
            asyncio.ensure_future(stub.GetUser(asked())),
            asyncio.ensure_future(stub.ListUsers(asked_for(1)).read()),
        ]
        await stage.users.until(lambda: len(stage.users.seen) == 2)
        for waiting in calls:
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    assert (notes.seen, breaker.state) == (["cancelled"] * 2, servicelink.CircuitState.CLOSED)


async def test_a_stream_is_cancelled_while_it_begins_and_while_it_runs(stage: GrpcStage) -> None:
    notes = Notes()
    stage.users.silent = True
    async with servicelink.GrpcClient(service_name="users", address=stage.address, interceptors=[notes]) as client:
        early = stub_of(client).ListUsers(asked_for(2))
        await stage.users.until(lambda: len(stage.users.seen) == 1)
        first = early.cancel()
        with pytest.raises(asyncio.CancelledError):
            await early.read()
        stage.users.silent, stage.users.go = False, asyncio.Semaphore(0)
        late = stub_of(client).ListUsers(asked_for(2))
        await late.read()
        reading = asyncio.ensure_future(late.read())
        await asyncio.sleep(0)
        second = late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        with pytest.raises(asyncio.CancelledError):
            await late.read()

        assert (first, second, late.cancel()) == (True, True, False)
        assert (early.cancelled(), late.cancelled(), late.done()) == (True, True, True)
        assert await late.code() is grpc.StatusCode.CANCELLED
    assert notes.seen == ["cancelled", "cancelled"]


async def test_a_stream_in_a_with_block_is_cancelled_at_its_end(stage: GrpcStage) -> None:
    notes = Notes()
    stage.users.go = asyncio.Semaphore(0)
    async with (
        servicelink.GrpcClient(service_name="users", address=stage.address, interceptors=[notes]) as client,
        stub_of(client).ListUsers(asked_for(2)) as users,
    ):
        async for _ in users:
            break

    assert notes.seen == ["cancelled"]


async def test_a_stream_that_nobody_holds_any_more_is_cancelled(stage: GrpcStage) -> None:
    ended = asyncio.Event()
    stage.users.go = asyncio.Semaphore(0)
    client = servicelink.GrpcClient(service_name="users", address=stage.address)
    stream = stub_of(client).ListUsers(asked_for(2))
    await stream.read()
    (rpc,) = [stream._task.result().rpc]  # noqa: SLF001 - what is beneath it
    rpc.add_done_callback(lambda _: ended.set())
    del stream
    gc.collect()
    await asyncio.wait_for(ended.wait(), 10)

    assert rpc.cancelled()
    await client.aclose()


async def test_calls_begin_when_they_are_made_and_not_when_they_are_awaited(
    client: servicelink.GrpcClient, stage: GrpcStage
) -> None:
    calls = [stub_of(client).GetUser(asked(str(number))) for number in range(3)]
    await stage.users.until(lambda: len(stage.users.seen) == 3)

    assert [user.user_id for user in await asyncio.gather(*calls)] == ["0", "1", "2"]


async def test_a_channel_is_one_of_grpcios(client: servicelink.GrpcClient, stage: GrpcStage) -> None:
    async with client.channel as channel:
        assert isinstance(channel, grpc.aio.Channel)
        await channel.channel_ready()
        ready = channel.get_state()
        await stage.stop()
        await channel.wait_for_state_change(ready)

        assert ready is grpc.ChannelConnectivity.READY


async def test_a_connection_may_be_asked_for_by_channel_alone(
    stage: GrpcStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USERS_URL", stage.address)
    monkeypatch.setenv("INTERNAL_API_KEY", "shared")
    async with servicelink.grpc_channel("users") as channel:
        answer = await generated()[1].UserServiceStub(channel).GetUser(asked("7"))
    with sync.grpc_channel("users") as plain:
        again = await in_thread(generated()[1].UserServiceStub(plain).GetUser, asked("7"))

    assert answer == again
    assert [seen.all("x-service-auth") for seen in stage.users.seen] == [["shared"]] * 2


def _forever() -> Iterator[Any]:
    while True:
        yield line("a")


async def test_an_endless_stream_of_requests_ends_with_its_call(
    client: servicelink.GrpcClient, plain: sync.GrpcClient
) -> None:
    chat = stub_of(client).Chat(_forever())
    await chat.read()
    chat.cancel()
    other = stub_of(plain).Chat(_forever())
    await in_thread(next, other)
    other.cancel()

    assert chat.cancelled()
    assert other.cancelled()


async def test_a_server_that_ends_a_stream_early_is_heard_and_not_a_failed_write(
    client: servicelink.GrpcClient, stage: GrpcStage
) -> None:
    """grpc.aio alone says INTERNAL in some of these."""

    async def lines() -> AsyncIterator[Any]:
        for _ in range(50):
            yield line("a" * 10_000)

    for _ in range(50):
        stage.users.failures = deque([failing("NOT_FOUND")])
        call = stub_of(client).Chat(lines())
        with pytest.raises(servicelink.RemoteError) as failed:
            await call.read()
        assert failed.value.code == "NOT_FOUND"
