"""Waiting for a server that is on its way: a flow made of flows, so that both worlds have it."""

from dataclasses import replace

from grpc import StatusCode
from grpc_health.v1 import health_pb2

from servicelink.calls.breaker import CircuitBreaker
from servicelink.calls.flow import Flow, Sleep, flow
from servicelink.calls.line import Line
from servicelink.calls.options import CallOptions
from servicelink.errors import (
    InvalidServiceAuth,
    LinkNotFound,
    PermissionDenied,
    RemoteError,
    ServiceUnavailable,
)
from servicelink.grpc.exchange import GrpcExchange
from servicelink.grpc.methods import GrpcMessage, Kind, Method

# Seconds. Soon enough for a person who waits, and rare enough for a server that starts.
_PAUSE = 0.2
_ATTEMPT = 2.0
_CHECK = Method(
    "/grpc.health.v1.Health/Check",
    Kind.UNARY_UNARY,
    health_pb2.HealthCheckRequest.SerializeToString,
    health_pb2.HealthCheckResponse.FromString,
)
# It answers, and tells no health: not at all, or not of itself as a whole.
_SILENT = frozenset({StatusCode.UNIMPLEMENTED.value[0], StatusCode.NOT_FOUND.value[0]})


def until_ready(line: Line, seconds: float) -> Flow[None]:
    """Ask until the server answers, and serves where it tells its health; raises what went wrong last."""
    # Its failures say nothing of the server's health: nobody said that it is there. And it takes no turn of a call.
    patient = replace(line, breaker=CircuitBreaker(failures=0), pace=None)
    deadline = line.clock.now() + seconds
    while True:
        failure = yield from _ask(patient, min(_ATTEMPT, max(deadline - line.clock.now(), _PAUSE)))
        if failure is None:
            return
        if line.clock.now() + _PAUSE >= deadline:
            raise failure
        yield Sleep(_PAUSE)


def _ask(line: Line, seconds: float) -> Flow[Exception | None]:
    message = GrpcMessage(_CHECK, health_pb2.HealthCheckRequest())
    exchange = GrpcExchange(message, CallOptions(timeout=seconds, retries=0), idempotent=True)
    try:
        answer: health_pb2.HealthCheckResponse = yield from flow(line, exchange)
    except PermissionDenied:
        # It answers, and knows who asks.
        return None
    except RemoteError as error:
        return None if error.status in _SILENT else error
    except (LinkNotFound, ServiceUnavailable, InvalidServiceAuth) as error:
        return error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        return ServiceUnavailable("it says that it does not serve yet", operation=_CHECK.operation)
    return None
