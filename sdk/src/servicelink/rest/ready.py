"""Waiting for a server that is on its way: a flow made of flows, so that both worlds have it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from servicelink.calls.breaker import CircuitBreaker
from servicelink.calls.flow import Exchange, Flow, Sleep, flow
from servicelink.calls.line import Line
from servicelink.calls.options import CallOptions
from servicelink.errors import InvalidServiceAuth, LinkNotFound, PermissionDenied, RemoteError, ServiceUnavailable
from servicelink.rest.exchange import RestExchange

# Seconds. Soon enough for a person who waits, and rare enough for a server that starts.
_PAUSE = 0.2
_ATTEMPT = 2.0
_AWAY = frozenset({502, 503, 504})


def health_exchange(path: str, options: CallOptions) -> RestExchange:
    """Answer the call that asks a REST server whether it is there."""
    return RestExchange("GET", path, options, content={}, raise_for_status=True)


def until_ready(line: Line, ask: Callable[[CallOptions], Exchange[Any]], seconds: float) -> Flow[None]:
    """Ask until there is an answer, whatever it is but 502, 503 or 504; raises what went wrong last."""
    # Its failures say nothing of the server's health: nobody said that it is there. Nor does it take turns of calls.
    patient = replace(line, breaker=CircuitBreaker(failures=0), pace=None)
    deadline = line.clock.now() + seconds
    while True:
        limit = min(_ATTEMPT, max(deadline - line.clock.now(), _PAUSE))
        failure = yield from _ask(patient, ask(CallOptions(timeout=limit, retries=0)))
        if failure is None:
            return
        if line.clock.now() + _PAUSE >= deadline:
            raise failure
        yield Sleep(_PAUSE)


def _ask(line: Line, exchange: Exchange[Any]) -> Flow[Exception | None]:
    try:
        yield from flow(line, exchange)
    except PermissionDenied:
        # It answers, and knows who asks.
        return None
    except RemoteError as error:
        if error.status in _AWAY:
            return ServiceUnavailable(f"it answers {error.status}", link=error.link, operation=error.operation)
        return None
    except (LinkNotFound, ServiceUnavailable, InvalidServiceAuth) as error:
        return error
    return None
