"""Which installation of our kinds this is: what is gone with an old one was not taken away link by link."""

import asyncio
import time

from servicelink_operator.cluster.api import Api, Object
from servicelink_operator.cluster.errors import ForbiddenError, NotFoundError
from servicelink_operator.cluster.kinds import CUSTOM_RESOURCE_DEFINITION, SERVICE_LINK, SERVICE_LINK_POLICY, Kind

# Of a random UID; two definitions that were ever installed here do not share so much of it.
_LENGTH = 8


class Installation:
    """The definitions of our kinds, as one name that is another one once either was installed anew."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._lock = asyncio.Lock()
        self._known: str | None = None
        self._asked_at = float("-inf")

    async def observe(self, *, newest: bool = False) -> str | None:
        """Answer its name; None where a definition is missing or being deleted, "" where they may not be read.

        What was found within the last second serves, except where the `newest` is asked for: before something goes.
        """
        async with self._lock:
            if newest or time.monotonic() - self._asked_at > 1:
                asked_at = time.monotonic()
                self._known, self._asked_at = await self._ask(), asked_at
            return self._known

    async def _ask(self) -> str | None:
        try:
            found = [await self._read(kind) for kind in (SERVICE_LINK, SERVICE_LINK_POLICY)]
        except NotFoundError:
            return None
        except ForbiddenError:
            return ""
        if any("deletionTimestamp" in one["metadata"] for one in found):
            return None
        return "-".join(one["metadata"]["uid"][:_LENGTH] for one in found)

    async def _read(self, kind: Kind) -> Object:
        name = f"{kind.plural}.{kind.group}"
        return await self._api.read(CUSTOM_RESOURCE_DEFINITION, None, name, metadata_only=True)
