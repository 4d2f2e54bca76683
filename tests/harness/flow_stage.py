"""A line and a call over it, told what came of each attempt: no socket, no clock, either driver."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sdk_worlds import Hands

from servicelink import Call, Outcome, Protocol, Result
from servicelink.binding import Binding, Credential, Limits
from servicelink.calls.drive import AsyncDriver, Driver, Ended
from servicelink.calls.failures import wants_failure
from servicelink.calls.flow import Deliver, Send, flow
from servicelink.calls.line import Line, _healths
from servicelink.calls.options import CallOptions

BINDING = Binding("shop/web", "grpc://api:1", Credential("x-service-auth", "old-key", "OLD"), "shop/api", Limits())
FINE = Outcome(Result.ANSWERED, 200, response="fine")
AWAY = Outcome(Result.AWAY, 503, response="away")
CUT = Outcome(Result.CUT, problem="cut")
REFUSED = Outcome(Result.REFUSED, 403)


@dataclass(slots=True)
class Exchange:
    """A call of no protocol in particular."""

    options: CallOptions = field(default_factory=CallOptions)
    is_replayable: bool = True
    idempotent: bool = True
    streamed: bool = False

    def open(self, binding: Binding, deadline: float, timeout: float) -> Call:
        """Address the call."""
        return Call(
            Protocol.GRPC,
            binding.link,
            binding.server,
            "shop.Api/Get",
            message=binding.uri,
            metadata={},
            request_id="r-1",
            correlation_id="c-1",
            deadline=deadline,
            timeout=timeout,
            idempotent=self.idempotent,
            streamed=self.streamed,
            kid="OLD",
        )

    def complete(self, outcome: Outcome) -> Outcome:
        """Answer the outcome as it is."""
        return outcome

    def conclude(self, call: Call, outcome: Outcome) -> Any:
        """Answer the response."""
        failure = wants_failure(call, outcome)
        if failure is not None:
            raise failure
        return outcome.response


@dataclass(slots=True)
class Sent:
    """What an attempt went out with."""

    attempt: int
    limit: float
    metadata: dict[str, Any]
    key: str | None
    message: Any


class Wire:
    """Answers what it is told, in turn; an exception is raised."""

    def __init__(self, hands: Hands, *outcomes: Outcome | BaseException | Callable[[], Outcome]) -> None:
        self._hands = hands
        self._outcomes = list(outcomes)
        self.sent: list[Sent] = []
        self.discarded: list[Outcome] = []

    def send(self, send: Send) -> Outcome:
        """Make one attempt."""
        credential = send.binding.credential
        key = None if credential is None else credential.text
        call = send.call
        self.sent.append(Sent(call.attempt, send.limit, dict(call.metadata), key, call.message))
        found = self._outcomes.pop(0) if len(self._outcomes) > 1 else self._outcomes[0]
        if isinstance(found, BaseException):
            raise found
        return found if isinstance(found, Outcome) else found()

    def discard(self, outcome: Outcome) -> None:
        """Let go of a stream."""
        self.discarded.append(outcome)


class AsyncWire:
    """As `Wire`, asynchronously."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def send(self, send: Send) -> Outcome:
        """Make one attempt."""
        return self._wire.send(send)

    async def discard(self, outcome: Outcome) -> None:
        """Let go of a stream."""
        self._wire.discard(outcome)


@dataclass(slots=True)
class Stage:
    """A line, and calls over it in one of the worlds."""

    world: str
    hands: Hands
    line: Line

    def __post_init__(self) -> None:
        # What another test has learnt of the same link, which may linger with an error that it has caught.
        _healths.clear()

    def wire(self, *outcomes: Outcome | BaseException | Callable[[], Outcome]) -> Wire:
        """Answer a wire that answers in turn."""
        return Wire(self.hands, *outcomes)

    async def advance(self, wire: Wire, running: Any, came: Outcome | None = None) -> Deliver | Ended[Any]:
        """Go on with a call until it delivers or ends."""
        if self.world == "synchronous":
            return Driver(wire, self.hands.sleep).advance(running, came)
        return await AsyncDriver(AsyncWire(wire), self.hands.async_sleep).advance(running, came)

    async def call(self, wire: Wire, exchange: Exchange | None = None) -> Any:
        """Make a call."""
        ended = await self.advance(wire, flow(self.line, exchange or Exchange()))
        assert isinstance(ended, Ended)
        return ended.value
