"""The synchronous REST client."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from types import TracebackType
from typing import Self, Unpack

import httpx

from servicelink.calls.drive import Driver, Ended
from servicelink.calls.flow import Deliver, Flow, flow
from servicelink.rest.bodies import Ending
from servicelink.rest.caller import Caller
from servicelink.rest.exchange import RestExchange
from servicelink.rest.forwarded import ForwardedExchange
from servicelink.rest.httpcore_wire import HttpcoreBody, HttpcoreWire
from servicelink.rest.limits import Pool
from servicelink.rest.ready import health_exchange, until_ready
from servicelink.rest.surface import RestMethods
from servicelink.rest.tls import Contexts
from servicelink.settings import ClientOptions


class SyncCaller(Caller):
    """A client for programs without an event loop."""

    _is_asynchronous = False

    def _set_up(self, pool: Pool, contexts: Contexts) -> None:
        self._wire = HttpcoreWire(pool, contexts)
        self._driver = Driver(self._wire)

    def close(self) -> None:
        """Close all connections; calls still under way fail, later ones open new ones."""
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ServiceClient(SyncCaller, RestMethods[httpx.Response, AbstractContextManager[httpx.Response]]):
    """A client of one server, for the application's life; as `servicelink.ServiceClient`, without `await`.

    Thread-safe. Raises ValueError, and TypeError for asynchronous interceptors.
    """

    def wait_until_ready(self, seconds: float = 30.0, *, path: str = "/healthz") -> None:
        """Wait until the link is there and its server answers `path`, with any status but 5xx (501 is an answer).

        The circuit is closed then. Raises what went wrong last: LinkNotFound, ServiceUnavailable, InvalidServiceAuth.
        """
        self._driver.run(until_ready(self._line, partial(health_exchange, path), seconds))

    def _run(self, exchange: RestExchange) -> httpx.Response:
        return self._driver.run(flow(self._line, exchange))

    @contextmanager
    def _open(self, exchange: RestExchange) -> Iterator[httpx.Response]:
        running = flow(self._line, exchange)
        delivered = self._driver.advance(running)
        assert not isinstance(delivered, Ended), "a call that is streamed delivers or raises"
        response: httpx.Response = delivered.value
        ending = _ending(delivered)
        try:
            yield response
        except (KeyboardInterrupt, SystemExit):
            ending.cancel()
            raise
        finally:
            response.close()
            self._driver.advance(running, ending.settle(delivered.outcome))


class _Forwarded(httpx.SyncByteStream):
    """The answer of a forwarded request: the call ends when the client that made it is done with it."""

    def __init__(self, driver: Driver, running: Flow[httpx.Response], delivered: Deliver) -> None:
        self._driver = driver
        self._running: Flow[httpx.Response] | None = running
        self._delivered = delivered

    def __iter__(self) -> Iterator[bytes]:
        yield from self._delivered.value.stream

    def close(self) -> None:
        """End the call."""
        running, self._running = self._running, None
        if running is None:
            return
        self._delivered.value.close()
        self._driver.advance(running, _ending(self._delivered).settle(self._delivered.outcome))


class LinkTransport(httpx.BaseTransport):
    """A transport for httpx's own client over a link; see `httpx_transport`."""

    def __init__(self, client: ServiceClient) -> None:
        self._client = client

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Make a call; raises ServiceError."""
        client = self._client
        running = flow(client._line, ForwardedExchange(request, client._name, client._options))  # noqa: SLF001 - ours
        delivered = client._driver.advance(running)  # noqa: SLF001 - ours
        assert not isinstance(delivered, Ended), "a call that is streamed delivers or raises"
        answer: httpx.Response = delivered.value
        stream = _Forwarded(client._driver, running, delivered)  # noqa: SLF001 - ours
        return httpx.Response(
            answer.status_code, headers=answer.headers, stream=stream, extensions=answer.extensions, request=request
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def httpx_transport(name: str, **options: Unpack[ClientOptions]) -> LinkTransport:
    """Answer a transport for an httpx.Client of your own; requests to the host of that name go over the link.

    Options as `connect`. Errors are ServiceErrors. A `read` timeout of the client is the time limit of its calls,
    unless it is httpx's default. Raises ValueError.

        client = httpx.Client(transport=servicelink.sync.httpx_transport("payments"), base_url="http://payments")
    """
    return LinkTransport(connect(name, **options))


def _ending(delivered: Deliver) -> Ending:
    stream = delivered.value.stream
    return stream.ending if isinstance(stream, HttpcoreBody) else Ending(delivered.call)


def connect(name: str, **options: Unpack[ClientOptions]) -> ServiceClient:
    """Answer a client for the link of that name, or for the only link to a server of that name; does no I/O.

    The options are those of `servicelink.connect`. Raises ValueError.
    """
    return ServiceClient(service_name=name, **options)
