"""kopf: the process. It logs in, handles signals, starts the operator and ends it; it watches nothing.

Our informers ring the queue. A watch of kopf's beside them would ring keys whose news is not in our caches yet, so the
informers would have to ring all the same, and it would cost a second stream of every object
(docs/decisions/0006-informers-ring.md).
"""

import asyncio
import itertools
from typing import Any

import kopf
import structlog
from kopf._core.engines.peering import Identity

from servicelink_operator.cluster.api import Api
from servicelink_operator.cluster.connection import Connection, open_connection
from servicelink_operator.cluster.fence import Fence
from servicelink_operator.cluster.lease import LeaseLostError
from servicelink_operator.runtime import Operator
from servicelink_operator.settings import Settings

# Seconds.
_SCAN_PAUSE = 5.0
log = structlog.get_logger("servicelink.operator")


class Doorbell:
    """The operator as kopf's start-up and clean-up activities see it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = asyncio.Event()
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self.failed = False

    async def run(self) -> None:
        """Run until a signal, or until the operator ends by itself (`failed` is then true)."""
        await kopf.operator(
            registry=self._registry(),
            settings=_kopf_settings(),
            standalone=True,
            clusterwide=True,
            # Else kopf asks for the user's name, which a container's user has not.
            identity=Identity(self._settings.identity),
            stop_flag=self._stop,
        )

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.startup(registry=registry)(self._start)
        kopf.on.cleanup(registry=registry)(self._end)
        kopf.on.login(registry=registry)(self._login)
        return registry

    async def _start(self, **_: Any) -> None:
        self._connection = await open_connection(self._settings.kubeconfig, self._settings.identity)
        # Without an election nobody else writes, and nobody would open the fence.
        fence = Fence() if self._settings.leader_elect else None
        api = Api(self._connection, frozen=self._settings.freeze, fence=fence)
        self._task = asyncio.create_task(Operator(self._settings, api).run(), name="servicelink")
        self._task.add_done_callback(self._ended)

    async def _login(self, **_: Any) -> kopf.ConnectionInfo:
        """Say how kopf reaches the API for its one scan at the start: as we do, over a connection of its own.

        Our own session would not serve: it says who we are with each request, as a ServiceAccount's token changes.
        """
        assert self._connection is not None
        found = self._connection.configuration
        says = await self._connection.authorization()
        return kopf.ConnectionInfo(
            server=self._connection.base,
            ca_path=found.ssl_ca_cert,
            ca_data=found.ca_cert_data,
            insecure=not found.verify_ssl,
            # All of `<scheme> <token>`; kopf sends a scheme without a token as it is.
            scheme=says.get("Authorization"),
            certificate_path=found.cert_file,
            private_key_path=found.key_file,
            proxy_url=found.proxy,
        )

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed = True
            lost = isinstance(error, BaseExceptionGroup) and error.subgroup(LeaseLostError) is not None
            log.error("lease_lost" if lost else "operator_failed", exc_info=None if lost else error)
        self._stop.set()

    async def _end(self, **_: Any) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._connection is not None:
            await self._connection.end()


def _kopf_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    # Else its scan at the start gives up after 54 seconds, and whoever starts while the API server is away ends.
    settings.networking.error_backoffs = itertools.repeat(_SCAN_PAUSE)
    return settings
