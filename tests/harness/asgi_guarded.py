"""A guarded ASGI application that notes what reaches it, and ways to call it."""

import datetime as dt
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
from sdk_servers import NO_TRUST

import servicelink
from servicelink.asgi import LinkMiddleware
from servicelink.verify import Allowed
from servicelink_contract.key import render_key
from servicelink_contract.paths import parse_pattern
from servicelink_contract.rules import Protocol, RestRule
from servicelink_contract.verifier import KeyEntry, LinkEntry, Mode, Verifier, render_verifier

KEY = render_key("k7Q2M4ZB", bytes(range(32)))
ENTRY = KeyEntry(KEY.kid, KEY.sha256, dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
READS = RestRule(frozenset({"GET"}), (parse_pattern("/v1/**"),))
LINK = LinkEntry("shop/web", "uid-1", 8080, Protocol.REST, (ENTRY,), allow=(READS,))
VERIFIER = Verifier("shop/api", Mode.ENFORCE, "x-service-auth", "/graphql", (LINK,))
WITH_KEY = {"x-service-auth": KEY.text}
Mount = Callable[[Path, Mapping[str, str]], None]
Serve = Callable[[Any], Awaitable[str]]


class App:
    """An application that notes what reaches it."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.links: list[Allowed | None] = []

    async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
        """Answer 204."""
        self.scopes.append(scope)
        self.links.append(servicelink.current_link())
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})


def write(mount: Mount, folder: Path, verifier: Verifier = VERIFIER) -> None:
    mount(folder, {"shard-0.json": render_verifier(verifier)[0]})


async def get(address: str, path: str, headers: Any = None, method: str = "GET") -> httpx.Response:
    async with httpx.AsyncClient(verify=NO_TRUST, trust_env=False) as client:
        return await client.request(method, address + path, headers=headers)


async def connection(middleware: LinkMiddleware, kind: str, **scope: Any) -> list[Any]:
    """Serve one connection by hand, for what no client at hand speaks."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": f"{kind}.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await middleware({"type": kind, "headers": [], **scope}, receive, send)
    return sent
