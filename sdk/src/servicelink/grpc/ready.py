"""What tells that a gRPC server is there: that it answers, and serves where it tells its health."""

from grpc import StatusCode
from grpc_health.v1 import health_pb2

from servicelink.calls.flow import Flow, flow
from servicelink.calls.line import Line
from servicelink.calls.options import CallOptions
from servicelink.calls.ready import until_ready as until
from servicelink.errors import RemoteError, ServiceError, ServiceUnavailable
from servicelink.grpc.exchange import GrpcExchange
from servicelink.grpc.methods import GrpcMessage, Kind, Method

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
    return until(line, _ask, seconds)


def _ask(line: Line, seconds: float) -> Flow[ServiceError | None]:
    message = GrpcMessage(_CHECK, health_pb2.HealthCheckRequest())
    exchange = GrpcExchange(message, CallOptions(timeout=seconds, retries=0), idempotent=True)
    try:
        answer: health_pb2.HealthCheckResponse = yield from flow(line, exchange)
    except RemoteError as error:
        return None if error.status in _SILENT else error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        return ServiceUnavailable("it says that it does not serve yet", operation=_CHECK.operation)
    return None
