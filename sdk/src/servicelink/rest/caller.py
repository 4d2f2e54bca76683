"""What every client over HTTP is, REST or GraphQL, in either world: its line, its options, its circuit."""

from abc import ABC, abstractmethod
from copy import copy
from typing import Self, Unpack

from servicelink.calls.breaker import CircuitBreaker
from servicelink.calls.options import CallOptions
from servicelink.rest.limits import Pool, parse_pool
from servicelink.rest.tls import Contexts
from servicelink.settings import Address, ClientOptions, open_line, read_settings
from servicelink_contract.rules import Protocol


class Caller(ABC):
    """A client of one server."""

    _protocol: Protocol = Protocol.REST
    _is_asynchronous: bool

    def __init__(
        self,
        service_name: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        shared_key: bool = False,
        **options: Unpack[ClientOptions],
    ) -> None:
        settings = read_settings(options)
        self._name = service_name
        self._options = settings.call_options
        address = Address(service_name=service_name, base_url=base_url, api_key=api_key, shared_key=shared_key)
        self._line = open_line(self._protocol, address, settings, asynchronous=self._is_asynchronous)
        self._set_up(parse_pool(settings.limits, settings.write_timeout), Contexts(settings.ssl_context))

    @abstractmethod
    def _set_up(self, pool: Pool, contexts: Contexts) -> None:
        """Make wire and driver."""

    @property
    def breaker(self) -> CircuitBreaker:
        """The link's circuit breaker: its state, `add_listener()`, `reset()`; raises LinkNotFound."""
        return self._line.health(self._line.source.current()).breaker

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name}>"

    def with_options(
        self,
        *,
        timeout: float | None = None,
        attempt_timeout: float | None = None,
        retries: int | None = None,
        idempotent: bool | None = None,
    ) -> Self:
        """Answer a client with these options that shares connections, circuit and all else with this one."""
        said = CallOptions(timeout, attempt_timeout, retries, idempotent)
        other = copy(self)
        other._options = said.over(self._options)  # noqa: SLF001 - of the same class
        return other
