"""Waiting for a server that is on its way: a flow made of flows, so that both worlds have it."""

from dataclasses import replace

import httpx

from servicelink.calls.breaker import CircuitBreaker
from servicelink.calls.flow import Flow, Sleep, flow
from servicelink.calls.line import Line
from servicelink.calls.options import CallOptions
from servicelink.errors import InvalidServiceAuth, LinkNotFound, PermissionDenied, ServiceUnavailable
from servicelink.rest.exchange import RestExchange

# Seconds. Soon enough for a person who waits, and rare enough for a server that starts.
_PAUSE = 0.2
_ATTEMPT = 2.0
_AWAY = frozenset({502, 503, 504})


def until_ready(line: Line, path: str, seconds: float) -> Flow[None]:
    """Ask until there is an answer, whatever it is but 502, 503 or 504; raises what went wrong last."""
    # Its failures say nothing of the server's health: nobody said that it is there.
    patient = replace(line, breaker=CircuitBreaker(failures=0))
    deadline = line.clock.now() + seconds
    while True:
        failure = yield from _ask(patient, path, min(_ATTEMPT, max(deadline - line.clock.now(), _PAUSE)))
        if failure is None:
            return
        if line.clock.now() + _PAUSE >= deadline:
            raise failure
        yield Sleep(_PAUSE)


def _ask(line: Line, path: str, seconds: float) -> Flow[Exception | None]:
    exchange = RestExchange("GET", path, CallOptions(timeout=seconds, retries=0), content={})
    try:
        response: httpx.Response = yield from flow(line, exchange)
    except PermissionDenied:
        # It answers, and knows who asks.
        return None
    except (LinkNotFound, ServiceUnavailable, InvalidServiceAuth) as error:
        return error
    if response.status_code in _AWAY:
        return ServiceUnavailable(f"{path} answers {response.status_code}", link=response.request.url.host)
    return None
