"""What tests of servers share: a verifier and its keys, an application that notes what reaches it, raw requests."""

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import servicelink
from servicelink import mounted
from servicelink.verify import Allowed
from servicelink_contract.key import ApiKey, render_key
from servicelink_contract.paths import parse_pattern
from servicelink_contract.rules import GraphQLRule, OperationType, Protocol, RestRule
from servicelink_contract.verifier import KeyEntry, LinkEntry, Mode, Verifier, render_verifier

# Swapping what a mounted folder holds, as the kubelet does it.
swap = mounted.swap
# For httpx's clients: each would read all the system's certificates anew, and over http nobody shows one.
NO_TRUST = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
SINCE = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def make_key(number: int) -> ApiKey:
    """Answer the key of a number, always the same."""
    return render_key(f"{number:08d}", number.to_bytes(32, "big"))


def entry_of(key: ApiKey) -> KeyEntry:
    """Answer what a verifier says of a key."""
    return KeyEntry(key.kid, key.sha256, SINCE)


KEY, GRAPHQL_KEY = make_key(1), make_key(2)
READS = RestRule(frozenset({"GET"}), (parse_pattern("/v1/**"),))
LINK = LinkEntry("shop/web", "uid-1", 8080, Protocol.REST, (entry_of(KEY),), allow=(READS,))
QUERIES = GraphQLRule(OperationType.QUERY, None, frozenset({"order", "user"}))
GRAPHQL_LINK = LinkEntry("shop/app", "uid-2", 8080, Protocol.GRAPHQL, (entry_of(GRAPHQL_KEY),), allow=(QUERIES,))
VERIFIER = Verifier("shop/api", Mode.ENFORCE, "x-service-auth", "/graphql", (LINK, GRAPHQL_LINK))


def write_verifier(folder: Path, verifier: Verifier = VERIFIER) -> None:
    """Swap a verifier in."""
    swap(folder, {f"shard-{place}.json": text for place, text in enumerate(render_verifier(verifier))})


def with_keys(verifier: Verifier, *keys: ApiKey) -> Verifier:
    """Answer a verifier whose first link has these keys."""
    first, *others = verifier.links
    return replace(verifier, links=(replace(first, keys=tuple(map(entry_of, keys))), *others))


class AsgiApp:
    """An ASGI application that notes what reaches it, and answers what it read."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.links: list[Allowed | None] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 200 with the body that came."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        self.scopes.append(scope)
        self.links.append(servicelink.current_link())
        body = b""
        if scope["type"] == "http":
            while True:
                message = await receive()
                body += message.get("body", b"")
                if not message.get("more_body"):
                    break
            self.bodies.append(body)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})

    async def _live(self, receive: Any, send: Any) -> None:
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """An answer as it came."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes


async def exchange(address: tuple[str, int], raw: bytes) -> RawAnswer | None:
    """Send bytes over a connection of their own, and answer what came back; None where nothing did."""
    async with connected(address) as (reader, writer):
        writer.write(raw)
        return await read_answer(reader)


@asynccontextmanager
async def connected(address: tuple[str, int]) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect, and close at the end."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def read_answer(reader: asyncio.StreamReader, *, has_body: bool = True) -> RawAnswer | None:
    """Read one answer, without a body where it is to HEAD; None where the server closed without one."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    line, *rest = head.strip().split("\r\n")
    headers = {name.lower(): text.strip() for name, _, text in (one.partition(":") for one in rest)}
    length = int(headers.get("content-length", "0")) if has_body else 0
    return RawAnswer(int(line.split()[1]), headers, await reader.readexactly(length))
