"""The called service of another team: it charges, for those whom its owner lets in."""

import os

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

import servicelink


async def charge(request: Request) -> JSONResponse:
    """Charge an order; the caller is known by its namespace and link."""
    link = servicelink.current_link()
    order = (await request.json())["order"]
    return JSONResponse({"order": order, "link": link and link.link, "pod": os.uname().nodename}, status_code=201)


async def show_health(request: Request) -> PlainTextResponse:
    """Answer the kubelet, which has no link."""
    return PlainTextResponse("ok\n")


ROUTES = [Route("/v1/charges", charge, methods=["POST"]), Route("/healthz", show_health)]
app = servicelink.LinkMiddleware(Starlette(routes=ROUTES), exempt=("/healthz",))

if __name__ == "__main__":
    uvicorn.run(app, host="0.0.0.0", port=8080, access_log=False)  # noqa: S104 (a Pod's address is not known before)
