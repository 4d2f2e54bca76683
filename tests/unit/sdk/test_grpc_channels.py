"""The connections of gRPC clients: when one is opened and closed, and by whom."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_bound import OLD, Mount
from grpc_worlds import GrpcStage, open_grpc, serving_users
from sdk_worlds import WORLDS
from users_service import generated

import servicelink
from servicelink import Call, Outcome, forks
from servicelink.binding import Binding
from servicelink.grpc.channels import Channels, channel_options


@pytest.fixture
async def stage() -> AsyncIterator[GrpcStage]:
    async with serving_users() as found:
        yield found


class Bound:
    """A client of a binding whose address changes, which takes another connection."""

    def __init__(self, stage: GrpcStage, mount: Mount, folder: Path) -> None:
        self._stage, self._mount, self._folder = stage, mount, folder
        self._write(stage.address)
        self.more: dict[str, str] = {}
        self.client = servicelink.GrpcClient(service_name="users", retries=0, interceptors=[self])
        self.stub = self.client.stub(generated()[1].UserServiceStub)

    def channel(self) -> grpc.aio.Channel:
        """Answer grpcio's channel of this moment."""
        binding = self.client._caller.line.source.current()  # noqa: SLF001 - no user sees it
        return self.client._wire.channel(binding)  # noqa: SLF001 - as above

    def intercept(self, call: Call) -> Generator[None, Outcome, None]:
        """Send what is in `more`, too."""
        call.metadata.update(self.more)
        yield

    def move(self) -> None:
        """Have the address change, and open a connection there."""
        self._write(f"grpc://{self._stage.address}")
        # Not after up to 50 ms.
        self.client._caller.line.source.reload()  # noqa: SLF001 - as above
        self.channel()

    async def get(self) -> None:
        """Make a call."""
        await self.stub.GetUser(generated()[0].GetUserRequest(user_id="1"))

    def _write(self, uri: str) -> None:
        self._mount(self._folder / "users", {"uri": uri, "api-key": OLD, "protocol": "grpc"})


@pytest.fixture
async def bound(
    stage: GrpcStage, mount: Mount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bound]:
    monkeypatch.setenv("SERVICE_BINDING_ROOT", str(tmp_path))
    made = Bound(stage, mount, tmp_path)
    async with made.client:
        yield made


async def until_closed(channel: grpc.aio.Channel) -> None:
    async with asyncio.timeout(5):
        while channel.get_state() is not grpc.ChannelConnectivity.SHUTDOWN:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)


async def test_a_connection_ends_with_its_last_call_also_after_calls_that_could_not_be_sent(bound: Bound) -> None:
    await bound.get()
    before = bound.channel()
    bound.more = {"Not A Key": "1"}
    with pytest.raises(servicelink.ServiceError, match="cannot be sent"):
        await bound.get()
    bound.move()

    await until_closed(before)


async def test_a_connection_ends_with_its_last_call_whenever_a_stream_was_cancelled(bound: Bound) -> None:
    async def read() -> None:
        async for _ in bound.stub.ListUsers(generated()[0].ListUsersRequest(count=2)):
            pass

    await read()
    before = bound.channel()
    for turns in range(20):
        task = asyncio.create_task(read())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    bound.move()

    await until_closed(before)


async def test_a_client_that_was_closed_has_closed_earlier_connections_too(bound: Bound) -> None:
    await bound.get()
    before = bound.channel()
    bound.move()
    await bound.client.aclose()

    assert before.get_state() is grpc.ChannelConnectivity.SHUTDOWN


def test_connections_of_event_loops_that_have_ended_are_let_go() -> None:
    client = servicelink.GrpcClient(service_name="users", address="127.0.0.1:1", retries=0)
    channels: list[weakref.ref[grpc.aio.Channel]] = []

    async def use() -> None:
        with pytest.raises(servicelink.ServiceUnavailable):
            await client.stub(generated()[1].UserServiceStub).GetUser(generated()[0].GetUserRequest())
        channels.append(weakref.ref(client._wire.channel(client._caller.line.source.current())))  # noqa: SLF001 - as above

    for _ in range(3):
        asyncio.run(use())
    gc.collect()

    assert [channel() is None for channel in channels] == [True, True, False]


@pytest.mark.parametrize("kind", WORLDS)
async def test_a_forked_child_opens_connections_of_its_own_and_closes_none_of_its_parents(
    stage: GrpcStage, kind: str
) -> None:
    users = open_grpc(kind, service_name="users", address=stage.address)
    wire, source = users.client._wire, users.client._caller.line.source  # noqa: SLF001 - as above
    await users.get()
    parents = weakref.ref(wire.channel(source.current()))
    # As if that had been before a fork.
    wire._generation = forks.generation() - 1  # noqa: SLF001 - as above
    await users.get()
    gc.collect()

    assert parents() is not None
    assert wire.channel(source.current()) is not parents()
    await users.close()


def test_a_connection_that_was_closed_with_its_client_is_not_closed_again_by_its_last_call() -> None:
    closed: list[object] = []
    channels = Channels(lambda target, _: target.port, closed.append)
    calls = [channels.lease(Binding("users", f"127.0.0.1:{port}", None)) for port in (1, 2)]
    open_then = channels.close()
    for call in calls:
        channels.release(call)

    assert (sorted(open_then), closed) == ([1, 2], [])


async def test_a_server_that_is_away_is_looked_for_again_soon() -> None:
    looked: asyncio.Queue[float] = asyncio.Queue()

    def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        looked.put_nowait(asyncio.get_running_loop().time())
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, servicelink.GrpcClient(service_name="users", address=address) as client:
        stub = client.stub(generated()[1].UserServiceStub)
        call = stub.GetUser(generated()[0].GetUserRequest(), wait_for_ready=True, timeout=30)
        times = [await looked.get() for _ in range(4)]
        call.cancel()

    # grpcio's own pauses begin with a second, and grow.
    assert times[-1] - times[0] < 2.5


def test_connections_are_kept_alive_no_oftener_than_servers_put_up_with() -> None:
    options = dict(channel_options(()))

    # By default they take more than one in five minutes for abuse, and close the connection.
    assert 300_000 < options["grpc.keepalive_time_ms"] < 400_000
    assert options["grpc.keepalive_timeout_ms"] <= 20_000
