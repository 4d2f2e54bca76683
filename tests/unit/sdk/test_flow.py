"""The flow of a call, told what came of each attempt: no socket, no clock, both drivers."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from sdk_worlds import WORLDS, Hands

import servicelink
from servicelink import Call, CircuitBreaker, CircuitState, Outcome, Protocol, Result
from servicelink.binding import Binding, Credential, FixedSource, Limits
from servicelink.calls.drive import AsyncDriver, Driver, Ended
from servicelink.calls.failures import wants_failure
from servicelink.calls.flow import Deliver, Send, flow
from servicelink.calls.limits import Pace, RateLimit, RetryBudget
from servicelink.calls.line import Line
from servicelink.calls.options import CallOptions
from servicelink.calls.retry import parse_retry_after
from servicelink.context import Incoming, incoming

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


@pytest.fixture(params=WORLDS)
def stage(request: pytest.FixtureRequest) -> Stage:
    hands = Hands()
    breaker = CircuitBreaker("shop/web", clock=hands.now)
    return Stage(request.param, hands, Line(Protocol.GRPC, FixedSource(BINDING), breaker=breaker, clock=hands.clock))


async def test_a_call_that_is_answered_is_made_once(stage: Stage) -> None:
    wire = stage.wire(FINE)

    assert await stage.call(wire) == "fine"
    assert wire.sent == [Sent(1, 5.0, {"x-request-timeout-ms": "5000"}, "old-key", BINDING.uri)]


@pytest.mark.parametrize("first", [Result.AWAY, Result.THROTTLED, Result.UNSENT, Result.TIMEOUT])
async def test_what_may_pass_is_tried_again_after_a_pause_that_doubles(stage: Stage, first: Result) -> None:
    wire = stage.wire(Outcome(first), Outcome(first), FINE)

    assert await stage.call(wire) == "fine"
    assert [sent.attempt for sent in wire.sent] == [1, 2, 3]
    assert stage.hands.slept == [0.1, 0.2]


@pytest.mark.parametrize("first", [Result.BROKEN, Result.CUT, Result.DENIED, Result.REFUSED])
async def test_what_will_not_pass_or_may_have_been_done_is_not_tried_again(stage: Stage, first: Result) -> None:
    wire = stage.wire(Outcome(first, 500, response="it"), FINE)
    with suppress(servicelink.ServiceError):
        await stage.call(wire)

    assert len(wire.sent) == 1


@pytest.mark.parametrize(
    "change", [{"idempotent": False}, {"is_replayable": False}, {"options": CallOptions(retries=0)}]
)
async def test_a_call_that_must_not_be_repeated_is_not(stage: Stage, change: dict[str, Any]) -> None:
    wire = stage.wire(AWAY, FINE)

    assert await stage.call(wire, Exchange(**change)) == "away"
    assert len(wire.sent) == 1


async def test_retries_end_with_what_was_answered_last(stage: Stage) -> None:
    wire = stage.wire(AWAY)

    assert await stage.call(wire) == "away"
    assert len(wire.sent) == 3


async def test_the_server_says_when_to_come_back(stage: Stage) -> None:
    wire = stage.wire(replace(AWAY, retry_after=1.5), FINE)

    assert await stage.call(wire) == "fine"
    assert stage.hands.slept == [1.5]


async def test_nobody_waits_for_what_comes_after_the_time_limit(stage: Stage) -> None:
    wire = stage.wire(replace(AWAY, retry_after=5.0), FINE)

    assert await stage.call(wire) == "away"
    assert stage.hands.slept == []


async def test_nobody_waits_for_more_than_a_minute_even_without_a_limit(stage: Stage) -> None:
    wire = stage.wire(replace(AWAY, retry_after=61.0), FINE)

    assert await stage.call(wire, Exchange(CallOptions(timeout=math.inf))) == "away"


@pytest.mark.parametrize("text", ["Mon, 99999999999999999999 Jan 2024 00:00:00 GMT", "soon", "-1", "9" * 400, ""])
def test_a_time_to_come_back_that_is_not_understood_is_none(text: str) -> None:
    assert parse_retry_after(text, 0.0) is None


async def test_the_time_limit_counts_all_attempts_and_travels(stage: Stage) -> None:
    wire = stage.wire(replace(AWAY, retry_after=1.0), FINE)
    await stage.call(wire, Exchange(CallOptions(timeout=2.0, attempt_timeout=1.5)))

    assert [sent.limit for sent in wire.sent] == [1.5, 1.0]
    assert [sent.metadata["x-request-timeout-ms"] for sent in wire.sent] == ["1500", "1000"]


async def test_a_call_without_a_limit_says_none(stage: Stage) -> None:
    wire = stage.wire(FINE)
    await stage.call(wire, Exchange(CallOptions(timeout=math.inf)))

    assert (wire.sent[0].limit, wire.sent[0].metadata) == (math.inf, {})


async def test_a_call_on_behalf_of_another_has_what_that_has_left(stage: Stage) -> None:
    wire = stage.wire(FINE)
    token = incoming.set(Incoming(deadline=stage.hands.now() + 0.25))
    await stage.call(wire)
    stage.hands.seconds += 1
    with pytest.raises(servicelink.ServiceTimeout, match="no time left"):
        await stage.call(wire)
    incoming.reset(token)

    assert [sent.limit for sent in wire.sent] == [0.25]
    assert stage.line.breaker is not None
    assert stage.line.breaker.state is CircuitState.CLOSED


TOO_LATE = Outcome(Result.TIMEOUT, problem="no whole answer in time")


async def test_time_that_somebody_else_set_speaks_neither_for_nor_against_the_server(stage: Stage) -> None:
    wire = stage.wire(*[TOO_LATE] * 4, *[CUT] * 5, FINE)
    breaker = stage.line.breaker = CircuitBreaker(clock=stage.hands.now)
    unrepeated = Exchange(idempotent=False)
    with suppress(servicelink.ServiceTimeout):
        await stage.call(wire, unrepeated)
    for _ in range(3):
        token = incoming.set(Incoming(deadline=stage.hands.now() + 0.25))
        with pytest.raises(servicelink.ServiceTimeout):
            await stage.call(wire, unrepeated)
        incoming.reset(token)
    for _ in range(3):
        with pytest.raises(servicelink.ServiceUnavailable):
            await stage.call(wire, unrepeated)
    before = breaker.state
    with pytest.raises(servicelink.ServiceUnavailable):
        await stage.call(wire, unrepeated)

    # One timeout in its own time and four that were cut.
    assert (before, breaker.state) == (CircuitState.CLOSED, CircuitState.OPEN)


@pytest.mark.parametrize(("left", "state"), [(0.6, CircuitState.OPEN), (0.4, CircuitState.CLOSED)])
async def test_what_is_left_of_a_limit_like_ones_own_tells_that_a_server_hangs(
    stage: Stage, left: float, state: CircuitState
) -> None:
    breaker = stage.line.breaker = CircuitBreaker(clock=stage.hands.now)
    exchange = Exchange(CallOptions(timeout=1.0), idempotent=False)
    for _ in range(5):
        token = incoming.set(Incoming(deadline=stage.hands.now() + left))
        with pytest.raises(servicelink.ServiceTimeout):
            await stage.call(stage.wire(TOO_LATE), exchange)
        incoming.reset(token)

    assert breaker.state is state


async def test_an_attempts_own_time_limit_counts_on_behalf_of_another_as_well(stage: Stage) -> None:
    breaker = stage.line.breaker = CircuitBreaker(clock=stage.hands.now)
    exchange = Exchange(CallOptions(attempt_timeout=0.1), idempotent=False)
    token = incoming.set(Incoming(deadline=stage.hands.now() + 0.25))
    for _ in range(5):
        with pytest.raises(servicelink.ServiceTimeout):
            await stage.call(stage.wire(TOO_LATE), exchange)
    incoming.reset(token)

    assert breaker.state is CircuitState.OPEN


async def test_the_budget_ends_retries_for_all_callers_of_a_link(stage: Stage) -> None:
    stage.line.breaker = CircuitBreaker(failures=0)
    wire = stage.wire(AWAY)
    for _ in range(10):
        await stage.call(wire)

    # Ten first attempts, and the ten tokens.
    assert len(wire.sent) == 20


def test_the_budget_grows_by_a_tenth_for_each_success_up_to_ten() -> None:
    budget = RetryBudget()
    while budget.withdraw():
        pass
    for _ in range(9):
        budget.deposit()
    assert not budget.withdraw()
    for _ in range(2):
        budget.deposit()
    assert budget.withdraw()
    for _ in range(1000):
        budget.deposit()
    assert budget.tokens == 10.0


async def test_an_open_circuit_raises_and_sends_nothing_until_a_trial(stage: Stage) -> None:
    wire = stage.wire(*[CUT] * 5, FINE)
    for _ in range(5):
        with pytest.raises(servicelink.ServiceUnavailable, match="cut"):
            await stage.call(wire)
    with pytest.raises(servicelink.CircuitOpen) as circuit:
        await stage.call(wire)
    sent = len(wire.sent)
    stage.hands.seconds += 30

    assert (sent, circuit.value.retry_after, circuit.value.unsent) == (5, 30.0, True)
    assert await stage.call(wire) == "fine"
    assert stage.line.breaker is not None
    assert stage.line.breaker.state is CircuitState.CLOSED


async def test_a_cancelled_trial_frees_its_place(stage: Stage) -> None:
    breaker = stage.line.breaker = CircuitBreaker(failures=1, open_for=1, clock=stage.hands.now)
    wire = stage.wire(CUT, asyncio.CancelledError(), FINE)
    with pytest.raises(servicelink.ServiceUnavailable):
        await stage.call(wire)
    stage.hands.seconds += 1
    with pytest.raises(asyncio.CancelledError):
        await stage.call(wire)
    half_open = breaker.state

    assert await stage.call(wire) == "fine"
    assert (half_open, breaker.state) == (CircuitState.HALF_OPEN, CircuitState.CLOSED)


@dataclass(slots=True)
class Rotating:
    """A source with another key each time it is reloaded."""

    kids: list[str]
    uri: str = BINDING.uri

    def current(self) -> Binding:
        """Answer the binding."""
        return replace(
            BINDING, credential=Credential("x-service-auth", f"{self.kids[0]}-key", self.kids[0]), uri=self.uri
        )

    def reload(self) -> Binding:
        """Answer the next."""
        if len(self.kids) > 1:
            self.kids.pop(0)
        return self.current()


async def test_a_refused_key_is_replaced_once_whatever_the_method(stage: Stage) -> None:
    stage.line.source = Rotating(["one", "two", "three"])
    wire = stage.wire(REFUSED, FINE)

    assert await stage.call(wire, Exchange(idempotent=False)) == "fine"
    assert [sent.key for sent in wire.sent] == ["one-key", "two-key"]
    assert stage.hands.slept == []


async def test_a_key_that_is_refused_again_is_an_error(stage: Stage) -> None:
    stage.line.source = Rotating(["one", "two", "three"])
    wire = stage.wire(REFUSED)

    with pytest.raises(servicelink.InvalidServiceAuth):
        await stage.call(wire)
    assert len(wire.sent) == 2


async def test_an_address_that_changes_between_attempts_is_followed(stage: Stage) -> None:
    source = stage.line.source = Rotating(["one"])

    def move() -> Outcome:
        source.uri = "grpc://elsewhere:2"
        return AWAY

    wire = stage.wire(move, FINE)
    await stage.call(wire)

    assert [sent.message for sent in wire.sent] == [BINDING.uri, "grpc://elsewhere:2"]


async def test_calls_take_turns_and_one_whose_turn_comes_too_late_is_refused(stage: Stage) -> None:
    stage.line.pace = Pace(RateLimit(calls=2, per=10.0))
    wire = stage.wire(FINE)
    for _ in range(2):
        await stage.call(wire)
    with pytest.raises(servicelink.RateLimited):
        await stage.call(wire, Exchange(CallOptions(timeout=4)))
    await stage.call(wire, Exchange(CallOptions(timeout=60)))

    assert len(wire.sent) == 3
    assert stage.hands.slept == pytest.approx([5.0], abs=1e-4)


class Impatient(Hands):
    """Hands of somebody who goes away while he waits."""

    def sleep(self, seconds: float) -> None:
        """Go away."""
        raise asyncio.CancelledError


async def test_who_goes_away_while_waiting_for_a_turn_gives_it_back(stage: Stage) -> None:
    stage.line.pace = Pace(RateLimit(calls=1, per=1.0))
    wire, patient = stage.wire(FINE), stage.hands
    await stage.call(wire)
    stage.hands = Impatient()
    for _ in range(6):
        with pytest.raises(asyncio.CancelledError):
            await stage.call(wire)
    stage.hands = patient
    await stage.call(wire)

    assert len(wire.sent) == 2
    assert patient.slept == pytest.approx([1.0], abs=1e-4)


@pytest.mark.parametrize("order", [(1.0, 2.0, 3.0), (3.0, 2.0, 1.0), (2.0, 3.0, 1.0), (2.0, 1.0, 3.0)])
def test_turns_that_are_given_back_in_any_order_are_as_if_never_taken(order: tuple[float, ...]) -> None:
    pace = Pace(RateLimit(calls=1, per=1.0))
    taken = [pace.reserve(10.0, math.inf) for _ in range(4)]
    for wait in order:
        pace.give_back(10.0 + wait)

    assert taken == pytest.approx([0.0, 1.0, 2.0, 3.0], abs=1e-4)
    assert [pace.reserve(10.5, math.inf) for _ in range(2)] == pytest.approx([0.5, 1.5], abs=1e-4)


def test_a_turn_that_is_given_back_goes_to_one_call_at_its_time_or_to_none() -> None:
    pace = Pace(RateLimit(calls=1, per=1.0))
    for _ in range(4):
        pace.reserve(10.0, math.inf)
    pace.give_back(11.0)
    pace.give_back(12.0)

    # At 13 somebody else goes; what was free at 11 has passed, and what is too late for one is left to another.
    assert pace.reserve(11.5, 0.4) is None
    assert [pace.reserve(11.5, math.inf) for _ in range(2)] == pytest.approx([0.5, 2.5], abs=1e-4)


class Notes:
    """An interceptor that notes what it sees."""

    def __init__(self, name: str, notes: list[Any]) -> None:
        self._name = name
        self._notes = notes

    def intercept(self, call: Call) -> Generator[None, Outcome, None]:
        """Note the attempt."""
        self._notes.append((self._name, call.attempt))
        call.metadata["x-seen"] = str(call.metadata.get("x-seen", "")) + self._name
        outcome = yield
        self._notes.append((self._name, outcome.result.value))


class AsyncNotes(Notes):
    """As `Notes`, asynchronously."""

    async def intercept(self, call: Call) -> AsyncGenerator[None, Outcome]:  # type: ignore[override]
        """Note the attempt."""
        inner = Notes.intercept(self, call)
        await asyncio.sleep(0)
        next(inner)
        outcome = yield
        await asyncio.sleep(0)
        try:
            inner.send(outcome)
        except StopIteration:
            return


async def test_interceptors_stand_around_every_attempt_the_first_outermost(stage: Stage) -> None:
    notes: list[Any] = []
    stage.line.interceptors = (Notes("a", notes), Notes("b", notes))
    wire = stage.wire(AWAY, FINE)
    await stage.call(wire)

    assert notes == [
        *[("a", 1), ("b", 1), ("b", "away"), ("a", "away")],
        *[("a", 2), ("b", 2), ("b", "answered"), ("a", "answered")],
    ]
    assert [sent.metadata["x-seen"] for sent in wire.sent] == ["ab", "ab"]


async def test_asynchronous_interceptors_work_in_asynchronous_clients_only(stage: Stage) -> None:
    notes: list[Any] = []
    stage.line.interceptors = (Notes("a", notes), AsyncNotes("b", notes))
    wire = stage.wire(FINE)
    if stage.world == "synchronous":
        with pytest.raises(TypeError, match="asynchronous client"):
            await stage.call(wire)
    else:
        await stage.call(wire)
        assert notes == [("a", 1), ("b", 1), ("b", "answered"), ("a", "answered")]


async def test_interceptors_learn_of_a_caller_that_went_away(stage: Stage) -> None:
    notes: list[Any] = []
    stage.line.interceptors = (Notes("a", notes),)
    with pytest.raises(asyncio.CancelledError):
        await stage.call(stage.wire(asyncio.CancelledError()))

    assert notes == [("a", 1), ("a", "cancelled")]


class Raises:
    """An interceptor that raises before or after the attempt."""

    def __init__(self, *, before: bool) -> None:
        self._before = before

    def intercept(self, call: Call) -> Generator[None, Outcome, None]:
        """Raise."""
        if self._before:
            raise LookupError("no tenant")
        yield
        raise LookupError("no tenant")


@pytest.mark.parametrize("before", [True, False])
async def test_what_an_interceptor_raises_is_raised_and_the_others_are_told(stage: Stage, *, before: bool) -> None:
    notes: list[Any] = []
    stage.line.interceptors = (Notes("a", notes), Raises(before=before))
    wire = stage.wire(FINE)
    with pytest.raises(LookupError, match="no tenant"):
        await stage.call(wire)

    assert len(wire.sent) == (0 if before else 1)
    assert notes == [("a", 1), ("a", "cancelled" if before else "answered")]


class Silent:
    """An interceptor that does not yield."""

    def intercept(self, call: Call) -> Generator[None, Outcome, None]:
        """Return at once."""
        yield from ()


class Twice:
    """An interceptor that yields twice."""

    def intercept(self, call: Call) -> Generator[None, Outcome, None]:
        """Yield twice."""
        yield
        yield


@pytest.mark.parametrize(("wrong", "words"), [(Silent(), "did not yield"), (Twice(), "more than once")])
async def test_an_interceptor_yields_once(stage: Stage, wrong: Any, words: str) -> None:
    stage.line.interceptors = (wrong,)

    with pytest.raises(RuntimeError, match=words):
        await stage.call(stage.wire(FINE))


async def test_a_stream_ends_for_interceptors_and_circuit_when_it_ends(stage: Stage) -> None:
    notes: list[Any] = []
    breaker = stage.line.breaker = CircuitBreaker(failures=1, clock=stage.hands.now)
    stage.line.interceptors = (Notes("a", notes),)
    wire = stage.wire(FINE)
    running = flow(stage.line, Exchange(streamed=True))
    delivered = await stage.advance(wire, running)
    begun = list(notes)
    assert isinstance(delivered, Deliver)
    ended = await stage.advance(wire, running, CUT)

    assert delivered.value == "fine"
    assert isinstance(ended, Ended)
    assert (begun, notes) == ([("a", 1)], [("a", 1), ("a", "cut")])
    assert breaker.state is CircuitState.OPEN


async def test_a_stream_that_begins_badly_is_let_go_and_tried_again(stage: Stage) -> None:
    wire = stage.wire(AWAY, FINE)
    delivered = await stage.advance(wire, flow(stage.line, Exchange(streamed=True)))

    assert isinstance(delivered, Deliver)
    assert (delivered.value, wire.discarded) == ("fine", [AWAY])


async def test_a_long_stream_does_not_keep_a_circuit_half_open(stage: Stage) -> None:
    breaker = stage.line.breaker = CircuitBreaker(failures=1, open_for=1, clock=stage.hands.now)
    with pytest.raises(servicelink.ServiceUnavailable):
        await stage.call(stage.wire(CUT))
    stage.hands.seconds += 1
    await stage.advance(stage.wire(FINE), flow(stage.line, Exchange(streamed=True)))

    assert breaker.state is CircuitState.CLOSED


def test_a_line_made_of_another_with_a_breaker_of_its_own_uses_that_one(stage: Stage) -> None:
    before = stage.line.health(BINDING).breaker
    own = CircuitBreaker(failures=0)

    assert replace(stage.line, breaker=own).health(BINDING).breaker is own
    assert stage.line.health(BINDING).breaker is before
