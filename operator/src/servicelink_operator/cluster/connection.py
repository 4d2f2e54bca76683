"""How to reach the API server: the Kubernetes client's configuration, TLS and connection pool, under our limits.

The generated client's own `request` runs every body through `json.dumps`; so its session is used below it, which also
spares its models (58 to 83 us a call instead of 206 to 291).
"""

import asyncio
import re
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject

# Ten watches, 32 workers, the lease and guarded reads fit beside each other; more would only press a busy API server.
MOST_CONNECTIONS = 64
# What a comment in a header may not have, or only behind a backslash (RFC 9110, section 5.6.5).
_NO_COMMENT = re.compile(r"[^ -~]|[()\\]")


class Connection(RESTClientObject):
    """A session to one API server; made by `open_connection`, ended by `end`."""

    def __init__(self, configuration: Any, refresh: asyncio.Task[None] | None) -> None:
        super().__init__(configuration)
        self.session: aiohttp.ClientSession = self._create_pool_manager()
        # So that the base class closes it.
        self.pool_manager = self.session
        self.base: str = configuration.host.rstrip("/")
        self._refresh = refresh
        named = {"server_hostname": configuration.tls_server_name, "proxy": configuration.proxy}
        self.options = {name: value for name, value in named.items() if value}

    async def authorization(self) -> dict[str, str]:
        """Answer the header that says who we are; a ServiceAccount's token is read from its file again every minute.

        Raises ConfigException or OSError while that file cannot be read.
        """
        token = await self.configuration.get_api_key_with_prefix("BearerToken")
        return {"Authorization": token.strip()} if token else {}

    async def end(self) -> None:
        """Close every connection, also those of watches."""
        if self._refresh:
            self._refresh.cancel()
            with suppress(asyncio.CancelledError):
                await self._refresh
        await self.close()


def render_user_agent(identity: str) -> str:
    """Render how the API server's audit log names us: replicas have one ServiceAccount, and are told apart by this."""
    product = f"servicelink-operator/{version('servicelink-operator')}"
    return f"{product} ({_NO_COMMENT.sub('_', identity)})" if identity else product


async def open_connection(kubeconfig: str | None, identity: str = "") -> Connection:
    """Open a session by a kubeconfig; None: as a Pod's ServiceAccount, else by $KUBECONFIG, else ~/.kube/config.

    `identity` names this process to the API server. Nothing is sent yet.
    Raises kubernetes.aio.config.ConfigException where none of these serves.
    """
    settings = Configuration()
    settings.retries = None
    settings.connection_pool_maxsize = MOST_CONNECTIONS
    headers = {"User-Agent": render_user_agent(identity)}
    # Proxy variables are not for the API server, and looking them up costs more than the rest of a call.
    settings.client_session_kwargs = {"trust_env": False, "headers": headers}
    return Connection(settings, await _configure(settings, kubeconfig))


async def _configure(settings: Any, kubeconfig: str | None) -> asyncio.Task[None] | None:
    if kubeconfig is None:
        with suppress(config.ConfigException):
            config.load_incluster_config(settings)  # type: ignore[no-untyped-call]
            return None
    loader = await config.load_kube_config(kubeconfig, client_configuration=settings)  # type: ignore[no-untyped-call]
    # Ends by itself unless a plugin hands out the tokens.
    refresh = config.refresh_token(loader, settings)  # type: ignore[no-untyped-call]
    return asyncio.create_task(refresh, name="kubeconfig-token")
