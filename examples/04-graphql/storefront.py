"""The calling service: it asks for all products every few seconds, or what it is told to ask.

Usage: storefront.py                  asks now and then, until it is ended
       storefront.py call N           asks for a product N times; exits with 1 unless all were answered
       storefront.py ask DOCUMENT     asks that, and prints the data, or the error's kind and code
"""

import asyncio
import json
import logging
import sys

import servicelink

PRODUCT = "query Product($id: ID!) { product(id: $id) { name stars } }"
PRODUCTS = "{ products { name stars } }"
log = logging.getLogger("storefront")


async def run() -> None:
    """Ask now and then; what fails is logged, and asked again all the same."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    async with servicelink.connect_graphql("catalog") as catalog:
        while True:
            try:
                log.info("%s", await catalog.query(PRODUCTS))
            except servicelink.ServiceError as error:
                log.warning("%s", error)
            await asyncio.sleep(5)


async def call(times: int) -> str:
    """Ask for one product so many times; answers how many were answered."""
    answered = 0
    async with servicelink.connect_graphql("catalog") as catalog:
        for _ in range(times):
            try:
                data = await catalog.query(PRODUCT, {"id": "1"})
                answered += data["product"]["name"] == "kettle"
            except servicelink.ServiceError as error:
                log.warning("%s", error)
    return f"{answered} of {times} answered"


async def ask(document: str) -> str:
    """Ask one operation; answers its data as JSON, or what came in its place."""
    operation = servicelink.GraphQLOperation(document)
    async with servicelink.connect_graphql("catalog") as catalog:
        send = catalog.mutate if operation.kind == "mutation" else catalog.query
        try:
            return json.dumps(await send(document))
        except servicelink.GraphQLError as error:
            return f"GraphQLError {error.code}"
        except servicelink.ServiceError as error:
            return type(error).__name__


def main(words: list[str]) -> None:
    """Do what the command line says."""
    if not words:
        asyncio.run(run())
        return
    command, said = words
    answer = asyncio.run(call(int(said)) if command == "call" else ask(said))
    if command == "call" and not answer.startswith(f"{said} of "):
        sys.exit(answer)
    sys.stdout.write(f"{answer}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
