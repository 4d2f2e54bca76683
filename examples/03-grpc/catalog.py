"""The called service: a catalogue over gRPC, for those who have a link to it.

Its port also answers `grpc.health.v1.Health`, to everybody: the kubelet has no link.
"""

import asyncio
import os
from collections.abc import AsyncIterator

import catalog_pb2
import catalog_pb2_grpc
import grpc.aio

import servicelink

ITEMS = {f"item-{number}": 100 * number for number in range(1, 6)}


class Catalog(catalog_pb2_grpc.CatalogServicer):
    """The shop's catalogue."""

    async def GetItem(  # noqa: N802 - as generated
        self, request: catalog_pb2.GetItemRequest, context: grpc.aio.ServicerContext
    ) -> catalog_pb2.Item:
        """Answer an item; NOT_FOUND where there is none of that ID."""
        if request.id not in ITEMS:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no {request.id}")
        return render(request.id)

    async def ListItems(  # noqa: N802 - as above
        self,
        request: catalog_pb2.ListItemsRequest,
        context: grpc.aio.ServicerContext,  # noqa: ARG002 - as above
    ) -> AsyncIterator[catalog_pb2.Item]:
        """Answer so many items, one after the other."""
        for name in list(ITEMS)[: request.most]:
            yield render(name)

    async def ChangePrice(  # noqa: N802 - as above
        self,
        request: catalog_pb2.ChangePriceRequest,
        context: grpc.aio.ServicerContext,  # noqa: ARG002 - as above
    ) -> catalog_pb2.Item:
        """Change a price; nobody's link allows it."""
        ITEMS[request.id] = request.cents
        return render(request.id)


def render(name: str) -> catalog_pb2.Item:
    """Answer an item, who asked for it by the link that was verified, and who answers."""
    link = servicelink.current_link()
    return catalog_pb2.Item(id=name, cents=ITEMS[name], link=link.link if link else "", pod=os.uname().nodename)


async def main() -> None:
    """Serve until the Pod ends."""
    server = await servicelink.grpc_server({catalog_pb2_grpc.add_CatalogServicer_to_server: Catalog()})
    await server.serve()


if __name__ == "__main__":
    asyncio.run(main())
