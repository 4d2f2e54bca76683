"""The asynchronous REST client."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self, Unpack

import httpx

from servicelink.calls.drive import AsyncDriver, Ended
from servicelink.calls.flow import Deliver, Flow, flow
from servicelink.rest.aiohttp_wire import AiohttpBody, AiohttpWire
from servicelink.rest.bodies import Ending
from servicelink.rest.caller import Caller
from servicelink.rest.exchange import RestExchange
from servicelink.rest.forwarded import ForwardedExchange
from servicelink.rest.limits import Pool
from servicelink.rest.ready import health_exchange, until_ready
from servicelink.rest.surface import RestMethods
from servicelink.rest.tls import Contexts
from servicelink.settings import ClientOptions


class AsyncCaller(Caller):
    """A client for event loops."""

    _is_asynchronous = True

    def _set_up(self, pool: Pool, contexts: Contexts) -> None:
        self._wire = AiohttpWire(pool, contexts)
        self._driver = AsyncDriver(self._wire)

    async def aclose(self) -> None:
        """Close the connections of this event loop; calls still under way fail, later ones open new ones."""
        await self._wire.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class ServiceClient(
    AsyncCaller, RestMethods[Coroutine[Any, Any, httpx.Response], AbstractAsyncContextManager[httpx.Response]]
):
    """A client of one server, for the application's life: `connect(name)`, or with an explicit address.

    `service_name` names a link or its server; it is looked for on the first call. With `base_url` nothing is looked
    for, and a credential is sent only if given as `api_key`, or with `shared_key=True` from INTERNAL_API_KEY. The other
    options are those of `connect`. It may be made outside of any event loop and serves any. Raises ValueError.

        async with ServiceClient(service_name="payments", base_url="http://localhost:8080") as payments:
            answer = await payments.get("/v1/charges")
    """

    async def wait_until_ready(self, seconds: float = 30.0, *, path: str = "/healthz") -> None:
        """Wait until the link is there and its server answers `path`, with any status but 5xx (501 is an answer).

        The circuit is closed then. Raises what went wrong last: LinkNotFound, ServiceUnavailable, InvalidServiceAuth.
        """
        await self._driver.run(until_ready(self._line, partial(health_exchange, path), seconds))

    def _run(self, exchange: RestExchange) -> Coroutine[Any, Any, httpx.Response]:
        return self._driver.run(flow(self._line, exchange))

    @asynccontextmanager
    async def _open(self, exchange: RestExchange) -> AsyncIterator[httpx.Response]:
        running = flow(self._line, exchange)
        delivered = await self._driver.advance(running)
        assert not isinstance(delivered, Ended), "a call that is streamed delivers or raises"
        response: httpx.Response = delivered.value
        ending = _ending(delivered)
        try:
            yield response
        except asyncio.CancelledError:
            ending.cancel()
            raise
        finally:
            await response.aclose()
            await self._driver.advance(running, ending.settle(delivered.outcome))


class _Forwarded(httpx.AsyncByteStream):
    """The answer of a forwarded request: the call ends when the client that made it is done with it."""

    def __init__(self, driver: AsyncDriver, running: Flow[httpx.Response], delivered: Deliver) -> None:
        self._driver = driver
        self._running: Flow[httpx.Response] | None = running
        self._delivered = delivered

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._delivered.value.stream:
            yield piece

    async def aclose(self) -> None:
        """End the call."""
        running, self._running = self._running, None
        if running is None:
            return
        await self._delivered.value.aclose()
        await self._driver.advance(running, _ending(self._delivered).settle(self._delivered.outcome))


class LinkTransport(httpx.AsyncBaseTransport):
    """A transport for httpx's own client over a link; see `httpx_transport`."""

    def __init__(self, client: ServiceClient) -> None:
        self._client = client

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Make a call; raises ServiceError."""
        client = self._client
        running = flow(client._line, ForwardedExchange(request, client._name, client._options))  # noqa: SLF001 - ours
        delivered = await client._driver.advance(running)  # noqa: SLF001 - ours
        assert not isinstance(delivered, Ended), "a call that is streamed delivers or raises"
        answer: httpx.Response = delivered.value
        stream = _Forwarded(client._driver, running, delivered)  # noqa: SLF001 - ours
        return httpx.Response(
            answer.status_code, headers=answer.headers, stream=stream, extensions=answer.extensions, request=request
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def httpx_transport(name: str, **options: Unpack[ClientOptions]) -> LinkTransport:
    """Answer a transport for an httpx.AsyncClient of your own; requests to the host of that name go over the link.

    Options as `connect`. Errors are ServiceErrors. A `read` timeout of the client is the time limit of its calls,
    unless it is httpx's default. Raises ValueError.

        client = httpx.AsyncClient(transport=servicelink.httpx_transport("payments"), base_url="http://payments")
    """
    return LinkTransport(connect(name, **options))


def _ending(delivered: Deliver) -> Ending:
    stream = delivered.value.stream
    return stream.ending if isinstance(stream, AiohttpBody) else Ending(delivered.call)


def connect(name: str, **options: Unpack[ClientOptions]) -> ServiceClient:
    """Answer a client for the link of that name, or for the only link to a server of that name; does no I/O.

    The options are told in docs/sdk/configuration.md. Raises ValueError.

        payments = servicelink.connect("payments", timeout=2)
        charge = (await payments.post("/v1/charges", json={"amount": 100})).json()
    """
    return ServiceClient(service_name=name, **options)
