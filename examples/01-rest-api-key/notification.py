"""The called service: it takes notifications from those who have a link to it, and tells what it saw of the others.

`POST /notifications` is behind the link; `/healthz` and `/counts` are open, the first to the kubelet.
"""

import os
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

import servicelink


async def accept_notification(request: Request) -> JSONResponse:
    """Take a notification; says who sent it by its link, which the middleware verified."""
    link = servicelink.current_link()
    order = (await request.json())["order"]
    return JSONResponse({"order": order, "link": link and link.link, "pod": os.uname().nodename}, status_code=202)


async def show_counts(request: Request) -> JSONResponse:
    """Say what the middleware of this process decided so far, one row for each link, key and code."""
    return JSONResponse(list(rows(app.counts())))


async def show_health(request: Request) -> PlainTextResponse:
    """Answer the kubelet, which has no link."""
    return PlainTextResponse("ok\n")


def rows(counts: servicelink.Counts) -> Iterator[dict[str, object]]:
    """Answer the counts as rows of JSON; `outcome` is accepted, refused or would_refuse."""
    outcomes = {"accepted": counts.accepted, "refused": counts.refused, "would_refuse": counts.would_refuse}
    for outcome, counted in outcomes.items():
        for what, calls in counted.items():
            yield {"outcome": outcome, "link": what.link, "kid": what.kid, "code": what.code, "calls": calls}


ROUTES = [
    Route("/notifications", accept_notification, methods=["POST"]),
    Route("/counts", show_counts),
    Route("/healthz", show_health),
]
app = servicelink.LinkMiddleware(Starlette(routes=ROUTES), exempt=("/healthz", "/counts"))

if __name__ == "__main__":
    uvicorn.run(app, host="0.0.0.0", port=8080, access_log=False)  # noqa: S104 (a Pod's address is not known before)
