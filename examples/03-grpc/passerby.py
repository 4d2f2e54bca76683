"""Somebody without a link: knows the address, has no key, and calls all the same, by grpcio alone.

Usage: passerby.py [ADDRESS]    prints the status, and the code of a refusal
"""

import sys

import catalog_pb2
import catalog_pb2_grpc
import grpc

ADDRESS = "catalog.shop.svc:50051"


def call(address: str) -> str:
    """Make one call; answers how it ended."""
    with grpc.insecure_channel(address) as channel:
        asking = catalog_pb2_grpc.CatalogStub(channel).GetItem.future(
            catalog_pb2.GetItemRequest(id="item-1"), timeout=5
        )
        told = dict(asking.trailing_metadata() or ())
        return f"{asking.code().name} {told.get('x-servicelink-code', '')}".strip()


if __name__ == "__main__":
    sys.stdout.write(f"{call(*(sys.argv[1:] or [ADDRESS]))}\n")
