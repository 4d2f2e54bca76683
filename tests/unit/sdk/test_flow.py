"""The flow of a call, told what came of each attempt: no socket, no clock, both drivers."""

import asyncio
import math
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest
from flow_stage import AWAY, BINDING, CUT, FINE, REFUSED, Exchange, Sent, Stage
from sdk_worlds import WORLDS, Hands

import servicelink
from servicelink import CircuitBreaker, CircuitState, Outcome, Protocol, Result
from servicelink.binding import Binding, Credential, FixedSource, Limits
from servicelink.calls.flow import Deliver, flow
from servicelink.calls.line import Line
from servicelink.calls.options import CallOptions
from servicelink.calls.retry import parse_retry_after
from servicelink.context import Incoming, incoming


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


@pytest.mark.parametrize(
    ("options", "left", "waited", "words"),
    [
        (CallOptions(timeout=2.0), None, 2.0, r"in time \(2 s\) .*with timeout="),
        (CallOptions(attempt_timeout=0.1), None, 0.1, r"in time \(0\.1 s\) .*with attempt_timeout="),
        (CallOptions(), 0.3, 0.3, r"in time \(0\.3 s\) .*call that is being served"),
        # Not by any limit of the attempt's: a piece of its body had less time, or the server had.
        (CallOptions(timeout=4.0), None, 1.0, r"in time \(request r-1\).*write_timeout="),
        (CallOptions(), 0.0, 0.0, r"no time left to send it \(request r-1\).*call that is being served"),
        (CallOptions(timeout=math.inf), None, 9.0, r"in time \(request r-1\)"),
    ],
)
async def test_a_call_that_is_too_late_says_by_which_limit_and_what_helps(
    stage: Stage, *, options: CallOptions, left: float | None, waited: float, words: str
) -> None:
    def wait() -> Outcome:
        stage.hands.seconds += waited
        return TOO_LATE

    deadline = math.inf if left is None else stage.hands.now() + left
    token = incoming.set(Incoming(deadline=deadline))
    with pytest.raises(servicelink.ServiceTimeout, match=words):
        await stage.call(stage.wire(wait), Exchange(options, idempotent=False))
    incoming.reset(token)


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


@pytest.mark.parametrize("own", [True, False])
def test_clients_of_a_link_share_its_budget_whatever_their_circuits(*, own: bool) -> None:
    lines = [
        Line(Protocol.REST, FixedSource(BINDING), breaker=CircuitBreaker() if own else None),
        Line(Protocol.REST, FixedSource(BINDING)),
    ]
    first, second = (line.health(BINDING) for line in lines)

    assert first.budget is second.budget
    assert (first.breaker is second.breaker) is not own


def test_a_circuit_has_the_limits_that_the_links_binding_says() -> None:
    hands = Hands()
    binding = replace(BINDING, link="shop/strict", limits=Limits(breaker_failures=2, breaker_open_for=7.0))
    line = Line(Protocol.REST, FixedSource(binding), clock=hands.clock)
    states = []
    for _ in range(2):
        permit = line.health(binding).breaker.admit()
        assert permit is not None
        permit.settle(failed=True)
        states.append(line.health(binding).breaker.state)

    assert states == [CircuitState.CLOSED, CircuitState.OPEN]
    assert line.health(binding).breaker.retry_after() == 7.0
