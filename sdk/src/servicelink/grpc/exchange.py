"""One gRPC call: where it goes, what it says, and what its end means. Free of I/O."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from grpc import StatusCode

from servicelink.binding import Binding
from servicelink.calls.call import CANCELLED, Call, Metadata, Outcome, Result
from servicelink.calls.failures import find_server, remote_error, wants_failure, where
from servicelink.calls.options import CallOptions
from servicelink.context import (
    CORRELATION_ID_HEADER,
    REQUEST_ID_HEADER,
    TIMEOUT_HEADER,
    fresh_id,
    incoming,
    wants_id,
)
from servicelink.errors import ServiceError, ServiceUnavailable
from servicelink.grpc.address import require_target
from servicelink.grpc.details import tell_not_connected, tell_too_large
from servicelink.grpc.methods import GrpcMessage, MetadataPairs, require_sendable
from servicelink.verify import Code
from servicelink_contract.rules import Protocol

# Sent by whoever checks calls in front of a server: a status alone may be the application's own.
CODE_KEY = "x-servicelink-code"
# gRPC proposal A6, "Server Pushback": milliseconds, or anything else for "do not come back".
PUSHBACK_KEY = "grpc-retry-pushback-ms"
_MILLISECONDS = re.compile(r"[0-9]{1,10}", re.ASCII)
_RESULTS = {
    StatusCode.CANCELLED: Result.CANCELLED,
    StatusCode.RESOURCE_EXHAUSTED: Result.THROTTLED,
    StatusCode.INTERNAL: Result.BROKEN,
    StatusCode.UNKNOWN: Result.BROKEN,
    StatusCode.UNAVAILABLE: Result.AWAY,
    StatusCode.DEADLINE_EXCEEDED: Result.TIMEOUT,
}
_REFUSALS = {
    (StatusCode.UNAUTHENTICATED, Code.INVALID_SERVICE_AUTH.value): Result.REFUSED,
    (StatusCode.PERMISSION_DENIED, Code.PERMISSION_DENIED.value): Result.DENIED,
}
FINE = Outcome(Result.ANSWERED, 0, StatusCode.OK.name)
CUT = Outcome(Result.CUT, problem="the client was closed before the answer was whole")
_NO_MESSAGE = "the answer is no message of its type"


@dataclass(frozen=True, slots=True)
class Remote:
    """What the server said about a call that it did not answer: it is the body of RemoteError, and in no message."""

    details: str


class GrpcExchange:
    """A call as its caller asks for it."""

    __slots__ = ("_idempotent", "_message", "call", "options", "outcome")

    def __init__(self, message: GrpcMessage, options: CallOptions, *, idempotent: bool) -> None:
        self._message = message
        self._idempotent = idempotent
        self.options = options
        self.call: Call | None = None
        self.outcome: Outcome | None = None

    @property
    def is_replayable(self) -> bool:
        """Whether what is sent can be sent again: a stream of requests is used up."""
        return not self._message.method.kind.streams_in

    def open(self, binding: Binding, deadline: float, timeout: float) -> Call:
        """Address the call; raises ServiceError for metadata that cannot be sent."""
        message = self._message
        message.target = require_target(binding)
        metadata = _metadata(message.metadata)
        options, kind = self.options, message.method.kind
        self.call = Call(
            protocol=Protocol.GRPC,
            link=binding.link,
            server=binding.server,
            operation=message.method.operation,
            message=message,
            metadata=metadata,
            request_id=str(metadata[REQUEST_ID_HEADER]),
            correlation_id=str(metadata[CORRELATION_ID_HEADER]),
            deadline=deadline,
            timeout=timeout,
            idempotent=self._idempotent if options.idempotent is None else options.idempotent,
            streamed=kind.streams_out,
            kid=binding.kid,
            origin=binding.origin,
        )
        require_sendable(message.metadata, self.call)
        return self.call

    def complete(self, outcome: Outcome) -> Outcome:
        """Answer the outcome as it is."""
        return outcome

    def conclude(self, call: Call, outcome: Outcome) -> Any:
        """Answer the response, or what a stream began as; raises ServiceError."""
        self.outcome = outcome
        if outcome is CANCELLED:
            raise ServiceError("its caller cancelled it", **where(call, ""))
        if outcome.result is Result.AWAY:
            problem = "the server is not available (UNAVAILABLE)"
            raise ServiceUnavailable(problem, **where(call, find_server(call)))
        failure = wants_failure(call, outcome)
        if failure is not None:
            raise failure
        if outcome.result is Result.ANSWERED and outcome.problem:
            raise ServiceError(outcome.problem, **where(call, outcome.advice))
        if outcome.status:
            assert isinstance(outcome.response, Remote)
            raise remote_error(call, outcome.status, outcome.code, outcome.response.details)
        return outcome.response


def answered(message: Any) -> Outcome:
    """Answer that a message came; None is what grpcio makes of bytes that are none."""
    if message is None:
        return settle(StatusCode.INTERNAL, _NO_MESSAGE, None)
    return Outcome(Result.ANSWERED, 0, StatusCode.OK.name, response=message)


def settle(
    status: StatusCode,
    details: str | None,
    trailing: Iterable[tuple[str, str | bytes]] | None,
    is_away: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Answer what the end of a call means that was not answered; `is_away` says whether its channel has no connection.

    A server that is connected may pass on words of grpcio's as its own; only what never had a connection was not sent.
    """
    ended = _end_by_grpc(status, details or "", is_away)
    if ended is not None:
        return ended
    metadata = {key: value for key, value in trailing or () if isinstance(value, str)}
    marked = metadata.get(CODE_KEY)
    result = _RESULTS.get(status, Result.ANSWERED)
    if marked is not None:
        result = _REFUSALS.get((status, marked), result)
    number: int = status.value[0]
    return Outcome(
        result,
        number,
        status.name,
        metadata,
        Remote(details or ""),
        problem="no whole answer in time" if result is Result.TIMEOUT else "",
        retry_after=_pushback(metadata),
    )


