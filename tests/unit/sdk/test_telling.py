"""What errors and logs tell of a call that failed: what it was, where it came from, and what helps."""

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from sdk_faults import World
from sdk_worlds import WORLDS, Hands, Peer, Request, open_caller

import servicelink

KEY = "a-shared-key-0123456789"


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(request.param, stack)


@pytest.fixture
def nobody() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


async def test_an_open_circuit_names_the_last_failure_of_attempts(world: World, nobody: str) -> None:
    api = open_caller(world.kind, Hands(), service_name="api", base_url=nobody, api_key=KEY, retries=2)
    for _ in range(2):
        with pytest.raises(servicelink.ServiceUnavailable):
            await api.get("/")
    with pytest.raises(servicelink.CircuitOpen) as circuit:
        await api.get("/")
    await api.close()

    assert "too many attempts in a row failed (last: not connected: " in str(circuit.value)
    assert "Connection refused)" in str(circuit.value)
    assert KEY not in str(circuit.value)


async def test_an_open_circuit_names_the_last_answer(world: World) -> None:
    async def broken(peer: Peer, request: Request) -> None:
        await peer.reply(503, b'{"error": {"code": "OUT_OF_STOCK"}}', content_type="application/json")

    api = world.connect(await world.stage(broken), Hands(), breaker=servicelink.CircuitBreaker(failures=1), retries=0)
    await api.get("/")

    with pytest.raises(servicelink.CircuitOpen, match=r"\(last: it answered 503 OUT_OF_STOCK\)"):
        await api.get("/")


async def test_an_attempt_that_is_tried_again_is_told_at_debug_with_why(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async def once(peer: Peer, request: Request) -> None:
        await peer.reply(503 if len(stage.requests) == 1 else 200)

    stage = await world.stage(once)
    caplog.set_level(logging.DEBUG, "servicelink")
    await world.connect(stage, Hands()).get("/")

    [record] = [one for one in caplog.records if "again" in one.getMessage()]
    assert record.levelname == "DEBUG"
    assert record.getMessage() == "api GET /: attempt 1: it answered 503; again in 0.10 s"
    assert record.__dict__["attempts"] == 1
