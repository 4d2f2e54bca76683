"""A server over TLS with its folders and an authority, and clients with certificates."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from sdk_servers import LINK, VERIFIER, AsgiApp, swap, write_verifier

from servicelink.authority import Authority, Leaf
from servicelink.binding import TlsFiles
from servicelink.tls import client_context
from servicelink_contract.verifier import Verifier

IDENTITY = "spiffe://cluster.local/ns/shop/link/web"
BY_CERTIFICATE = replace(LINK, keys=(), identity=IDENTITY)
BY_KEY = replace(LINK, link="shop/other", uid="uid-9")


@dataclass(slots=True)
class World:
    """A server's folders, an authority, and the server."""

    root: Path
    authority: Authority
    app: AsgiApp = field(default_factory=AsgiApp)
    trust: str = ""
    links: tuple[Any, ...] = (BY_CERTIFICATE, BY_KEY)

    @property
    def verifier(self) -> Verifier:
        """The verifier as it is to be."""
        return replace(VERIFIER, links=self.links, trust=self.trust or self.authority.trust)

    def write(self) -> None:
        """Swap the verifier in."""
        write_verifier(self.root / "verifier" / "api", self.verifier)

    def certify(self, leaf: Leaf) -> Leaf:
        """Swap the server's certificate in."""
        swap(self.root / "tls" / "api", {"tls.crt": leaf.certificate, "tls.key": leaf.private_key})
        return leaf

    def context(self, leaf: Leaf | None = None, *, trust: str = "") -> ssl.SSLContext:
        """Answer a client's context."""
        certificate, key = ("", "") if leaf is None else (leaf.certificate, leaf.private_key)
        return client_context(TlsFiles(certificate, key, trust or self.authority.trust))


@asynccontextmanager
async def calling(address: tuple[str, int], context: ssl.SSLContext) -> AsyncIterator[httpx.AsyncClient]:
    """Answer a client that keeps one connection."""
    limits = httpx.Limits(max_connections=1, keepalive_expiry=60)
    url = f"https://localhost:{address[1]}"
    async with httpx.AsyncClient(base_url=url, verify=context, trust_env=False, limits=limits) as client:
        yield client