def _end_by_grpc(status: StatusCode, details: str, is_away: Callable[[], bool]) -> Outcome | None:
    """Answer what gRPC itself made of a call, None where the server's application ended it."""
    if status is StatusCode.UNAVAILABLE:
        problem = tell_not_connected(details)
        if problem is not None and is_away():
            return Outcome(Result.UNSENT, status.value[0], status.name, problem=problem)
    if status is StatusCode.RESOURCE_EXHAUSTED:
        told = tell_too_large(details)
        if told is not None:
            # The server is well, and the same would end the same again.
            return Outcome(Result.ANSWERED, status.value[0], status.name, problem=told[0], advice=told[1])
    return None


def time_limit(seconds: float) -> float | None:
    """Answer the seconds of an attempt as grpcio takes them, None for no limit."""
    return None if seconds == math.inf else seconds


def _pushback(metadata: Mapping[str, str]) -> float | None:
    text = metadata.get(PUSHBACK_KEY)
    if text is None:
        return None
    return int(text) / 1000 if _MILLISECONDS.fullmatch(text) else math.inf


def _metadata(given: MetadataPairs) -> Metadata:
    """Answer what goes along of the incoming call, as far as the caller's metadata does not say it."""
    came = incoming.get()
    said = {key: value for key, value in given if isinstance(value, str)}
    request_id = wants_id(said.get(REQUEST_ID_HEADER, "")) or came.request_id or fresh_id()
    correlation_id = wants_id(said.get(CORRELATION_ID_HEADER, "")) or came.correlation_id or request_id
    metadata: Metadata = {REQUEST_ID_HEADER: request_id, CORRELATION_ID_HEADER: correlation_id}
    if came.traceparent is not None and "traceparent" not in said:
        metadata["traceparent"] = came.traceparent
        if came.tracestate is not None:
            metadata["tracestate"] = came.tracestate
    return metadata


def outgoing_metadata(call: Call, binding: Binding) -> list[tuple[str, str | bytes]]:
    """Answer all that goes beside the message of an attempt; raises ServiceError for what cannot be sent."""
    # An interceptor may write names as headers are written.
    ours = {key.lower(): value for key, value in call.metadata.items() if key != TIMEOUT_HEADER}
    # Before the credential is among it: whoever shows a traceback with its variables must not show the credential.
    require_sendable([*ours.items()], call)
    if binding.credential is not None:
        header = binding.credential.header.lower()
        require_sendable([(header, "")], call)
        # Not as call credentials, which grpcio refuses to send without TLS.
        ours[header] = binding.credential.text
    metadata = [*ours.items()]
    message: GrpcMessage = call.message
    if message.metadata:
        # Nobody else sends the link's credential: one would go out and another be reported.
        metadata += [pair for pair in message.metadata if pair[0] not in ours]
    return metadata
