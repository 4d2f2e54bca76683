"""The synchronous REST client."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Self, Unpack

import httpx

from servicelink.calls.breaker import CircuitBreaker
from servicelink.calls.drive import Driver, Ended
from servicelink.calls.flow import flow
from servicelink.rest.bodies import Ending
from servicelink.rest.exchange import RestExchange
from servicelink.rest.httpcore_wire import HttpcoreBody, HttpcoreWire
from servicelink.rest.limits import parse_pool
from servicelink.rest.surface import RestMethods
from servicelink.rest.tls import Contexts
from servicelink.settings import Address, ClientOptions, Settings, open_line
from servicelink_contract.rules import Protocol


class ServiceClient(RestMethods[httpx.Response, AbstractContextManager[httpx.Response]]):
    """A client of one server, for the application's life; as `servicelink.ServiceClient`, without `await`.

    Thread-safe. Raises ValueError, and TypeError for asynchronous interceptors.
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
        self._line = open_line(Protocol.REST, address, settings, asynchronous=False)
        self._wire = HttpcoreWire(parse_pool(settings.limits, settings.write_timeout), Contexts(settings.ssl_context))
        self._driver = Driver(self._wire)

    @property
    def breaker(self) -> CircuitBreaker:
        """The link's circuit breaker: its state, `add_listener()`, `reset()`; raises LinkNotFound."""
        return self._line.health(self._line.source.current()).breaker

    def close(self) -> None:
        """Close all connections; calls still under way fail."""
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name}>"

    def _run(self, exchange: RestExchange) -> httpx.Response:
        return self._driver.run(flow(self._line, exchange))

    @contextmanager
    def _open(self, exchange: RestExchange) -> Iterator[httpx.Response]:
        running = flow(self._line, exchange)
        delivered = self._driver.advance(running)
        assert not isinstance(delivered, Ended), "a call that is streamed delivers or raises"
        response: httpx.Response = delivered.value
        ending = response.stream.ending if isinstance(response.stream, HttpcoreBody) else Ending(delivered.call)
        try:
            yield response
        except (KeyboardInterrupt, SystemExit):
            ending.cancel()
            raise
        finally:
            response.close()
            self._driver.advance(running, ending.settle(delivered.outcome))


def connect(name: str, **options: Unpack[ClientOptions]) -> ServiceClient:
    """Answer a client for the link of that name, or for the only link to a server of that name; does no I/O.

    The options are those of `servicelink.connect`. Raises ValueError.
    """
    return ServiceClient(service_name=name, **options)
