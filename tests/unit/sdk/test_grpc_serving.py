"""A gRPC server of ours starts with what it checks calls with, follows it, and ends when it is told."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_guarded import AUTH, UNAUTHENTICATED, Client, ClientOf, Start, opening, starting
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_servers import ADD, KEY, KINDS, LINK, VERIFIER, Served, plain_stub, serving, write_grpc_verifier
from sdk_servers import entry_of, make_key
from sdk_worlds import in_thread
from users_service import FULL_NAME, generated

import servicelink
from servicelink import sync
from servicelink.grpc import server_parts
from servicelink.grpc.server_door import HEALTH
from servicelink_contract.rules import GrpcRule


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> AsyncIterator[Start]:
    """`await start(**options)` answers a server with a verifier."""
    async with starting(kind, tmp_path, monkeypatch) as begin:
        yield begin


@pytest.fixture
async def client_of() -> AsyncIterator[Callable[[Served], Client]]:
    """`client_of(served)` answers grpcio's own client."""
    with opening() as make:
        yield make


async def test_health_is_for_everybody_and_reflection_for_whoever_may(
    tmp_path: Path, start: Start, client_of: ClientOf
) -> None:
    served = await start()
    stub: Any = health_pb2_grpc.HealthStub(client_of(served).channel)
    for name in ("", FULL_NAME):
        answer = await in_thread(stub.Check, health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with grpc.insecure_channel(served.address) as plain, pytest.raises(grpc.RpcError):
        await in_thread(ProtoReflectionDescriptorDatabase(plain).get_services)
    open_ = await start(exempt=(HEALTH, "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"))
    with grpc.insecure_channel(open_.address) as plain:
        found = await in_thread(ProtoReflectionDescriptorDatabase(plain).get_services)

    assert FULL_NAME in found


async def test_strangers_watch_no_server_of_threads_since_one_could_hold_up_all_who_ask(
    start: Start, client_of: ClientOf, kind: str
) -> None:
    stub: Any = health_pb2_grpc.HealthStub(client_of(await start()).channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=10)
    if kind == "threads":
        assert await in_thread(watch.code) is grpc.StatusCode.UNAUTHENTICATED
    else:
        assert (await in_thread(next, watch)).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()


async def test_without_anything_to_check_calls_with_a_server_does_not_start(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SERVICELINK_VERIFIER_DIR", "INTERNAL_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(servicelink.LinkConfigurationError):
        async with serving(kind):
            pass
    monkeypatch.setenv("INTERNAL_API_KEY", "")
    with pytest.raises(servicelink.LinkConfigurationError):
        async with serving(kind):
            pass


async def test_with_a_shared_key_alone_a_server_is_protected(
    start: Start, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SERVICELINK_VERIFIER_DIR")
    monkeypatch.setenv("INTERNAL_API_KEY", "one, two")
    served = await start()
    client = client_of(served)

    for text in ("one", "two"):
        assert await client.call("CreateUser", ("x-service-auth", text)) == "7"
    assert await client.refusal("GetUser", ("x-service-auth", "three")) == UNAUTHENTICATED
    assert {one.link and one.link.link for one in served.users.reached} == {"shared key"}


async def test_rules_and_keys_are_followed_while_it_runs(tmp_path: Path, start: Start, client_of: ClientOf) -> None:
    served = await start()
    client = client_of(served)
    await client.call("GetUser", AUTH)
    younger = make_key(5)
    everything = (GrpcRule(FULL_NAME, None),)
    write_grpc_verifier(
        tmp_path, replace(VERIFIER, links=(replace(LINK, keys=(entry_of(younger),), allow=everything),))
    )
    await asyncio.sleep(0.06)

    assert await client.refusal("GetUser", AUTH) == UNAUTHENTICATED
    assert await client.call("CreateUser", ("x-service-auth", younger.text)) == "7"


async def test_no_client_keeps_a_connection_for_ever(
    start: Start, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Five minutes are 300 ms here.
    options = server_parts._OPTIONS  # noqa: SLF001 - what there is, only sooner
    quick = tuple((name, value // 1000 if name.endswith("_ms") else value) for name, value in options)
    monkeypatch.setattr(server_parts, "_OPTIONS", quick)
    client = client_of(await start())
    was_open, was_ended = threading.Event(), threading.Event()

    def note(state: grpc.ChannelConnectivity) -> None:
        if state is grpc.ChannelConnectivity.READY:
            was_open.set()
        elif was_open.is_set():
            was_ended.set()

    client.channel.subscribe(note, try_to_connect=True)

    assert await in_thread(was_open.wait, 10)
    assert await in_thread(was_ended.wait, 10)
    client.channel.unsubscribe(note)


async def test_a_port_that_is_taken_is_an_error(start: Start) -> None:
    served = await start()
    with pytest.raises(RuntimeError):
        await start(port=served.port)


PROGRAM = """
import asyncio, sys
sys.path.insert(0, {harness!r})
from grpc_servers import ADD, AioUsers, ThreadUsers
import servicelink
from servicelink import sync

async def run():
    server = await servicelink.grpc_server({{ADD: AioUsers()}}, host="127.0.0.1", port=0)
    print(server.port, flush=True)
    await server.serve()

def run_threads():
    with sync.grpc_server({{ADD: ThreadUsers()}}, host="127.0.0.1", port=0) as server:
        print(server.port, flush=True)
        server.serve()

asyncio.run(run()) if sys.argv[1] == "aio" else run_threads()
print("ended", flush=True)
"""


async def is_served(stub: Any) -> bool:
    """Ask a server for its health, and answer whether it answered."""
    call = stub.Check(health_pb2.HealthCheckRequest())
    return await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("how", ["aio", "threads"])
async def test_a_server_that_is_told_to_end_lets_calls_end_first(how: str) -> None:
    program = PROGRAM.format(harness=str(Path(__file__).parents[2] / "harness"))
    environ = {**os.environ, "INTERNAL_API_KEY": KEY.text}
    environ.pop("SERVICELINK_VERIFIER_DIR", None)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, how, env=environ, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        chat = plain_stub(channel).Chat(metadata=(AUTH,))
        await chat.write(generated()[0].Line(text="a"))
        assert (await chat.read()).text == "A"
        process.send_signal(signal.SIGTERM)
        stub = health_pb2_grpc.HealthStub(channel)
        # It may serve until it has noticed, and then takes nothing more.
        while await is_served(stub):
            continue
        await chat.write(generated()[0].Line(text="b"))
        assert (await chat.read()).text == "B"
        await chat.done_writing()
        assert await chat.read() is grpc.aio.EOF
    said, _ = await process.communicate()

    assert (process.returncode, said) == (0, b"ended\n")


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Answer a frame of HTTP/2 (RFC 9113, section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS = 1, 4


def watch_without_a_window() -> bytes:
    """Answer what a client sends that watches health and has no room for an answer of any size."""
    names = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/grpc.health.v1.Health/Watch",
        ":authority": "a",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    # Literals that nobody is to remember (RFC 7541, section 6.2.2).
    block = b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(text)]) + text.encode() for name, text in names.items()
    )
    initial_window_size = b"\0\4" + bytes(4)
    return (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + frame(SETTINGS, 0, 0, initial_window_size)
        + frame(HEADERS, END_HEADERS, 1, block)
        + frame(DATA, END_STREAM, 1, bytes(5))
    )


async def test_who_watches_its_health_and_reads_nothing_keeps_no_server_from_its_end(start: Start, kind: str) -> None:
    served = await start(exempt=(HEALTH,))
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(watch_without_a_window())
    # Frame after frame, until the headers of the answer: then it is watched.
    while (head := await reader.readexactly(9))[3] != HEADERS:
        await reader.readexactly(int.from_bytes(head[:3], "big"))
    async with asyncio.timeout(10):
        if kind == "threads":
            await in_thread(served.server.stop, 0.1)
        else:
            await served.server.stop(0.1)
    writer.close()


def test_the_interceptors_stand_in_servers_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERNAL_API_KEY", KEY.text)

    assert isinstance(servicelink.LinkInterceptor(), grpc.aio.ServerInterceptor)
    assert isinstance(sync.LinkInterceptor(), grpc.ServerInterceptor)
    assert callable(ADD)


@pytest.mark.parametrize("module", ["grpc", "grpc_health", "grpc_reflection"])
@pytest.mark.parametrize("name", ["servicelink.grpc_server", "sync.grpc_server"])
async def test_whoever_lacks_one_of_its_libraries_is_told_what_to_install(module: str, name: str) -> None:
    program = f"import sys; sys.modules[{module!r}] = None; import servicelink; from servicelink import sync; {name}"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()

    assert said.decode().splitlines()[-1].endswith("needs more than is installed: pip install 'servicelink[grpc]'")
