"""What a client is made with: one table, checked once for all protocols and both worlds."""

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypedDict

from servicelink.calls.breaker import CircuitBreaker
from servicelink.calls.call import AsyncInterceptor, Interceptor
from servicelink.calls.interceptors import require_interceptors
from servicelink.calls.limits import Pace, RateLimit
from servicelink.calls.line import Line
from servicelink.calls.options import CallOptions, require_seconds
from servicelink.find import explicit_source, source_of
from servicelink.measures import MetricsSink
from servicelink_contract.rules import Protocol

if TYPE_CHECKING:
    import httpx


class ClientOptions(TypedDict, total=False):
    """What `connect` takes beside a name; `Settings` says each."""

    timeout: float | None
    attempt_timeout: float | None
    retries: int | None
    rate_limit: RateLimit | None
    breaker: CircuitBreaker | None
    interceptors: Sequence[Interceptor | AsyncInterceptor]
    metrics: MetricsSink | None
    limits: "httpx.Limits | None"
    write_timeout: float | None
    ssl_context: ssl.SSLContext | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A client's settings, with what each means; raises TypeError and ValueError for values that are none of theirs."""

    timeout: float | None = field(
        default=None,
        metadata={
            "meaning": "Seconds for a whole call, retries and body included; of a stream, until its headers and then "
            "between two pieces. `math.inf` is no limit, which in httpx `None` is.",
            "without": "the binding's, else 5",
        },
    )
    attempt_timeout: float | None = field(
        default=None,
        metadata={
            "meaning": "Seconds for one attempt. One that takes longer is tried again, where the call may be.",
            "without": "no limit but `timeout`",
        },
    )
    retries: int | None = field(
        default=None,
        metadata={
            "meaning": "Further attempts of an idempotent call after 429, 502, 503, 504, a refused connection or an "
            "`attempt_timeout`.",
            "without": "the binding's, else 2",
        },
    )
    rate_limit: RateLimit | None = field(
        default=None,
        metadata={
            "meaning": "`RateLimit(calls, per)`: at most so many calls in so many seconds. Later ones wait their turn, "
            "or raise `RateLimited` where that is after their time limit.",
            "without": "no limit",
        },
    )
    breaker: CircuitBreaker | None = field(
        default=None,
        metadata={
            "meaning": "`CircuitBreaker(name, failures=…, open_for=…)` of your own.",
            "without": "one for each link and process, with the binding's limits, else 5 failed attempts and 30 s",
        },
    )
    interceptors: Sequence[Interceptor | AsyncInterceptor] = field(
        default=(), metadata={"meaning": "Who stands around every attempt, the first outermost.", "without": "nobody"}
    )
    metrics: MetricsSink | None = field(
        default=None,
        metadata={"meaning": "A `MetricsSink` that is told of every call.", "without": "only `servicelink.metrics()`"},
    )
    limits: "httpx.Limits | None" = field(
        default=None,
        metadata={
            "meaning": "`httpx.Limits`: connections, those that are kept idle, and for how many seconds.",
            "without": "100 connections, idle for 4 s",
        },
    )
    write_timeout: float | None = field(
        default=None,
        metadata={
            "meaning": "Seconds that a server may let a piece (64 KiB) of a body wait.",
            "without": "no limit but `timeout`",
        },
    )
    ssl_context: ssl.SSLContext | None = field(
        default=None,
        metadata={
            "meaning": "How servers are checked over https, and what they are shown.",
            "without": "by the binding's `ca.crt`, else by the system's roots; its `tls.crt`, as it changes",
        },
    )

    def __post_init__(self) -> None:
        require_seconds("write_timeout", self.write_timeout)
        for name, (kind, meaning) in _KINDS.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise _mistaken(name, value, meaning)
        sink = self.metrics
        if sink is not None and (isinstance(sink, type) or not callable(getattr(sink, "record", None))):
            raise _mistaken("metrics", sink, "an object with a method record(measured)")

    @property
    def call_options(self) -> CallOptions:
        """What holds for every call of the client; raises ValueError."""
        return CallOptions(self.timeout, self.attempt_timeout, self.retries)


_KINDS: dict[str, tuple[type, str]] = {
    "rate_limit": (RateLimit, "a RateLimit(calls, per)"),
    "breaker": (CircuitBreaker, "a CircuitBreaker(name, failures=…, open_for=…)"),
    "ssl_context": (ssl.SSLContext, "an ssl.SSLContext"),
}


def _mistaken(name: str, value: Any, meaning: str) -> TypeError:
    # Not the value, which may hold a key.
    kind = f"the class {value.__name__}" if isinstance(value, type) else f"of {type(value).__name__}"
    return TypeError(f"{name} is {kind}; it is {meaning}")


def read_settings(given: Mapping[str, Any]) -> Settings:
    """Answer what an application says of a client; raises TypeError, also for a name that is none, and ValueError."""
    require_known("a client", given, ClientOptions)
    return Settings(**given)


def require_known(who: str, given: Mapping[str, Any], options: type) -> None:
    """Raise TypeError for a name that is none of these options, a TypedDict."""
    names = options.__annotations__
    if unknown := given.keys() - names.keys():
        raise TypeError(f"{who} takes no {', '.join(sorted(unknown))}; it takes {', '.join(names)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a client calls: a name to be looked for, or what the application says of an address."""

    service_name: str
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    shared_key: bool = False

    def __post_init__(self) -> None:
        place = "base_url (gRPC: address)"
        for name, value in (("service_name", self.service_name), (place, self.base_url), ("api_key", self.api_key)):
            if not isinstance(value, str) and (value is not None or name == "service_name"):
                raise _mistaken(name, value, "a str")
        if self.api_key is not None and self.shared_key:
            raise ValueError("api_key and shared_key=True say two things; pass the one whose key is meant")
        if self.base_url is None and (self.api_key is not None or self.shared_key):
            raise ValueError("api_key and shared_key go with base_url (gRPC: address); a link brings its own")


def open_line(protocol: Protocol, address: Address, settings: Settings, *, asynchronous: bool) -> Line:
    """Answer a client's way to its server; no I/O. Raises ValueError, TypeError, LinkNotFound."""
    interceptors = require_interceptors(settings.interceptors, asynchronous=asynchronous)
    if address.base_url is None:
        source = source_of(address.service_name, protocol)
    else:
        source = explicit_source(
            address.service_name,
            protocol,
            address.base_url,
            api_key=address.api_key,
            shared_key=address.shared_key,
        )
    return Line(
        protocol=protocol,
        source=source,
        interceptors=interceptors,
        pace=None if settings.rate_limit is None else Pace(settings.rate_limit),
        breaker=settings.breaker,
        sink=settings.metrics,
    )


def render_configuration() -> str:
    """Render the table of settings for the documentation."""
    rows = "\n".join(
        f"| `{one.name}` | {one.metadata['meaning']} | {one.metadata['without']} |" for one in fields(Settings)
    )
    return f"| setting | meaning | without it |\n|---|---|---|\n{rows}\n"
