"""Probes are answered by what the process knows, and say what is missing."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest

from servicelink_operator.http import HealthServer, Readiness


@dataclass(slots=True)
class World:
    """A server, its address, and what it is told."""

    readiness: Readiness
    address: str
    alive: bool = True

    async def ask(self, path: str) -> tuple[int, str]:
        """Answer status and page."""
        async with aiohttp.ClientSession() as session, session.get(self.address + path) as answer:
            return answer.status, await answer.text()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World(Readiness(("crds", "lease")), "")
    server = HealthServer(made.readiness, lambda: made.alive)
    made.address = f"http://127.0.0.1:{await server.start('127.0.0.1', 0)}"
    yield made
    await server.stop()


async def test_not_ready_until_every_check_was_good(world: World) -> None:
    first = await world.ask("/readyz")
    world.readiness.set("crds", True, "")
    world.readiness.set("lease", True, "standby")
    second = await world.ask("/readyz")

    assert first == (503, "[-] crds: not checked yet\n[-] lease: not checked yet\nnot ready\n")
    assert second == (200, "ready\n")


async def test_verbose_lists_every_check_in_words(world: World) -> None:
    world.readiness.set("crds", False, "CRD servicelinks.servicelink.dev is not installed")
    world.readiness.set("lease", True, "standby")

    status, page = await world.ask("/readyz?verbose")

    assert status == 503
    assert page == "[-] crds: CRD servicelinks.servicelink.dev is not installed\n[+] lease: standby\nnot ready\n"


async def test_alive_is_what_its_owner_says(world: World) -> None:
    alive = await world.ask("/healthz")
    world.alive = False
    dead = await world.ask("/healthz")

    assert (alive[0], dead[0]) == (200, 503)


async def test_metrics_are_served_for_prometheus(world: World) -> None:
    status, page = await world.ask("/metrics")

    assert status == 200
    assert "# TYPE servicelink_leader gauge" in page
