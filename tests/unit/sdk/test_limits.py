"""What keeps clients from doing harm: the budget for retries, and the rate at which they call."""

import asyncio
import math

import pytest
from flow_stage import AWAY, BINDING, FINE, Exchange, Stage
from sdk_worlds import WORLDS, Hands

import servicelink
from servicelink import CircuitBreaker, Protocol
from servicelink.binding import FixedSource
from servicelink.calls.limits import Pace, RateLimit, RetryBudget
from servicelink.calls.line import Line
from servicelink.calls.options import CallOptions


@pytest.fixture(params=WORLDS)
def stage(request: pytest.FixtureRequest) -> Stage:
    hands = Hands()
    breaker = CircuitBreaker("shop/web", clock=hands.now)
    return Stage(request.param, hands, Line(Protocol.GRPC, FixedSource(BINDING), breaker=breaker, clock=hands.clock))


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
