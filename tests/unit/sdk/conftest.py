"""Mounted folders as the kubelet makes them, and applications on real sockets."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from sdk_bound import World, bound_world
from sdk_worlds import WORLDS
from tls_servers import served

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


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """`await serve(app)` answers the address of an ASGI application on a real socket."""
    async with AsyncExitStack() as stack:

        async def start(app: Any) -> str:
            config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none")
            host, port = await stack.enter_async_context(served(config))
            return f"http://{host}:{port}"

        yield start


@pytest.fixture(params=WORLDS)
async def world(  # noqa: PLR0917 - fixtures
    request: pytest.FixtureRequest, tmp_path: Path, mount: Mount, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    """A server and a client's bindings, for clients of each kind; a module of another world has its own."""
    root = tmp_path / "bindings"
    async with bound_world(request.param, root, mount=mount, serve=serve, monkeypatch=monkeypatch) as bound:
        yield bound
