"""Code of those who are called, as `rest.py`."""

from collections.abc import Iterable, Mapping
from typing import Any, assert_type

import httpx
import uvicorn
from fastapi import FastAPI
from flask import Flask
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

import servicelink
from servicelink import sync


async def show(request: Request) -> JSONResponse:
    """Say who calls."""
    link = servicelink.current_link()
    assert_type(link, servicelink.Allowed | None)
    if link is not None:
        assert_type((link.link, link.uid, link.kid), tuple[str, str, str])
    return JSONResponse(link and link.link)


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    """An application without a framework."""
    await send({"type": "http.response.start", "status": 204, "headers": []})


def wsgi(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """An application without a framework, for WSGI."""
    start_response("204 No Content", [])
    return []


starlette = Starlette(routes=[Route("/", show)])
starlette.add_middleware(servicelink.LinkMiddleware, exempt=("/healthz",))
fastapi = FastAPI()
fastapi.add_middleware(
    servicelink.LinkMiddleware, service="shop", protect=["/v1/**"], rate_limit=servicelink.RateLimit(calls=10)
)
flask = Flask("shop")
guarded_wsgi = sync.LinkMiddleware(wsgi, "shop", exempt=("/healthz",))
guarded = servicelink.LinkMiddleware(plain)
config = servicelink.uvicorn_config(guarded, host="0.0.0.0", port=8443, tls_dir="/tls", connection_age=60)  # noqa: S104 - a Pod's
assert_type(config, uvicorn.Config)
uvicorn.run(guarded)


def count() -> None:
    """Read the counts."""
    counts = guarded.counts()
    assert_type(counts, servicelink.Counts)
    assert_type(counts.refused, Mapping[servicelink.Counted, int])
    for counted, number in guarded_wsgi.counts().accepted.items():
        assert_type((counted.link, number), tuple[str | None, int])


async def call_on(transport: httpx.AsyncBaseTransport | None = None) -> None:
    """Keep a client of httpx's own."""
    own = httpx.AsyncClient(transport=transport or servicelink.httpx_transport("payments"))
    with_context = httpx.AsyncClient(verify=servicelink.ssl_context("payments"))
    await own.aclose()
    await with_context.aclose()


def call_on_synchronously() -> None:
    """Keep a synchronous client of httpx's own."""
    with httpx.Client(transport=sync.httpx_transport("payments")) as own:
        assert_type(own.get("http://payments/"), httpx.Response)
