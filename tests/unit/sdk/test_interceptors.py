"""Interceptors stand around every attempt, and are told how it ended."""

import asyncio
import math
from collections.abc import AsyncGenerator, Generator
from typing import Any

import pytest
from flow_stage import AWAY, BINDING, CUT, FINE, Exchange, Stage
from sdk_worlds import WORLDS, Hands

import servicelink
from servicelink import Call, CircuitBreaker, CircuitState, Outcome, Protocol, sync
from servicelink.binding import FixedSource
from servicelink.calls.drive import Ended
from servicelink.calls.flow import Deliver, flow
from servicelink.calls.line import Line
from servicelink.calls.options import CallOptions
from servicelink.context import Incoming, incoming


@pytest.fixture(params=WORLDS)
def stage(request: pytest.FixtureRequest) -> Stage:
    hands = Hands()
    breaker = CircuitBreaker("shop/web", clock=hands.now)
    return Stage(request.param, hands, Line(Protocol.GRPC, FixedSource(BINDING), breaker=breaker, clock=hands.clock))


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


@pytest.mark.parametrize(
    ("wrong", "words"),
    [(Silent(), r"Silent\.intercept\(\) did not yield"), (Twice(), r"Twice\.intercept yielded more than once")],
)
async def test_an_interceptor_yields_once(stage: Stage, wrong: Any, words: str) -> None:
    stage.line.interceptors = (wrong,)

    with pytest.raises(RuntimeError, match=words):
        await stage.call(stage.wire(FINE))


class NoYield:
    """An interceptor whose method yields nowhere."""

    def intercept(self, call: Call) -> None:
        """Forget to yield."""


class AsyncNoYield:
    """As `NoYield`, asynchronously."""

    async def intercept(self, call: Call) -> None:
        """Forget to yield."""


class Counts:
    """An interceptor that leaves a number in the metadata."""

    def intercept(self, call: Call) -> Generator[None, Outcome, None]:
        """Leave it there."""
        call.metadata["x-attempt"] = call.attempt  # type: ignore[assignment] # the mistake
        yield


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (NoYield(), r"NoYield\.intercept\(\) returned NoneType and did not yield; .* outcome = yield"),
        (AsyncNoYield(), r"AsyncNoYield\.intercept\(\) returned coroutine and did not yield"),
        (Counts(), r"Counts set call\.metadata\['x-attempt'\] to a value of type int; names are str, and values str"),
    ],
)
async def test_a_mistake_in_an_interceptor_names_it_and_its_mend(stage: Stage, wrong: Any, words: str) -> None:
    notes: list[Any] = []
    stage.line.interceptors = (Notes("a", notes), wrong)
    wire = stage.wire(FINE)
    with pytest.raises(TypeError, match=words):
        await stage.call(wire)

    assert (wire.sent, notes) == ([], [("a", 1), ("a", "cancelled")])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Silent(), "interceptors is Silent and no list"),
        ([Silent], r"interceptors holds the class Silent; pass an instance: Silent\(...\)"),
        ([object()], "interceptors holds object, which has no method intercept"),
    ],
)
def test_what_is_no_interceptor_is_said_when_a_client_is_made(given: Any, words: str) -> None:
    makers: list[Any] = [servicelink.connect, servicelink.connect_graphql, servicelink.grpc_channel]
    for connect in [*makers, sync.connect, sync.connect_graphql, sync.grpc_channel]:
        with pytest.raises(TypeError, match=words):
            connect("users", interceptors=given)


def test_an_asynchronous_interceptor_is_named_when_a_synchronous_client_is_made() -> None:
    with pytest.raises(TypeError, match=r"AsyncNotes\.intercept is asynchronous"):
        sync.connect("users", interceptors=[AsyncNotes("a", [])])


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


class Endless:
    """An asynchronous interceptor that never ends once it knows how the attempt ended."""

    async def intercept(self, call: Call) -> AsyncGenerator[None, Outcome]:
        """Wait for ever."""
        yield
        await asyncio.Event().wait()


class Impatient:
    """An asynchronous interceptor whose own time limit is over, before or after the attempt."""

    def __init__(self, *, before: bool) -> None:
        self._before = before

    async def intercept(self, call: Call) -> AsyncGenerator[None, Outcome]:
        """Give up."""
        if not self._before:
            yield
        raise TimeoutError("the audit log is slow")


@pytest.fixture
def asynchronous() -> Stage:
    hands = Hands()
    return Stage("asynchronous", hands, Line(Protocol.GRPC, FixedSource(BINDING), clock=hands.clock))


async def test_an_answer_is_not_lost_to_an_interceptor_that_takes_too_long_over_it(
    asynchronous: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    notes: list[Any] = []
    monkeypatch.setattr("servicelink.calls.flow._LAST_WORDS", 0.01)
    asynchronous.line.interceptors = (Notes("a", notes), Endless())

    assert await asynchronous.call(asynchronous.wire(FINE), Exchange(CallOptions(timeout=0.01))) == "fine"
    assert notes == [("a", 1), ("a", "answered")]
    assert "an interceptor took more than 0.01 s" in caplog.text


class Slow:
    """An asynchronous interceptor that never lets the attempt begin."""

    async def intercept(self, call: Call) -> AsyncGenerator[None, Outcome]:
        """Wait for ever."""
        await asyncio.Event().wait()
        yield


@pytest.mark.parametrize(
    ("left", "advice"), [(math.inf, "timeout=, or look why it is slow"), (0.01, "where that is made")]
)
async def test_time_that_an_interceptor_took_is_to_be_asked_for_where_it_came_from(
    asynchronous: Stage, left: float, advice: str
) -> None:
    asynchronous.line.interceptors = (Slow(),)
    token = incoming.set(Incoming(deadline=asynchronous.hands.now() + left))
    timeout = 0.01 if left == math.inf else None
    with pytest.raises(servicelink.ServiceTimeout, match="an interceptor took all the time") as late:
        await asynchronous.call(asynchronous.wire(), Exchange(CallOptions(timeout=timeout)))
    incoming.reset(token)

    assert advice in late.value.next_step


@pytest.mark.parametrize("before", [True, False])
async def test_a_time_limit_of_an_interceptors_own_is_its_own_error(asynchronous: Stage, *, before: bool) -> None:
    asynchronous.line.interceptors = (Impatient(before=before),)

    with pytest.raises(TimeoutError, match="audit log"):
        await asynchronous.call(asynchronous.wire(FINE))
