"""A client of either world with a real binding, and the server that it leads to."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sdk_worlds import Caller, Hands, open_caller
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from servicelink_contract.binding import LinkDocument, render_link_document
from servicelink_contract.key import render_key

OLD = render_key("AAAAAAAA", b"a" * 32)
NEW = render_key("BBBBBBBB", b"b" * 32)
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
Mount = Callable[[Path, Mapping[str, str]], None]


@dataclass(slots=True)
class Server:
    """An application that takes one key, and notes what it was sent."""

    accepted: str = OLD.text
    seen: list[Request] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    on_refusal: Callable[[], None] = lambda: None
    address: str = ""

    async def answer(self, request: Request) -> Response:
        """Answer by the path."""
        self.seen.append(request)
        self.bodies.append(await request.body())
        if request.headers.get("x-service-auth") != self.accepted:
            self.on_refusal()
            return JSONResponse({"error": {"code": "INVALID_SERVICE_AUTH"}}, 403)
        match request.url.path:
            case "/denied":
                return JSONResponse({"error": {"code": "PERMISSION_DENIED"}}, 403)
            case "/forbidden":
                return JSONResponse({"error": {"code": "NOT_YOURS"}}, 403)
            case "/broken":
                return JSONResponse({"error": {"code": "OUT_OF_STOCK"}}, 409)
            case "/elsewhere":
                return Response(status_code=302, headers={"location": "/here", "set-cookie": "a=b"})
            case "/never":
                # Until the client is gone.
                await request.receive()
        return JSONResponse({"ok": True})


@dataclass(slots=True)
class World:
    """A server, the client's bindings, and clients of one kind."""

    kind: str
    server: Server
    root: Path
    mount: Mount
    stack: AsyncExitStack

    def bind(self, link: str = "web-to-api", key: str = OLD.text, **changes: Any) -> None:
        """Mount a binding to the server."""
        document = LinkDocument(**{"link": f"shop/{link}", "server": "backend/api", **changes})
        files = {"uri": self.server.address, "api-key": key, "protocol": "rest"}
        self.mount(self.root / link, {**files, "link.json": render_link_document(document)})

    def connect(self, name: str = "api", hands: Hands | None = None, **options: Any) -> Caller:
        """Answer a client, closed at the test's end."""
        caller = open_caller(self.kind, hands, service_name=name, **options)
        self.stack.push_async_callback(caller.close)
        return caller


@asynccontextmanager
async def bound_world(
    kind: str, root: Path, *, mount: Mount, serve: Callable[[Any], Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    """Start a server, and look for bindings to it in a folder; none is mounted yet."""
    server = Server()
    route = Route("/{path:path}", server.answer, methods=METHODS)
    server.address = await serve(Starlette(routes=[route]))
    monkeypatch.setenv("SERVICE_BINDING_ROOT", str(root))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("INTERNAL_API_KEY", raising=False)
    async with AsyncExitStack() as stack:
        yield World(kind, server, root, mount, stack)
