"""The calling service: it asks for an item a second, or does what the command line says.

Usage: browse.py               one call a second, until it is ended
       browse.py call N        N calls one after another; exits with 1 unless all were answered
       browse.py list N        so many items, by a stream
       browse.py name ITEM     by the method's name and a dictionary, with nothing but the .proto
       browse.py change ITEM   what the link does not allow

It knows a name, "catalog". Where that is and with which key to call it, the link's binding says.
"""

import asyncio
import logging
import sys
from collections import Counter
from pathlib import Path

import catalog_pb2
import catalog_pb2_grpc

import servicelink

log = logging.getLogger("browse")
PROTO = Path(__file__).with_name("catalog.proto")


def connect() -> catalog_pb2_grpc.CatalogStub:
    """Answer the generated stub, over the link."""
    return servicelink.connect_grpc("catalog", stub=catalog_pb2_grpc.CatalogStub)


async def run() -> None:
    """Ask once a second; a call that fails is logged, and the next one is made all the same."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    catalog = connect()
    while True:
        try:
            item = await catalog.GetItem(catalog_pb2.GetItemRequest(id="item-1"))
            log.info("%s costs %d cents, says %s", item.id, item.cents, item.pod)
        except servicelink.ServiceError as error:
            log.warning("%s", error)
        await asyncio.sleep(1)


async def call(times: int) -> str:
    """Make so many calls; answers how many were answered, by how many Pods, and how the others failed."""
    catalog = connect()
    pods, failures = Counter[str](), Counter[str]()
    for _ in range(times):
        try:
            pods[(await catalog.GetItem(catalog_pb2.GetItemRequest(id="item-1"))).pod] += 1
        except servicelink.ServiceError as error:
            failures[type(error).__name__] += 1
    said = [f"{pods.total()} of {times} answered by {len(pods)} Pods"]
    return "".join([*said, *(f", {number} x {name}" for name, number in failures.items())])


async def show_list(most: int) -> str:
    """Read a stream; answers the IDs of its items."""
    return " ".join([item.id async for item in connect().ListItems(catalog_pb2.ListItemsRequest(most=most))])


async def show_by_name(item: str) -> str:
    """Call without generated code."""
    async with servicelink.connect_grpc(
        "catalog", proto=PROTO, package="shop.catalog.v1", service="Catalog"
    ) as catalog:
        return str(await catalog.call("getItem", {"id": item}))


async def change(item: str) -> str:
    """Try to change a price; answers what it costs now. Raises PermissionDenied."""
    return str(await connect().ChangePrice(catalog_pb2.ChangePriceRequest(id=item, cents=1)))


def main(words: list[str]) -> None:
    """Do what the command line says."""
    match words:
        case ["call", times]:
            said = asyncio.run(call(int(times)))
            if not said.startswith(f"{times} of "):
                sys.exit(said)
        case ["list", most]:
            said = asyncio.run(show_list(int(most)))
        case ["name", item]:
            said = asyncio.run(show_by_name(item))
        case ["change", item]:
            try:
                said = asyncio.run(change(item))
            except servicelink.ServiceError as error:
                sys.exit(f"{type(error).__name__}: {error}")
        case _:
            asyncio.run(run())
            return
    sys.stdout.write(f"{said}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
