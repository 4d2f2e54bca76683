"""Which variables a workload's containers import by envFrom, as far as it can be known.

Names of a ConfigMap are read, and remembered for a minute. Names of a Secret cannot be: reading it would take a right
that the operator does not have. A variable of the operator's wins over an imported one, so that such a Secret's
variable of the same name would be hidden; choose another envPrefix then.
"""

import asyncio

from servicelink_core.api.objects import Workload
from servicelink_core.conflicts import Imported
from servicelink_operator.cluster.api import Api
from servicelink_operator.cluster.errors import ApiError
from servicelink_operator.cluster.kinds import CONFIG_MAP

_SECONDS = 60.0


class Imports:
    """Reads imported ConfigMaps, of workloads that have any."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._known: dict[tuple[str, str], tuple[float, frozenset[str]]] = {}

    async def observe(self, workload: Workload) -> Imported:
        """Answer the names that each container imports."""
        found = {}
        for container in workload.containers:
            sources = [one for one in container.get("envFrom") or () if "configMapRef" in one]
            if sources:
                names = [await self._names(workload.ref.namespace, one) for one in sources]
                found[container["name"]] = frozenset().union(*names)
        return found

    async def _names(self, namespace: str, source: dict[str, dict[str, str]]) -> frozenset[str]:
        prefix = str(source.get("prefix") or "")
        keys = await self._keys(namespace, source["configMapRef"]["name"])
        return frozenset(f"{prefix}{key}" for key in keys)

    async def _keys(self, namespace: str, name: str) -> frozenset[str]:
        now = asyncio.get_running_loop().time()
        known = self._known.get((namespace, name))
        if known is not None and now - known[0] < _SECONDS:
            return known[1]
        try:
            body = await self._api.read(CONFIG_MAP, namespace, name)
        except ApiError:
            # Not there or not to be had: nothing is imported that could be known.
            body = {}
        keys = frozenset((body.get("data") or {}).keys())
        self._known[namespace, name] = (now, keys)
        return keys
