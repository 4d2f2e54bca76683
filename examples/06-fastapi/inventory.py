"""The called service: FastAPI behind `servicelink.LinkMiddleware`; serve it with `uvicorn inventory:app`.

The middleware decides before FastAPI reads a path or a body. So `/docs` and `/openapi.json` are refused as well, unless
a link allows them or they are exempt.
"""

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

import servicelink

app = FastAPI(title="inventory")
app.add_middleware(servicelink.LinkMiddleware, exempt=("/healthz",))

_pieces = {"kettle": 1_000_000, "teapot": 1}


class Reservation(BaseModel):
    """What somebody wants."""

    item: str
    pieces: int = Field(gt=0)


class Reserved(BaseModel):
    """What somebody has got, by which link, and how many pieces are left."""

    item: str
    pieces: int
    link: str
    left: int


@app.post("/reservations", status_code=201)
async def reserve(reservation: Reservation) -> Reserved:
    """Reserve pieces; who asks is known by its link."""
    link = servicelink.current_link()
    assert link is not None, "the middleware lets nobody in without one"
    left = _pieces.get(reservation.item, 0) - reservation.pieces
    if left < 0:
        raise HTTPException(409, f"not so many of {reservation.item}")
    _pieces[reservation.item] = left
    return Reserved(item=reservation.item, pieces=reservation.pieces, link=link.link, left=left)


@app.get("/healthz")
async def show_health() -> str:
    """Answer the kubelet, which has no link."""
    return "ok"
