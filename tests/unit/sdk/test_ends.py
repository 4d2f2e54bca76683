"""Clients that nobody closes end with their event loop, quietly; and a closed one may be used again."""

import asyncio
import gc
import os
import sys
from pathlib import Path

import pytest
from sdk_faults import fine
from sdk_worlds import WORLDS, Peer, Request, open_caller, staged

import servicelink

PROGRAM = """
import asyncio
import servicelink

api = servicelink.connect("api")
catalog = servicelink.connect_graphql("api")

async def main():
    async with api.stream("GET", "/") as answer:
        print((await api.get("/")).text, await answer.aread())
    try:
        await catalog.query("{ a }")
    except servicelink.ServiceError:
        pass

for _ in range(2):
    asyncio.run(main())
"""


async def test_a_program_that_closes_no_client_ends_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    async with staged(fine) as stage:
        environ = {**os.environ, "API_URL": stage.address, "INTERNAL_API_KEY": "a-shared-key-0123456789"}
        words = [sys.executable, "-W", "always", "-X", "dev", "program.py"]
        program = await asyncio.create_subprocess_exec(
            *words, cwd=tmp_path, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        said, complained = await program.communicate()

    assert said.decode() == "fine b'fine'\n" * 2
    assert complained.decode() == ""


async def test_a_client_that_is_forgotten_closes_its_connections(recwarn: pytest.WarningsRecorder) -> None:
    gone = asyncio.Event()

    async def watch(peer: Peer, request: Request) -> None:
        await fine(peer, request)
        await peer.until_gone()
        gone.set()

    async with staged(watch) as stage:
        await servicelink.ServiceClient(service_name="api", base_url=stage.address).get("/")
        gc.collect()
        await asyncio.wait_for(gone.wait(), 5)

    assert [str(one.message) for one in recwarn if "nclosed" in str(one.message)] == []


@pytest.mark.parametrize("kind", WORLDS)
async def test_a_closed_client_opens_new_connections_when_it_is_used_again(kind: str) -> None:
    async with staged(fine) as stage:
        api = open_caller(kind, service_name="api", base_url=stage.address)
        for _ in range(2):
            assert (await api.get("/")).text == "fine"
            await api.close()

    assert stage.connections == 2
