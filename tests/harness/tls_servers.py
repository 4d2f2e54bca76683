"""uvicorn's protocols in the tests' own loop, plain or over TLS as `servicelink.uvicorn_config` sets it up.

Without the rounds of uvicorn's main loop, which cost every test two tenths of a second and more.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from uvicorn.server import ServerState

import servicelink


@asynccontextmanager
async def served(config: uvicorn.Config) -> AsyncIterator[tuple[str, int]]:
    """Serve what is configured, and answer its address."""
    config.load()
    state = ServerState()

    def connect() -> asyncio.Protocol:
        protocol: Any = config.http_protocol_class
        return protocol(config=config, server_state=state, app_state={})  # type: ignore[no-any-return] # its choice

    server = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", 0, ssl=config.ssl)
    yield server.sockets[0].getsockname()
    server.close()
    for task in tuple(state.tasks):
        task.cancel()
    for connection in tuple(state.connections):
        connection.shutdown()
    await asyncio.gather(*state.tasks, return_exceptions=True)


@asynccontextmanager
async def running(app: Any, **options: Any) -> AsyncIterator[tuple[str, int]]:
    """Serve over TLS, and answer the address."""
    async with served(servicelink.uvicorn_config(app, log_config=None, lifespan="off", **options)) as address:
        yield address
