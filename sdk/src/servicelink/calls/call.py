"""A call and how its attempts end, alike for REST, gRPC and GraphQL; and what an interceptor is.

An interceptor is one method. What it changes in `call.metadata` goes out with this attempt, after `yield` it knows how
the attempt ended:

    class Tenant:
        def intercept(self, call: Call) -> Generator[None, Outcome, None]:
            call.metadata["x-tenant"] = "shop"
            outcome = yield
            log.info("%s: %s", call.operation, outcome.result)

The credential is never in `call.metadata`: it joins the attempt on the wire.
"""

from collections.abc import AsyncGenerator, Generator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from typing import Protocol as Interface

from servicelink.binding import Origin
from servicelink_contract.rules import Protocol

# What goes beside a message: headers, or gRPC metadata (bytes under names that end in `-bin`). Names in lower case.
Metadata = dict[str, str | bytes]


class Result(StrEnum):
    """How an attempt ended."""

    # The server's application answered: a success, or an error that is the caller's own (4xx, 501).
    ANSWERED = "answered"
    # 429, RESOURCE_EXHAUSTED.
    THROTTLED = "throttled"
    # 5xx; INTERNAL, UNKNOWN.
    BROKEN = "broken"
    # 502, 503, 504; UNAVAILABLE.
    AWAY = "away"
    # The credential was not taken, or does not allow this call; nothing was executed.
    REFUSED = "refused"
    DENIED = "denied"
    # Not connected, so the server cannot have seen it; and broken off before the answer was whole.
    UNSENT = "unsent"
    CUT = "cut"
    TIMEOUT = "timeout"
    # The caller went away.
    CANCELLED = "cancelled"

    @property
    def is_transient(self) -> bool:
        """Whether another attempt may end better."""
        return self in _TRANSIENT

    @property
    def is_failure(self) -> bool:
        """Whether it speaks against the server (circuit breaker)."""
        return self in _FAILURES

    @property
    def is_success(self) -> bool:
        """Whether it speaks for the server: it answered, also where the caller was wrong."""
        return self in _SUCCESSES


_TRANSIENT = frozenset({Result.THROTTLED, Result.AWAY, Result.UNSENT, Result.TIMEOUT})
_FAILURES = frozenset({Result.BROKEN, Result.AWAY, Result.UNSENT, Result.CUT, Result.TIMEOUT})
_SUCCESSES = frozenset({Result.ANSWERED, Result.REFUSED, Result.DENIED})


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended: for a stream, how it ended at its end.

    `status` is the HTTP status, or the number of the gRPC code. `code` is the error's own name: of REST `error.code` in
    the body of a 4xx or 5xx, of GraphQL `extensions.code` of the first error, else None; of gRPC the status's name.
    `metadata` came with the answer, `response` is the answer itself. `problem` says in words why there is none.
    `retry_after` is in seconds, None where the server did not say. `blameless` says that it is not of the server's
    doing, so that it speaks neither for nor against it (circuit breaker). `advice` is what helps, where that is known.
    """

    result: Result
    status: int | None = None
    code: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    response: Any = field(default=None, repr=False)
    problem: str = ""
    retry_after: float | None = None
    blameless: bool = False
    advice: str = ""


CANCELLED = Outcome(Result.CANCELLED, problem="the caller went away")


@dataclass(slots=True, eq=False)
class Call:
    """One call, as interceptors see it; `attempt` counts from 1.

    `operation` is the method and path of REST, `package.Service/Method` of gRPC, the type and name of a GraphQL
    operation. `message` is what is sent: an httpx.Request, a GrpcMessage, a GraphQL document's request. `deadline` is
    in seconds of the monotonic clock, infinite where there is none; `timeout` is what the call had at its start. `kid`
    names the credential, which is nowhere here; `origin` says where it and the address came from (None: mounted).
    """

    protocol: Protocol
    link: str
    server: str
    operation: str
    message: Any = field(repr=False)
    metadata: Metadata = field(repr=False)
    request_id: str
    correlation_id: str
    deadline: float
    timeout: float
    idempotent: bool = False
    streamed: bool = False
    attempt: int = 1
    kid: str = ""
    origin: Origin | None = field(default=None, repr=False)


class Interceptor(Interface):
    """Stands around every attempt of a call: one method that yields once."""

    def intercept(self, call: Call) -> Generator[None, Outcome, None]:
        """Prepare the attempt, yield once, and see how it ended."""


class AsyncInterceptor(Interface):
    """As `Interceptor`, in asynchronous clients only."""

    def intercept(self, call: Call) -> AsyncGenerator[None, Outcome]:
        """Prepare the attempt, yield once, and see how it ended."""
