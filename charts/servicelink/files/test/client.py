"""The calling end of `helm test`: a call with the link's key must be answered, and one without it must be refused.

Usage: client.py LINK NAMESPACE    exits with 1, and the reason, if one of the two is not so

What is on its way still, such as the server's Pod, is waited for.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

import servicelink

# Seconds; the Pod itself ends some 20 later, and helm gives up after 300 from its own start.
PATIENCE = 240
PAUSE = 1


async def call_with_key(link: str) -> str:
    """Call until it is answered; answers the link that the server knows the caller by. Raises ServiceError."""
    until = time.monotonic() + PATIENCE
    async with servicelink.connect(link) as server:
        while True:
            try:
                answer = await server.get("/", raise_for_status=True)
                return str(answer.json()["link"])
            except servicelink.ServiceError as error:
                if time.monotonic() > until:
                    raise
                print(f"not yet: {error}", flush=True)
            await asyncio.sleep(PAUSE)


def observe_address(link: str) -> str:
    """Read where the server is."""
    return Path(os.environ["SERVICE_BINDING_ROOT"], link, "uri").read_text()


async def is_refused_without_key(address: str) -> bool:
    """Call once as somebody who only knows the address."""
    async with servicelink.ServiceClient(service_name="a stranger", base_url=address) as stranger:
        try:
            await stranger.get("/")
        except servicelink.InvalidServiceAuth:
            return True
    return False


async def main(link: str, namespace: str) -> None:
    """Make both calls; raises SystemExit with the reason if one did not end as it must."""
    known_as = await call_with_key(link)
    if known_as != f"{namespace}/{link}":
        sys.exit(f"the call with the key came as {known_as}, not as {namespace}/{link}")
    print(f"with the key: answered, as {known_as}")
    if not await is_refused_without_key(observe_address(link)):
        sys.exit("the call without a key was answered, too")
    print("without a key: refused")


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except servicelink.ServiceError as error:
        sys.exit(f"no call with the key was answered within {PATIENCE} s; the last one: {error}")
