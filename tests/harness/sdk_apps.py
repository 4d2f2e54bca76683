"""One small application in each framework, behind the middleware, and a way to serve it by each server.

Usage: sdk_apps.py SERVER APP PORT

It answers every path with the link that called and the names of the headers that it saw. Apart from the tests' own
process, since frameworks and servers keep what they are told for as long as a process lives.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

import servicelink
from servicelink import sync

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def seen(headers: Iterable[str]) -> dict[str, Any]:
    """Answer what the application knows of a call."""
    link = servicelink.current_link()
    return {"link": link and link.link, "headers": sorted(name.lower().replace("_", "-") for name in headers)}


def kid_app() -> Any:
    """A plain application that answers, in JSON and as GraphQL does, which credential came; for much traffic."""

    async def show(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = json.dumps({"data": {"kid": scope["servicelink"].kid}}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return servicelink.LinkMiddleware(show)


def starlette_app() -> Any:
    """Starlette, the middleware added as Starlette does it."""
    from starlette.applications import Starlette  # noqa: PLC0415 - one framework in each process
    from starlette.requests import Request  # noqa: PLC0415 - as above
    from starlette.responses import JSONResponse  # noqa: PLC0415 - as above
    from starlette.routing import Route  # noqa: PLC0415 - as above

    async def show(request: Request) -> JSONResponse:
        return JSONResponse(seen(request.headers))

    app = Starlette(routes=[Route("/{path:path}", show, methods=METHODS)])
    app.add_middleware(servicelink.LinkMiddleware)
    return app


def fastapi_app() -> Any:
    """FastAPI; its endpoint is a plain function, which it runs in a thread."""
    from fastapi import FastAPI, Request  # noqa: PLC0415 - as above

    app = FastAPI()

    def show(request: Request) -> dict[str, Any]:
        return seen(request.headers)

    # Not by the decorator: annotations of a local function's closure cannot be resolved.
    app.add_api_route("/{path:path}", show)
    app.add_middleware(servicelink.LinkMiddleware)
    return app


def flask_app() -> Any:
    """Flask."""
    from flask import Flask, request  # noqa: PLC0415 - as above

    app = Flask("shop")

    def show(path: str) -> dict[str, Any]:
        return seen(name for name, _ in request.headers)

    app.add_url_rule("/<path:path>", "show", show, methods=METHODS)
    app.wsgi_app = sync.LinkMiddleware(app.wsgi_app)  # type: ignore[method-assign] # as Flask's documentation has it
    return app


def _django() -> None:
    from django import setup  # noqa: PLC0415 - as above
    from django.conf import settings  # noqa: PLC0415 - as above
    from django.http import HttpRequest, JsonResponse  # noqa: PLC0415 - as above
    from django.urls import re_path  # noqa: PLC0415 - as above

    def show(request: HttpRequest) -> JsonResponse:
        return JsonResponse(seen(request.headers))

    settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=(re_path("", show),), SECRET_KEY=__name__, USE_TZ=True)
    setup()


def django_wsgi() -> Any:
    """Django as a plain WSGI application."""
    from django.core.wsgi import get_wsgi_application  # noqa: PLC0415 - as above

    _django()
    return sync.LinkMiddleware(get_wsgi_application())


def django_asgi() -> Any:
    """Django as a plain ASGI application."""
    from django.core.asgi import get_asgi_application  # noqa: PLC0415 - as above

    _django()
    return servicelink.LinkMiddleware(get_asgi_application())


def _uvicorn(app: Any, port: int, http: str) -> None:
    import uvicorn  # noqa: PLC0415 - one server in each process

    uvicorn.run(app, port=port, http=http, log_level="warning", lifespan="auto")


def _hypercorn(app: Any, port: int) -> None:
    from hypercorn.asyncio import serve  # noqa: PLC0415 - as above
    from hypercorn.config import Config  # noqa: PLC0415 - as above

    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    asyncio.run(serve(app, config))


def _waitress(app: Any, port: int) -> None:
    from waitress import serve  # noqa: PLC0415 - as above

    serve(app, host="127.0.0.1", port=port)


def _wsgiref(app: Any, port: int) -> None:
    from wsgiref.simple_server import make_server  # noqa: PLC0415 - as above

    make_server("127.0.0.1", port, app).serve_forever()


SERVERS: dict[str, Callable[[Any, int], None]] = {
    "uvicorn-httptools": lambda app, port: _uvicorn(app, port, "httptools"),
    "uvicorn-h11": lambda app, port: _uvicorn(app, port, "h11"),
    "hypercorn": _hypercorn,
    "waitress": _waitress,
    "wsgiref": _wsgiref,
}

if __name__ == "__main__":
    server, name, at = sys.argv[1:]
    SERVERS[server](globals()[name](), int(at))
