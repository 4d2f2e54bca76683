"""httpx's own clients over a link keep the time limits that they were given."""

import asyncio
import time
from typing import Any

import httpx
import pytest
from sdk_faults import fine, silent
from sdk_worlds import WORLDS, in_thread, staged

import servicelink
from servicelink import sync

KEY = "a-shared-key-0123456789"


@pytest.fixture(params=WORLDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def _shared_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERNAL_API_KEY", KEY)


async def get(kind: str, of_transport: dict[str, Any], of_client: dict[str, Any], **of_call: Any) -> httpx.Response:
    if kind == "asynchronous":
        transport = servicelink.httpx_transport("api", **of_transport)
        async with httpx.AsyncClient(transport=transport, base_url="http://api", **of_client) as client:
            return await client.get("/", **of_call)

    def call() -> httpx.Response:
        transport = sync.httpx_transport("api", **of_transport)
        with httpx.Client(transport=transport, base_url="http://api", **of_client) as client:
            return client.get("/", **of_call)

    return await in_thread(call)


@pytest.mark.parametrize(
    ("of_client", "of_call"),
    [
        ({"timeout": 0.2}, {}),
        ({"timeout": httpx.Timeout(30, read=0.2)}, {}),
        ({"timeout": 30}, {"timeout": 0.2}),
    ],
)
async def test_a_time_limit_of_httpx_cuts_a_call_over_a_link(
    kind: str, of_client: dict[str, Any], of_call: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with staged(silent) as stage:
        monkeypatch.setenv("API_URL", stage.address)
        began = time.monotonic()
        with pytest.raises(servicelink.ServiceTimeout, match=r"\(0\.2 s\).*timeout="):
            await get(kind, {"timeout": 30}, of_client, **of_call)

        assert time.monotonic() - began < 3


@pytest.mark.parametrize("longer", [30, None, httpx.Timeout(None, connect=1)])
async def test_a_longer_time_limit_of_httpx_is_not_cut_by_a_links(
    kind: str, longer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(peer: Any, request: Any) -> None:
        # A server that is slow: that is what is waited for.
        await asyncio.sleep(0.3)
        await fine(peer, request)

    async with staged(slow) as stage:
        monkeypatch.setenv("API_URL", stage.address)
        assert (await get(kind, {"timeout": 0.1}, {"timeout": longer})).text == "fine"


async def test_where_httpx_says_nothing_the_links_time_limit_holds(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged(silent) as stage:
        monkeypatch.setenv("API_URL", stage.address)
        with pytest.raises(servicelink.ServiceTimeout, match=r"\(0\.2 s\)"):
            await get(kind, {"timeout": 0.2}, {})
