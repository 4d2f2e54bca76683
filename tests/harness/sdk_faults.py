"""Servers that misbehave, and clients of either world for them."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from sdk_worlds import Caller, Hands, Peer, Play, Request, Stage, open_caller, staged


@dataclass(slots=True)
class World:
    """Servers that misbehave, and clients of one kind for them."""

    kind: str
    stack: AsyncExitStack

    async def stage(self, play: Play) -> Stage:
        """Answer a server that does this."""
        return await self.stack.enter_async_context(staged(play))

    def connect(self, stage: Stage, hands: Hands | None = None, **options: Any) -> Caller:
        """Answer a client of it, closed at the test's end."""
        caller = open_caller(self.kind, hands, service_name="api", base_url=stage.address, **options)
        self.stack.push_async_callback(caller.close)
        return caller


async def fine(peer: Peer, request: Request) -> None:
    await peer.reply(200, b"fine")


async def drop(peer: Peer, request: Request) -> None:
    raise EOFError


async def half(peer: Peer, request: Request) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    raise EOFError


async def half_chunk(peer: Peer, request: Request) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    raise EOFError


async def nonsense(peer: Peer, request: Request) -> None:
    await peer.send(b"SSH-2.0-OpenSSH\r\n\r\n")
    raise EOFError


async def bad_gzip(peer: Peer, request: Request) -> None:
    await peer.reply(200, b"no gzip at all", content_encoding="gzip")


async def silent(peer: Peer, request: Request) -> None:
    await peer.until_gone()


async def silent_in_the_middle(peer: Peer, request: Request) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nfirst")
    await peer.until_gone()


async def slow_head(peer: Peer, request: Request) -> None:
    """Send a byte from time to time, so that no single read takes long."""
    for byte in b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1000:
        await peer.send(bytes([byte]))
        await asyncio.sleep(0.01)


async def slow_body(peer: Peer, request: Request) -> None:
    """As `slow_head`, in the body."""
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    for _ in range(1000):
        await peer.send(b"y")
        await asyncio.sleep(0.01)
