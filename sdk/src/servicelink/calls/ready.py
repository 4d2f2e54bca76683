"""Waiting for a server that is on its way: a flow made of flows, so that both worlds have it."""

import logging
from collections.abc import Callable
from dataclasses import replace

from servicelink.calls.breaker import CircuitBreaker
from servicelink.calls.flow import Flow, Sleep
from servicelink.calls.line import Line
from servicelink.errors import InvalidServiceAuth, LinkNotFound, PermissionDenied, ServiceError, ServiceUnavailable

_log = logging.getLogger("servicelink")
# Seconds. Soon enough for a person who waits, and rare enough for a server that starts.
_PAUSE = 0.2
_ATTEMPT = 2.0


def until_ready(line: Line, ask: Callable[[Line, float], Flow[ServiceError | None]], seconds: float) -> Flow[None]:
    """Ask, for some seconds each time, until nothing is wrong any more; raises what went wrong last.

    `ask` answers, or raises, what is wrong. The circuit is closed then: it may have opened while the server was away.
    """
    # Its failures say nothing of the server's health: nobody said that it is there. Nor does it take turns of calls.
    patient = replace(line, breaker=CircuitBreaker(failures=0), pace=None, probing=True)
    deadline = line.clock.now() + seconds
    while True:
        failure = yield from _heard(ask(patient, min(_ATTEMPT, max(deadline - line.clock.now(), _PAUSE))))
        if failure is None:
            line.health(line.source.current()).breaker.reset()
            return
        if line.clock.now() + _PAUSE >= deadline:
            _log.warning("not ready after %g s: %s", seconds, failure)
            raise failure
        yield Sleep(_PAUSE)


def _heard(asking: Flow[ServiceError | None]) -> Flow[ServiceError | None]:
    """Answer what is wrong that may mend by itself."""
    try:
        return (yield from asking)
    except PermissionDenied:
        # It answers, and knows who asks.
        return None
    except (LinkNotFound, ServiceUnavailable, InvalidServiceAuth) as error:
        return error
