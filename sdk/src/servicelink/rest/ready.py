"""What tells that a server over HTTP is there: any answer but one that says that it is in need."""

from collections.abc import Callable
from typing import Any

from servicelink.calls.flow import Exchange, Flow, flow
from servicelink.calls.line import Line
from servicelink.calls.options import CallOptions
from servicelink.calls.ready import until_ready as until
from servicelink.errors import RemoteError, ServiceError, ServiceUnavailable
from servicelink.rest.exchange import RestExchange, speaks_of_need


def health_exchange(path: str, options: CallOptions) -> RestExchange:
    """Answer the call that asks a REST server whether it is there."""
    return RestExchange("GET", path, options, content={}, raise_for_status=True)


def until_ready(line: Line, ask: Callable[[CallOptions], Exchange[Any]], seconds: float) -> Flow[None]:
    """Ask until there is an answer, whatever it is but 5xx (501 is one); raises what went wrong last."""
    return until(line, lambda patient, limit: _ask(patient, ask(CallOptions(timeout=limit, retries=0))), seconds)


def _ask(line: Line, exchange: Exchange[Any]) -> Flow[ServiceError | None]:
    try:
        yield from flow(line, exchange)
    except RemoteError as error:
        if speaks_of_need(error.status):
            return ServiceUnavailable(f"it answers {error.status}", link=error.link, operation=error.operation)
    return None
