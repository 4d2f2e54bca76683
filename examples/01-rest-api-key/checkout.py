"""The calling service: it sends one notification a second, or so many at once when told to.

Usage: checkout.py                              one a second, until it is ended
       checkout.py call N [SERVER] [PATH]       N calls one after another; exits with 1 unless all were answered

It knows a name, "notification". Where that is and with which key to call it, the link's binding says.
"""

import asyncio
import logging
import sys
from collections import Counter

import servicelink

log = logging.getLogger("checkout")


async def send(client: servicelink.ServiceClient, path: str, order: int) -> str:
    """Make one call; answers the name of the Pod that answered. Raises ServiceError."""
    answer = await client.post(path, json={"order": order}, raise_for_status=True)
    return str(answer.json()["pod"])


async def run() -> None:
    """Send one notification a second; a call that fails is logged, and the next one is made all the same."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    async with servicelink.connect("notification") as notification:
        order = 0
        while True:
            order += 1
            try:
                log.info("order %d: notified, by %s", order, await send(notification, "/notifications", order))
            except servicelink.ServiceError as error:
                log.warning("order %d: %s", order, error)
            await asyncio.sleep(1)


async def call(times: int, server: str = "notification", path: str = "/notifications") -> str:
    """Make so many calls; answers how many were answered, and how the others failed."""
    answered, failures = 0, Counter[str]()
    async with servicelink.connect(server) as client:
        for order in range(times):
            try:
                await send(client, path, order)
                answered += 1
            except servicelink.ServiceError as error:
                failures[type(error).__name__] += 1
    return "".join([f"{answered} of {times} answered", *(f", {number} x {name}" for name, number in failures.items())])


def main(words: list[str]) -> None:
    """Do what the command line says."""
    if not words:
        asyncio.run(run())
        return
    _, times, *where = words
    said = asyncio.run(call(int(times), *where))
    if not said.startswith(f"{times} of "):
        sys.exit(said)
    sys.stdout.write(f"{said}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
