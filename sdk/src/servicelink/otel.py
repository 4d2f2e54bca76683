"""OpenTelemetry, where the application has loaded it: a span and a duration for every attempt.

By the semantic conventions of HTTP and RPC clients. An application that never imported `opentelemetry` has configured
nothing, so nothing is imported for it; its incoming `traceparent` is then forwarded as it came, and never invented.
"""

import sys
import time
from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

from servicelink.calls.call import Call, Outcome, Result
from servicelink.context import incoming
from servicelink_contract.rules import Protocol

_NAME = "servicelink"
# The advised boundaries of http.client.request.duration, and of the RPC one.
_BOUNDARIES = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_FIRST_ERROR = 400
_NOTHING: AbstractContextManager[None] = nullcontext()
# What the instrumentations of aiohttp, httpx, urllib3 and others look for in the context.
_SUPPRESSED = ("suppress_instrumentation", "suppress_http_instrumentation")
# Where the context keeps what it says of them on the other side of `suppressed`.
_OTHERWISE = "servicelink_suppressed_otherwise"
_END: Any = object()
T = TypeVar("T")


def is_loaded() -> bool:
    """Say whether the application uses OpenTelemetry."""
    return "opentelemetry.trace" in sys.modules


def suppressed() -> AbstractContextManager[None]:
    """Answer a context in which instrumentations of the engines say nothing: the span of the attempt is ours."""
    return _suppress() if is_loaded() else _NOTHING


def resumed() -> AbstractContextManager[None]:
    """Answer a context inside of `suppressed` in which they say what they say outside: for what is not the engine's."""
    return _resume() if is_loaded() else _NOTHING


def each_resumed(pieces: Iterable[T]) -> Iterable[T]:
    """Answer what an application makes while it is sent, each piece made in `resumed`."""
    return _each(iter(pieces)) if is_loaded() else pieces


def each_resumed_async(pieces: AsyncIterable[T]) -> AsyncIterable[T]:
    """As `each_resumed`, asynchronously."""
    return _each_async(aiter(pieces)) if is_loaded() else pieces


def _each(pieces: Iterator[T]) -> Iterator[T]:
    while True:
        with _resume():
            piece = next(pieces, _END)
        if piece is _END:
            return
        yield piece


async def _each_async(pieces: AsyncIterator[T]) -> AsyncIterator[T]:
    while True:
        with _resume():
            piece = await anext(pieces, _END)
        if piece is _END:
            return
        yield piece


@contextmanager
def _suppress() -> Generator[None, None, None]:
    from opentelemetry.context import attach, detach, set_value  # noqa: PLC0415 - loaded already

    token = attach(set_value(_OTHERWISE, dict.fromkeys(_SUPPRESSED, True)))
    try:
        _swap()
        yield
    finally:
        detach(token)


@contextmanager
def _resume() -> Generator[None, None, None]:
    _swap()
    try:
        yield
    finally:
        _swap()


def _swap() -> None:
    """Change sides. All else stays as it is: a span that the application keeps from piece to piece, for instance."""
    from opentelemetry.context import attach, get_current, get_value, set_value  # noqa: PLC0415 - loaded already

    context = get_current()
    otherwise: Any = get_value(_OTHERWISE, context) or {}
    here = {key: get_value(key, context) for key in otherwise}
    for key, value in otherwise.items():
        context = set_value(key, value, context)
    attach(set_value(_OTHERWISE, here, context))


class Tracing:
    """The innermost interceptor: what it measures is the attempt and nothing else."""

    def __init__(self) -> None:
        from opentelemetry.metrics import get_meter  # noqa: PLC0415 - loaded already
        from opentelemetry.trace import get_tracer  # noqa: PLC0415 - loaded already

        self._tracer = get_tracer(_NAME)
        meter = get_meter(_NAME)
        self._durations = {
            Protocol.REST: _histogram(meter, "http.client.request.duration"),
            Protocol.GRAPHQL: _histogram(meter, "http.client.request.duration"),
            Protocol.GRPC: _histogram(meter, "rpc.client.call.duration"),
        }

    def intercept(self, call: Call) -> Generator[None, Outcome, None]:
        """Trace one attempt, and send its context along."""
        from opentelemetry.propagate import inject  # noqa: PLC0415 - loaded already
        from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context  # noqa: PLC0415 - loaded already

        attributes = _attributes(call)
        kind = SpanKind.CLIENT
        span = self._tracer.start_span(_span_name(call), _parent(), kind=kind, attributes=_with_place(call, attributes))
        carrier: dict[str, str] = {}
        inject(carrier, set_span_in_context(span, _parent()))
        call.metadata.update(carrier)
        started = time.perf_counter()
        try:
            outcome = yield
            ended = _ending(call, outcome)
            span.set_attributes(ended)
            if "error.type" in ended:
                span.set_status(StatusCode.ERROR)
            self._durations[call.protocol].record(time.perf_counter() - started, attributes | ended)
        finally:
            span.end()


def _histogram(meter: Any, name: str) -> Any:
    what = "Duration of the attempts of calls."
    return meter.create_histogram(name, "s", what, explicit_bucket_boundaries_advisory=_BOUNDARIES)


def _parent() -> Any:
    """Answer the context of the span that is current; where there is none, that of the incoming call."""
    from opentelemetry.context import get_current  # noqa: PLC0415 - loaded already
    from opentelemetry.propagate import extract  # noqa: PLC0415 - loaded already
    from opentelemetry.trace import get_current_span  # noqa: PLC0415 - loaded already

    came = incoming.get()
    if came.traceparent is None or get_current_span().get_span_context().is_valid:
        return get_current()
    carrier = {"traceparent": came.traceparent, "tracestate": came.tracestate or ""}
    return extract(carrier)


def _span_name(call: Call) -> str:
    # A path is no name: there is no end of them.
    return call.operation.partition(" ")[0] if call.protocol is Protocol.REST else call.operation


def _attributes(call: Call) -> dict[str, Any]:
    if call.protocol is Protocol.GRPC:
        named = {"rpc.system.name": "grpc", "rpc.method": call.operation, "service.peer.name": call.server}
        target = getattr(call.message, "target", None)
        return named if target is None else named | {"server.address": target.host, "server.port": target.port}
    url = call.message.url
    return {
        "http.request.method": call.message.method,
        "server.address": url.host,
        "server.port": url.port or (443 if url.scheme == "https" else 80),
        "url.scheme": url.scheme,
        "service.peer.name": call.server,
    }


def _with_place(call: Call, attributes: dict[str, Any]) -> dict[str, Any]:
    """Add what a span may say and a metric may not, since there is no end of it."""
    more: dict[str, Any] = {"servicelink.link": call.link}
    if call.protocol is not Protocol.GRPC:
        more["url.full"] = str(call.message.url.copy_with(query=None))
    if call.attempt > 1:
        more["http.request.resend_count"] = call.attempt - 1
    return attributes | more


def _ending(call: Call, outcome: Outcome) -> dict[str, Any]:
    status = outcome.status
    if call.protocol is Protocol.GRPC:
        ended: dict[str, Any] = {} if outcome.code is None else {"rpc.response.status_code": outcome.code}
        failed = outcome.result is not Result.ANSWERED or bool(status)
    else:
        ended = {} if status is None else {"http.response.status_code": status}
        failed = status is None or status >= _FIRST_ERROR
    if failed:
        named = outcome.code if call.protocol is Protocol.GRPC else str(status or "")
        ended["error.type"] = named or outcome.result.value
    return ended
