"""Mounted folders as the kubelet makes them, and applications on real sockets."""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

Mount = Callable[[Path, Mapping[str, str]], None]
Serve = Callable[[Any], Awaitable[str]]


@pytest.fixture
def mount() -> Mount:
    """`mount(folder, files)` swaps what a folder holds, as the kubelet does: new folder, one rename of `..data`."""
    versions = itertools.count()

    def swap(folder: Path, files: Mapping[str, str]) -> None:
        version = folder / f"..2026_{next(versions)}"
        version.mkdir(parents=True)
        for name, text in files.items():
            (version / name).write_text(text)
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(Path("..data") / name)
        fresh = folder / "..data_tmp"
        fresh.symlink_to(version.name)
        fresh.rename(folder / "..data")
        for path in folder.iterdir():
            if path.is_symlink() and not path.exists():
                path.unlink()

    return swap


@asynccontextmanager
async def _served(app: Any) -> AsyncIterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=2)
    )
    task = asyncio.create_task(server.serve([listener]))
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    await task
    listener.close()


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """`await serve(app)` answers the address of an ASGI application on a real socket."""
    async with AsyncExitStack() as stack:

        async def start(app: Any) -> str:
            return await stack.enter_async_context(_served(app))

        yield start
