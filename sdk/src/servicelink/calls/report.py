"""What is said of a call: two log lines and a measurement, whatever way it ends."""

import logging
from typing import TYPE_CHECKING

from servicelink.calls.call import Call, Outcome, Result
from servicelink.errors import ServiceError
from servicelink.measures import PROCESS, Measured
from servicelink_contract.rules import Protocol

if TYPE_CHECKING:
    from servicelink.calls.line import Line

_log = logging.getLogger("servicelink")


class Report:
    """One call from its start to its end; `close` tells what `outcome` or `error` says by then."""

    __slots__ = ("_call", "_line", "_started", "error", "outcome")

    def __init__(self, line: "Line", call: Call, started: float) -> None:
        self._line = line
        self._call = call
        self._started = started
        self.outcome: Outcome | None = None
        self.error: BaseException | None = None
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("%s %s: started", call.link, call.operation, extra=fields(call))

    def close(self) -> None:
        """Measure and log the call."""
        call, outcome = self._call, self.outcome
        seconds = self._line.clock.now() - self._started
        status = None if outcome is None else outcome.status
        measured = Measured(call.link, call.protocol, call.operation, self._result(), status, call.attempt, seconds)
        PROCESS.record(measured)
        if self._line.sink is not None:
            self._record(measured)
        level = logging.INFO if self._is_fine() else logging.WARNING
        if self._line.probing:
            level = logging.DEBUG
        if _log.isEnabledFor(level):
            text = "%s %s: %s%s in %.0f ms (attempts %d, correlation %s)"
            code = f" {outcome.code if call.protocol is Protocol.GRPC else status}" if outcome and status else ""
            words = (
                call.link,
                call.operation,
                measured.result,
                code,
                seconds * 1000,
                call.attempt,
                call.correlation_id,
            )
            _log.log(level, text, *words, extra=fields(call) | {"result": measured.result, "status": status})

    def _result(self) -> str:
        if self.outcome is not None:
            return self.outcome.result.value
        if isinstance(self.error, ServiceError):
            return type(self.error).__name__
        return Result.CANCELLED.value if self.error is not None and not isinstance(self.error, Exception) else "error"

    def _is_fine(self) -> bool:
        outcome = self.outcome
        return outcome is not None and outcome.result in {Result.ANSWERED, Result.CANCELLED}

    def _record(self, measured: Measured) -> None:
        assert self._line.sink is not None
        try:
            self._line.sink.record(measured)
        except Exception:  # noqa: BLE001 - whatever it is
            # A call that went well must not fail because of who counts it.
            _log.exception("the metrics sink of %s failed", measured.link)


def fields(call: Call) -> dict[str, object]:
    """Answer what a log record of a call says beside its text."""
    return {
        "link": call.link,
        "operation": call.operation,
        "request_id": call.request_id,
        "correlation_id": call.correlation_id,
        "attempts": call.attempt,
    }
