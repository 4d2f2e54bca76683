"""A circuit opens after attempts in a row that failed, lets one call try, and says when it changes."""

import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sdk_worlds import Hands

from servicelink import CircuitBreaker, CircuitChange, CircuitState, RateLimit, Result
from servicelink.calls.limits import Pace


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        permit = breaker.admit()
        assert permit is not None
        permit.settle(failed=True)


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def breaker(hands: Hands) -> CircuitBreaker:
    return CircuitBreaker("shop/web", failures=3, open_for=10, clock=hands.now)


def test_it_opens_after_failures_in_a_row_only(breaker: CircuitBreaker) -> None:
    fail(breaker, 2)
    permit = breaker.admit()
    assert permit is not None
    permit.settle(succeeded=True)
    fail(breaker, 2)
    closed = breaker.state
    fail(breaker)

    assert (closed, breaker.state, breaker.admit()) == (CircuitState.CLOSED, CircuitState.OPEN, None)


def test_what_speaks_neither_way_counts_neither_way(breaker: CircuitBreaker) -> None:
    fail(breaker, 2)
    permit = breaker.admit()
    assert permit is not None
    permit.settle()
    fail(breaker)

    assert breaker.state is CircuitState.OPEN


def test_one_call_is_on_trial_at_a_time(breaker: CircuitBreaker, hands: Hands) -> None:
    fail(breaker, 3)
    hands.seconds += 10
    trial = breaker.admit()
    meanwhile = breaker.admit()
    assert trial is not None
    trial.settle()

    assert meanwhile is None
    assert breaker.admit() is not None


def test_a_trial_that_takes_longer_than_the_circuit_stays_open_keeps_nobody_from_trying(
    breaker: CircuitBreaker, hands: Hands
) -> None:
    fail(breaker, 3)
    hands.seconds += 10
    slow = breaker.admit()
    hands.seconds += 9
    early = breaker.admit()
    hands.seconds += 1
    second = breaker.admit()
    assert slow is not None
    assert second is not None
    slow.settle(failed=True)
    second.settle(succeeded=True)

    assert early is None
    assert breaker.state is CircuitState.CLOSED


def test_a_trial_that_fails_opens_it_for_as_long_again(breaker: CircuitBreaker, hands: Hands) -> None:
    fail(breaker, 3)
    hands.seconds += 10
    fail(breaker)

    assert (breaker.state, breaker.retry_after()) == (CircuitState.OPEN, 10)


def test_what_was_sent_before_it_opened_neither_closes_nor_prolongs_it(breaker: CircuitBreaker, hands: Hands) -> None:
    late, later = breaker.admit(), breaker.admit()
    assert late is not None
    assert later is not None
    fail(breaker, 3)
    hands.seconds += 5
    late.settle(succeeded=True)
    later.settle(failed=True)

    assert (breaker.state, breaker.retry_after()) == (CircuitState.OPEN, 5)


def test_a_permit_is_settled_once(breaker: CircuitBreaker) -> None:
    permit = breaker.admit()
    assert permit is not None
    for _ in range(5):
        permit.settle(failed=True)

    assert breaker.state is CircuitState.CLOSED


def test_listeners_are_told_of_changes_and_reset_closes(breaker: CircuitBreaker, hands: Hands) -> None:
    changes: list[CircuitChange] = []
    breaker.add_listener(changes.append)
    fail(breaker, 3)
    hands.seconds += 10
    trial = breaker.admit()
    breaker.reset()
    assert trial is not None
    trial.settle(failed=True)

    states = [(change.before.value, change.now.value) for change in changes]
    assert states == [("closed", "open"), ("open", "half-open"), ("half-open", "closed")]
    assert changes[0].link == "shop/web"
    assert breaker.state is CircuitState.CLOSED


def test_a_listener_that_fails_is_logged_and_neither_keeps_others_from_hearing_nor_loses_the_trial(
    breaker: CircuitBreaker, hands: Hands, caplog: pytest.LogCaptureFixture
) -> None:
    changes: list[CircuitChange] = []

    def fail_to_page(change: CircuitChange) -> None:
        raise RuntimeError("the pager is down")

    breaker.add_listener(fail_to_page)
    breaker.add_listener(changes.append)
    fail(breaker, 3)
    hands.seconds += 10
    trial = breaker.admit()
    assert trial is not None
    trial.settle(succeeded=True)

    assert [change.now.value for change in changes] == ["open", "half-open", "closed"]
    assert breaker.state is CircuitState.CLOSED
    assert caplog.text.count("a listener of the circuit breaker of shop/web failed") == 3


def test_zero_failures_never_open_it(hands: Hands) -> None:
    breaker = CircuitBreaker(failures=0, clock=hands.now)
    fail(breaker, 100)

    assert breaker.state is CircuitState.CLOSED


def run(threads: int, work: Callable[[], None]) -> None:
    running = [threading.Thread(target=work) for _ in range(threads)]
    for one in running:
        one.start()
    for one in running:
        one.join()


def test_of_many_threads_one_is_on_trial(breaker: CircuitBreaker, hands: Hands) -> None:
    fail(breaker, 3)
    hands.seconds += 10
    admitted: list[object] = []
    gate = threading.Barrier(8)

    def ask() -> None:
        gate.wait()
        admitted.extend(permit for _ in range(200) if (permit := breaker.admit()) is not None)

    run(8, ask)

    assert len(admitted) == 1


def test_only_the_servers_failings_count() -> None:
    failures = {result for result in Result if result.is_failure}
    neither = {result for result in Result if not result.is_failure and not result.is_success}

    assert failures == {Result.BROKEN, Result.AWAY, Result.UNSENT, Result.CUT, Result.TIMEOUT}
    assert neither == {Result.THROTTLED, Result.CANCELLED}


def test_a_rate_lets_a_burst_go_and_then_one_after_the_other() -> None:
    pace = Pace(RateLimit(calls=3, per=3.0))
    waits = [pace.reserve(0.0, 100.0) for _ in range(5)]

    assert waits == pytest.approx([0.0, 0.0, 0.0, 1.0, 2.0], abs=1e-5)
    assert pace.reserve(0.0, 2.9) is None
    assert pace.reserve(0.0, 3.1) == pytest.approx(3.0)
    assert pace.reserve(50.0, 0.0) == 0.0


def test_a_rate_of_many_threads_is_one_rate() -> None:
    pace = Pace(RateLimit(calls=100, per=1.0))
    allowed: list[float] = []

    def ask() -> None:
        allowed.extend(wait for _ in range(100) if (wait := pace.reserve(0.0, 0.0)) is not None)

    run(8, ask)

    assert len(allowed) == 100


@pytest.mark.parametrize(
    ("calls", "per", "words"),
    [(0, 1.0, "calls is 0;"), (-1, 1.0, "calls is -1;"), (1, 0.0, r"per is 0\.0;"), (1, math.nan, "per is nan;")],
)
def test_a_rate_that_is_none_is_an_error(calls: int, per: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RateLimit(calls, per)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"failures": -1}, "failures is -1; .* 0 never opens it"),
        ({"failures": 1.5}, r"failures is 1\.5;"),
        ({"open_for": math.nan}, "open_for is nan;"),
        ({"open_for": -1.0}, r"open_for is -1\.0; it is a number of seconds from 0"),
    ],
)
def test_a_circuit_that_could_never_open_or_close_as_it_says_is_an_error(bad: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CircuitBreaker("shop/web", **bad)
