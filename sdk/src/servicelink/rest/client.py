"""The asynchronous REST client."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Self, Unpack

import httpx

from servicelink.calls.breaker import CircuitBreaker
from servicelink.calls.drive import AsyncDriver, Ended
from servicelink.calls.flow import flow
from servicelink.rest.aiohttp_wire import AiohttpBody, AiohttpWire
from servicelink.rest.bodies import Ending
from servicelink.rest.exchange import RestExchange
from servicelink.rest.limits import parse_pool
from servicelink.rest.surface import RestMethods
from servicelink.rest.tls import Contexts
from servicelink.settings import Address, ClientOptions, Settings, open_line
from servicelink_contract.rules import Protocol


class ServiceClient(RestMethods[Coroutine[Any, Any, httpx.Response], AbstractAsyncContextManager[httpx.Response]]):
    """A client of one server, for the application's life: `connect(name)`, or with an explicit address.

    `service_name` names a link or its server; it is looked for on the first call. With `base_url` nothing is looked
    for, and a credential is sent only if given as `api_key`, or with `shared_key=True` from INTERNAL_API_KEY. The other
    options are those of `connect`. It may be made outside of any event loop and serves any. Raises ValueError.

        async with ServiceClient(service_name="payments", base_url="http://localhost:8080") as payments:
            answer = await payments.get("/v1/charges")
    """

    def __init__(
        self,
        *,
        service_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        shared_key: bool = False,
        **options: Unpack[ClientOptions],
    ) -> None:
        settings = Settings(**options)
        self._name = service_name
        self._options = settings.call_options
        address = Address(service_name=service_name, base_url=base_url, api_key=api_key, shared_key=shared_key)
        self._line = open_line(Protocol.REST, address, settings, asynchronous=True)
        self._wire = AiohttpWire(parse_pool(settings.limits, settings.write_timeout), Contexts(settings.ssl_context))
        self._driver = AsyncDriver(self._wire)

    @property
    def breaker(self) -> CircuitBreaker:
        """The link's circuit breaker: its state, `add_listener()`, `reset()`; raises LinkNotFound."""
        return self._line.health(self._line.source.current()).breaker

    async def aclose(self) -> None:
        """Close the connections of this event loop; calls still under way fail."""
        await self._wire.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name}>"

    def _run(self, exchange: RestExchange) -> Coroutine[Any, Any, httpx.Response]:
        return self._driver.run(flow(self._line, exchange))

    @asynccontextmanager
    async def _open(self, exchange: RestExchange) -> AsyncIterator[httpx.Response]:
        running = flow(self._line, exchange)
        delivered = await self._driver.advance(running)
        assert not isinstance(delivered, Ended), "a call that is streamed delivers or raises"
        response: httpx.Response = delivered.value
        ending = response.stream.ending if isinstance(response.stream, AiohttpBody) else Ending(delivered.call)
        try:
            yield response
        except asyncio.CancelledError:
            ending.cancel()
            raise
        finally:
            await response.aclose()
            await self._driver.advance(running, ending.settle(delivered.outcome))


def connect(name: str, **options: Unpack[ClientOptions]) -> ServiceClient:
    """Answer a client for the link of that name, or for the only link to a server of that name; does no I/O.

    The options are told in docs/sdk/configuration.md. Raises ValueError.

        payments = servicelink.connect("payments", timeout=2)
        charge = (await payments.post("/v1/charges", json={"amount": 100})).json()
    """
    return ServiceClient(service_name=name, **options)
