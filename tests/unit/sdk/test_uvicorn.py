"""uvicorn serves over TLS as it is configured: how it starts, in how many processes, and how long a socket lasts."""

import asyncio
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from sdk_servers import AsgiApp, swap
from tls_servers import running
from tls_world import IDENTITY, World, calling
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import ConnectionClosed, InvalidStatus

import servicelink
from servicelink.authority import Authority


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("SERVICELINK_VERIFIER_DIR", str(tmp_path / "verifier"))
    monkeypatch.delenv("INTERNAL_API_KEY", raising=False)
    made = World(tmp_path, Authority("one"))
    made.certify(made.authority.server("localhost"))
    made.write()
    return made


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Send back what comes over a WebSocket."""
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": f"{message['text']} {scope['servicelink'].link}"})


async def push(scope: Any, receive: Any, send: Any) -> None:
    """Send for as long as somebody takes it, and never listen."""
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while True:
        await send({"type": "websocket.send", "text": scope["servicelink"].link})
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
async def test_a_websocket_that_only_pushes_does_not_last_for_ever_either(world: World, ws: str) -> None:
    leaf = world.authority.client(IDENTITY)
    async with running(servicelink.LinkMiddleware(push), ws=ws, connection_age=0.3) as (_, port):
        url = f"wss://localhost:{port}/v1/x"
        async with asyncio.timeout(20), connect_websocket(url, ssl=world.context(leaf), proxy=None) as socket_:
            said = {text async for text in socket_}

    assert said == {"shop/web"}
    assert socket_.close_code == 1001


@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
async def test_a_websocket_is_checked_and_does_not_last_for_ever(world: World, ws: str) -> None:
    leaf = world.authority.client(IDENTITY)
    app = servicelink.LinkMiddleware(echo)
    async with running(app, ws=ws, connection_age=1.0) as (_, port):
        url = f"wss://localhost:{port}/v1/x"
        with pytest.raises(InvalidStatus):
            await connect_websocket(url, ssl=world.context(), proxy=None)
        async with connect_websocket(url, ssl=world.context(leaf), proxy=None) as socket_:
            await socket_.send("hello")
            said = await socket_.recv()
            with pytest.raises(ConnectionClosed) as closed:
                await socket_.recv()

    assert said == "hello shop/web"
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001


@pytest.mark.parametrize("what", ["absent", "unfit", "several", "nothing", "no folder"])
async def test_without_a_certificate_it_does_not_start(
    world: World, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    folder = world.root / "tls" / "api"
    if what == "absent":
        swap(folder, {})
    elif what == "unfit":
        swap(folder, {"tls.crt": "PEM", "tls.key": "PEM"})
    elif what == "several":
        (folder.parent / "other").mkdir()
    elif what == "no folder":
        shutil.rmtree(folder.parent)
    else:
        monkeypatch.delenv("SERVICELINK_VERIFIER_DIR")
    config = servicelink.uvicorn_config(world.app, log_config=None)
    with pytest.raises(servicelink.LinkConfigurationError) as refused:
        config.load()

    assert refused.value.next_step


SHOP = """
import os
import servicelink

async def answer(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})

app = servicelink.LinkMiddleware(answer)
"""
SUPERVISED = """
import uvicorn
import servicelink

if __name__ == "__main__":
    options = {"host": "127.0.0.1", "port": 0, "workers": 2, "lifespan": "off", "log_config": None}
    config = servicelink.uvicorn_config("shop:app", **options)
    socket = config.bind_socket()
    print(socket.getsockname()[1], flush=True)
    uvicorn.supervisors.Multiprocess(config, [socket]).run()
"""


async def test_uvicorns_supervisor_runs_several_processes_of_it(world: World) -> None:
    for name, text in {"shop": SHOP, "serve": SUPERVISED}.items():
        (world.root / f"{name}.py").write_text(text)
    serving = await asyncio.create_subprocess_exec(
        sys.executable, "serve.py", cwd=world.root, stdout=asyncio.subprocess.PIPE
    )
    assert serving.stdout is not None
    port = int(await serving.stdout.readline())
    seen: set[str] = set()
    try:
        async with asyncio.timeout(60):
            while len(seen) < 2:
                # A connection each time, since a process keeps those that it has taken; nobody listens at first.
                async with calling(("localhost", port), world.context()) as client:
                    with suppress(httpx.ConnectError):
                        seen.add((await client.get("/healthz")).text)
    finally:
        serving.terminate()
        await serving.wait()

    assert str(serving.pid) not in seen


def test_options_that_would_set_tls_up_otherwise_are_refused() -> None:
    with pytest.raises(TypeError, match="ssl_certfile"):
        servicelink.uvicorn_config(AsgiApp(), ssl_certfile="a")
