"""uvicorn over TLS, as `servicelink.uvicorn_config` sets it up, in the tests' own loop."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

import servicelink


@asynccontextmanager
async def running(app: Any, **options: Any) -> AsyncIterator[tuple[str, int]]:
    """Run uvicorn, and answer its address."""
    config = servicelink.uvicorn_config(app, log_config=None, lifespan="off", **options)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            assert not task.done(), task.exception()
            await asyncio.sleep(0)
        yield listener.getsockname()
        server.should_exit = True
        await task
