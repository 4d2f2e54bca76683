"""What the clients of both worlds share: settings, options of calls, and which methods may be repeated."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Self, TypedDict, Unpack

from servicelink.calls.breaker import CircuitBreaker
from servicelink.calls.call import AsyncInterceptor, Interceptor
from servicelink.calls.limits import RateLimit
from servicelink.calls.line import Line
from servicelink.calls.options import CallOptions
from servicelink.errors import ServiceError
from servicelink.grpc.channels import require_options
from servicelink.grpc.exchange import GrpcExchange
from servicelink.grpc.methods import GrpcMessage, Kind, MetadataPairs, Method, read_method, tell_missing
from servicelink.grpc.schema import NamedMethod, Proto, Schema
from servicelink.measures import MetricsSink
from servicelink.settings import Address, Settings, open_line, require_known
from servicelink_contract.rules import Protocol


class GrpcOptions(TypedDict, total=False):
    """What `connect_grpc` takes beside a name.

    As `connect`; and `idempotent` names the methods that may be repeated (`GetUser`, or `package.Service/GetUser`),
    beside those whose .proto says so by `idempotency_level`; `channel_options` go to grpcio, over ours.
    """

    timeout: float | None
    attempt_timeout: float | None
    retries: int | None
    rate_limit: RateLimit | None
    breaker: CircuitBreaker | None
    interceptors: Sequence[Interceptor | AsyncInterceptor]
    metrics: MetricsSink | None
    idempotent: Collection[str]
    channel_options: Sequence[tuple[str, Any]]


@dataclass(slots=True, eq=False)
class Caller:
    """Makes the exchanges of one client; `asked` are the methods that its stubs asked for."""

    line: Line
    options: CallOptions
    idempotent: frozenset[str]
    asked: set[str] = field(default_factory=set)

    def method(self, kind: Kind, path: str, *codecs: Any, **more: Any) -> Method:
        """Answer the method that a stub asks for."""
        method = read_method(kind, path, *codecs, **more)
        self.asked.add(method.operation)
        return method

    def exchange(self, message: GrpcMessage, said: CallOptions) -> GrpcExchange:
        """Answer a call; `said` is what its caller asks for it alone."""
        method = message.method
        options = said.over(self.options)
        if method.kind.streams_in or method.kind.streams_out:
            # A stream lasts as long as it does: what holds for all calls of a client is meant for single answers.
            options = CallOptions(said.timeout or math.inf, said.attempt_timeout, options.retries, options.idempotent)
        return GrpcExchange(message, options, idempotent=self._may_repeat(method))

    def _may_repeat(self, method: Method) -> bool:
        return method.name in self.idempotent or method.operation in self.idempotent or method.is_idempotent

    def with_options(self, said: CallOptions) -> "Caller":
        """Answer one with other options over the same line."""
        return Caller(self.line, said.over(self.options), self.idempotent, self.asked)


def open_caller(address: Address, options: GrpcOptions, *, asynchronous: bool) -> Caller:
    """Answer what makes the calls of a client; no I/O. Raises ValueError, TypeError, LinkNotFound."""
    given: dict[str, Any] = dict(options)
    idempotent = given.pop("idempotent", ())
    given.pop("channel_options", None)
    if isinstance(idempotent, str):
        raise TypeError(f"idempotent is a list of names of methods: idempotent=[{idempotent!r}]")
    require_known("gRPC", given, GrpcOptions)
    settings = Settings(**given)
    line = open_line(Protocol.GRPC, address, settings, asynchronous=asynchronous)
    return Caller(line, settings.call_options, frozenset(idempotent))


class GrpcCallOptions(TypedDict, total=False):
    """What a call by name takes beside method and request.

    `timeout` is seconds for this call (of a stream: for all of it), `attempt_timeout` for each attempt, `retries`
    further attempts; `idempotent` says that doing it twice does no harm; `metadata` goes beside the request.
    """

    timeout: float | None
    attempt_timeout: float | None
    retries: int | None
    idempotent: bool | None
    metadata: MetadataPairs


class GrpcMethods(ABC):
    """A gRPC client of either world."""

    _is_asynchronous: bool

    def __init__(
        self,
        service_name: str,
        *,
        address: str | None = None,
        api_key: str | None = None,
        shared_key: bool = False,
        proto: Proto | None = None,
        package: str = "",
        service: str = "",
        **options: Unpack[GrpcOptions],
    ) -> None:
        if (proto is None) == bool(service) or (proto is None and package):
            raise ValueError("proto and service go together: a file, and which of its services is called (package too)")
        where = Address(service_name=service_name, base_url=address, api_key=api_key, shared_key=shared_key)
        self._name = service_name
        self._caller = open_caller(where, options, asynchronous=self._is_asynchronous)
        repeated = self._caller.idempotent
        self._schema = (
            None if proto is None else Schema(proto, package, service, link=service_name, idempotent=repeated)
        )
        self._set_up(require_options(options.get("channel_options", ())))

    @abstractmethod
    def _set_up(self, options: Sequence[tuple[str, Any]]) -> None:
        """Make wire and driver."""

    @property
    def breaker(self) -> CircuitBreaker:
        """The link's circuit breaker: its state, `add_listener()`, `reset()`; raises LinkNotFound."""
        line = self._caller.line
        return line.health(line.source.current()).breaker

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
        other = copy(self)
        other._caller = self._caller.with_options(  # noqa: SLF001 - of the same class
            CallOptions(timeout, attempt_timeout, retries, idempotent)
        )
        return other

    def _known(self) -> Schema:
        if self._schema is None:
            step = "Make it with proto= and service=, or call by a stub: client.stub(UserServiceStub)"
            raise ServiceError("the client knows no methods by name", link=self._name, next_step=step)
        return self._schema


def require_one_way(stub: Any, *described: Any) -> None:
    """Raise ValueError where a stub is asked for and a service described, too."""
    if stub is not None and any(described):
        problem = "stub calls by generated code, and proto, package and service by name: pass either"
        raise ValueError(f"{problem}, or make a GrpcClient with proto and service, whose stub() makes stubs, too")


def only_stub(client: Any, stub: Callable[[Any], Any]) -> Any:
    """Answer the only stub that a client makes; raises ValueError where `idempotent` names a method that it lacks."""
    made = client.stub(stub)
    caller: Caller = client._caller  # noqa: SLF001 - its other half
    if problem := tell_missing(caller.idempotent, caller.asked):
        raise ValueError(problem)
    return made


def require_kind(named: NamedMethod, *, streams_out: bool) -> None:
    """Raise ServiceError for a method that answers one message where many are expected, or many instead of one."""
    method = named.method
    if method.kind.streams_out is not streams_out:
        problem = "it answers many messages" if method.kind.streams_out else "it answers one message"
        step = "Call it by client.stream()" if method.kind.streams_out else "Call it by client.call()"
        raise ServiceError(problem, link=named.link, operation=method.operation, next_step=step)


def read_named(method: Method, request: Any, options: GrpcCallOptions) -> tuple[GrpcMessage, CallOptions]:
    """Answer the message and options of a call by name; raises TypeError for an option that there is not."""
    given: dict[str, Any] = dict(options)
    message = GrpcMessage(method, request, tuple(given.pop("metadata", None) or ()))
    return message, CallOptions(**given)
