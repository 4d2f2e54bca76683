"""The calling service, a FastAPI application as well; serve it with `uvicorn orders:app`.

One client for the application's life, opened and closed with it. Shoppers come from outside and have no link, so there
is no middleware here; `carry` takes over the IDs and the time limit of their requests.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel, Field

import servicelink


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Have a client while the application lives."""
    async with servicelink.connect("inventory") as inventory:
        yield {"inventory": inventory}


app = FastAPI(title="orders", lifespan=lifespan)


class Order(BaseModel):
    """What a shopper wants."""

    item: str
    pieces: int = Field(default=1, gt=0)


def inventory(request: Request) -> servicelink.ServiceClient:
    """Answer the application's client; tests override this by `servicelink.create_mock_service_client()`."""
    client: servicelink.ServiceClient = request.state.inventory
    return client


@app.post("/orders", status_code=201)
async def order(
    order: Order, request: Request, inventory: Annotated[servicelink.ServiceClient, Depends(inventory)]
) -> dict[str, Any]:
    """Order; what the inventory says to it is told on in this service's own words."""
    with servicelink.carry(request.headers):
        try:
            answer = await inventory.post("/reservations", json=order.model_dump(), raise_for_status=True)
        except servicelink.RemoteError as error:
            raise HTTPException(409, f"the inventory answers {error.status}") from error
        except servicelink.ServiceError as error:
            raise HTTPException(503, "orders cannot be taken now") from error
    return {"ordered": answer.json()}


@app.get("/healthz")
async def show_health() -> str:
    """Answer the kubelet."""
    return "ok"
