"""One call, from its options to its answer, as a generator that does no I/O.

It yields what is to be done and is sent what came of it; `drive` does it, asynchronously or not. Outermost first:
deadline, rate limit, then for each attempt retry budget, breaker, credential, interceptors, and the attempt itself.
What differs between REST, gRPC and GraphQL is in their `Exchange` and their wires.
"""

import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Generator
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeAlias, TypeVar
from typing import Protocol as Interface

from servicelink.binding import Binding
from servicelink.calls.breaker import Permit
from servicelink.calls.call import CANCELLED, Call, Metadata, Outcome, Result
from servicelink.calls.failures import MORE_TIME, find_server, tell_end, where
from servicelink.calls.interceptors import name_of, not_a_generator, require_texts
from servicelink.calls.line import Health, Line
from servicelink.calls.options import CallOptions, countable
from servicelink.calls.report import Report, fields
from servicelink.calls.retry import LONGEST_RETRY_AFTER, pause_before
from servicelink.context import TIMEOUT_HEADER, deadline_of_incoming
from servicelink.errors import CircuitOpen, RateLimited, ServiceError, ServiceTimeout

_log = logging.getLogger("servicelink")
T = TypeVar("T")
# Seconds in which an asynchronous interceptor may take note of an end that left no time.
_LAST_WORDS = 1.0
# The share of a limit after which it was that limit that ended an attempt, however coarse the timers are.
_NEARLY = 0.8
# The share of the client's own time limit that tells a server that hangs from a caller in a hurry.
_ENOUGH = 0.5
_LEFT_NO_MORE = "The call that is being served leaves it no more time: ask for more where that is made"


@dataclass(slots=True, eq=False)
class Send:
    """Make one attempt within `limit` seconds, and be sent its Outcome; a wire keeps the limit itself.

    The credential is in `binding` and joins the attempt on the wire. A stream's outcome is how it began; later `idle`
    seconds may pass between two pieces of it.
    """

    call: Call
    binding: Binding
    limit: float
    idle: float


@dataclass(slots=True, eq=False)
class Sleep:
    """Wait so many seconds."""

    seconds: float


@dataclass(slots=True, eq=False)
class Deliver:
    """Hand a stream that has begun as `outcome` to the caller, and be sent the Outcome with which it ended."""

    call: Call
    outcome: Outcome
    value: Any


@dataclass(slots=True, eq=False)
class Discard:
    """Let go of a stream that has begun and that nobody will read."""

    outcome: Outcome


class OutOfTimeError(TimeoutError):
    """What was awaited took longer than it may; any other TimeoutError is its own."""


@dataclass(slots=True, eq=False)
class Await:
    """Await this for at most `limit` seconds, and be sent what it answers; asynchronous clients only.

    OutOfTimeError is thrown in where it takes longer.
    """

    awaitable: Awaitable[Any] = field(repr=False)
    limit: float


Step: TypeAlias = Send | Sleep | Deliver | Discard | Await
Flow: TypeAlias = Generator[Step, Any, T]
Result_co = TypeVar("Result_co", covariant=True)


class Exchange(Interface, Generic[Result_co]):
    """One call of one protocol: how it is addressed, whether it can be sent twice, what its caller gets.

    `call` is there from `open` on.
    """

    @property
    def options(self) -> CallOptions:
        """What its caller said."""

    @property
    def is_replayable(self) -> bool:
        """Whether what is sent can be sent again."""

    def open(self, binding: Binding, deadline: float, timeout: float) -> Call:
        """Address the call, once more if the binding's URI changes; raises ServiceError for what must not be sent."""

    def complete(self, outcome: Outcome) -> Outcome:
        """Answer the outcome with what only the body of its answer tells; asked for where there are interceptors."""

    def conclude(self, call: Call, outcome: Outcome) -> Result_co:
        """Answer what the caller gets, or raise a ServiceError."""


Interception: TypeAlias = Generator[None, Outcome, None] | AsyncGenerator[None, Outcome]


def flow(line: Line, exchange: Exchange[T]) -> Flow[T]:
    """Make a call; raises ServiceError."""
    binding = line.source.current()
    clock = line.clock
    started = clock.now()
    options, limits = exchange.options, binding.limits
    timeout = limits.timeout if options.timeout is None else options.timeout
    own = started + timeout
    deadline = min(own, deadline_of_incoming())
    call = exchange.open(binding, deadline, deadline - started)
    report = Report(line, call, started)
    try:
        if line.pace is not None:
            yield from _take_turn(line, call)
        enough = timeout * _ENOUGH if deadline < own else 0.0
        attempts = _Attempts(line, exchange, call, binding=binding, idle=timeout, enough=enough)
        outcome, delivered = yield from attempts.run()
        report.outcome = outcome
    except BaseException as error:
        report.error = error
        raise
    finally:
        report.close()
    return exchange.conclude(call, outcome) if not delivered else None  # type: ignore[return-value] # nobody reads it


def _take_turn(line: Line, call: Call) -> Flow[None]:
    assert line.pace is not None
    now = line.clock.now()
    wait = line.pace.reserve(now, call.deadline - now)
    if wait is None:
        raise RateLimited(
            "its turn under the client's own rate limit comes after its time limit",
            **where(call, "Call less often, ask for more time with timeout=, or raise rate_limit="),
        )
    if wait > 0:
        try:
            yield Sleep(wait)
        except BaseException:
            line.pace.give_back(now + wait)
            raise


class _Attempts(Generic[T]):
    """The attempts of one call.

    One that had `enough` seconds and timed out is the server's failure; 0 where the time limit is the client's own.
    """

    def __init__(
        self, line: Line, exchange: Exchange[T], call: Call, *, binding: Binding, idle: float, enough: float
    ) -> None:
        self._line = line
        self._exchange = exchange
        self._call = call
        self._binding = binding
        self._idle = countable(idle)
        self._enough = enough
        self._metadata: Metadata = call.metadata
        self._interceptors = line.wants_interceptors()
        self._retried = 0
        self._resent = False
        options, limits = exchange.options, binding.limits
        self._retries = limits.retries if options.retries is None else options.retries
        self._attempt_timeout = math.inf if options.attempt_timeout is None else options.attempt_timeout

    def run(self) -> Flow[tuple[Outcome, bool]]:
        """Answer how the last attempt ended, and whether its stream was handed over."""
        while True:
            health = self._line.health(self._binding)
            if self._remaining() <= 0:
                # Nobody's failure but the caller's: it came too late.
                problem = "there was no time left to send it"
                return Outcome(Result.TIMEOUT, problem=problem, advice=self._advise(0.0)), False
            permit = health.breaker.admit()
            if permit is None:
                raise self._not_admitted(health)
            outcome, pause, delivered = yield from self._attempt(health, permit)
            if pause is None:
                return outcome, delivered
            self._tell_next(outcome, pause)
            if pause > 0:
                yield Sleep(pause)
            self._prepare_next()

    def _tell_next(self, outcome: Outcome, pause: float) -> None:
        if _log.isEnabledFor(logging.DEBUG):
            call, text = self._call, "%s %s: attempt %d: %s; again in %.2f s"
            _log.debug(text, call.link, call.operation, call.attempt, tell_end(outcome), pause, extra=fields(call))

    def _not_admitted(self, health: Health) -> CircuitOpen:
        seconds, last = health.breaker.retry_after(), health.breaker.last_failure
        found = CircuitOpen(
            f"not called: too many attempts in a row failed{f' (last: {last})' if last else ''}; "
            f"next trial in {seconds:.1f} s",
            **where(self._call, f"{find_server(self._call)}; breaker.reset() closes the circuit"),
        )
        found.retry_after = seconds
        return found

    def _attempt(self, health: Health, permit: Permit) -> Flow[tuple[Outcome, float | None, bool]]:
        """Make one attempt; answers its outcome, the pause before the next (None: none), whether it was handed over."""
        call, outcome, delivered = self._call, CANCELLED, False
        running: list[Interception] = []
        try:
            if self._interceptors:
                yield from self._begin(running)
            limit = self._stamp_limit()
            sent = self._line.clock.now()
            outcome = yield Send(call, self._binding, limit, self._idle)
            if outcome.result is Result.TIMEOUT:
                outcome = self._explain(self._weigh(outcome, limit), limit, self._line.clock.now() - sent)
            pause = self._plan_next(health, outcome)
            if call.streamed and outcome.response is not None:
                value = None if pause is not None else self._conclude_stream(outcome)
                if value is None:
                    yield Discard(outcome)
                else:
                    _settle(health, permit, outcome)
                    delivered = True
                    outcome = yield Deliver(call, outcome, value)
                    if _speaks_against(outcome):
                        permit.fail(tell_end(outcome))
        finally:
            if not delivered:
                _settle(health, permit, outcome)
            if running:
                outcome = self._exchange.complete(outcome)
                yield from _end(running, call, outcome, self._remaining())
        return outcome, pause, delivered

    def _weigh(self, outcome: Outcome, limit: float) -> Outcome:
        """Answer the outcome of an attempt that timed out in `limit` seconds, with whether it is the server's doing.

        Time that somebody else set may be too short for a server that is well: whoever may set it would otherwise open
        the circuit for everybody. What is left of a limit like the client's own is not: where all tiers of a chain have
        the same, those in the middle would otherwise call a server that hangs for ever.
        """
        return replace(outcome, blameless=True) if limit < min(self._enough, self._attempt_timeout) else outcome

    def _explain(self, outcome: Outcome, limit: float, waited: float) -> Outcome:
        """Answer the outcome of an attempt that was too late, with the limit that it ran into and what helps."""
        if waited < limit * _NEARLY:
            # By none of the attempt's: a piece of its body had less time, or the server's own time was over.
            advice = "Look why the server is slow; a piece of a body has as much time as write_timeout= says"
            return replace(outcome, advice=advice)
        seconds = self._call.timeout if limit < self._attempt_timeout else limit
        return replace(outcome, problem=f"{outcome.problem} ({round(seconds, 3):g} s)", advice=self._advise(limit))

    def _advise(self, limit: float) -> str:
        if limit >= self._attempt_timeout:
            return "Ask for more time with attempt_timeout=, or look why the server is slow"
        if self._enough:
            return _LEFT_NO_MORE
        return MORE_TIME

    def _conclude_stream(self, outcome: Outcome) -> T | None:
        """Answer what the caller gets of a stream that has begun, None for an error."""
        try:
            return self._exchange.conclude(self._call, outcome)
        except ServiceError:
            # The flow concludes once more at its end, and raises it then.
            return None

    def _remaining(self) -> float:
        return self._call.deadline - self._line.clock.now()

    def _stamp_limit(self) -> float:
        """Answer the seconds for this attempt, and tell the server of them: the deadline travels."""
        call = self._call
        limit = countable(min(self._attempt_timeout, self._remaining()))
        if 0 < limit < math.inf and not call.streamed:
            call.metadata[TIMEOUT_HEADER] = str(math.ceil(limit * 1000))
        return limit

    def _begin(self, running: list[Interception]) -> Flow[None]:
        call = self._call
        self._metadata, call.metadata = call.metadata, dict(call.metadata)
        for interceptor in self._interceptors:
            interception = interceptor.intercept(call)
            try:
                if isinstance(interception, AsyncGenerator):
                    yield Await(anext(interception), max(0.0, self._remaining()))
                elif isinstance(interception, Generator):
                    next(interception)
                else:
                    raise not_a_generator(interceptor, interception)
            except (StopIteration, StopAsyncIteration):
                raise RuntimeError(f"{name_of(interceptor)}.intercept() did not yield") from None
            except OutOfTimeError:
                problem = "an interceptor took all the time there was"
                step = _LEFT_NO_MORE if self._enough else "Ask for more time with timeout=, or look why it is slow"
                raise ServiceTimeout(problem, **where(call, step)) from None
            running.append(interception)
            require_texts(interceptor, call.metadata)

    def _plan_next(self, health: Health, outcome: Outcome) -> float | None:
        """Answer the seconds until the next attempt, None for none."""
        if outcome.result is Result.ANSWERED:
            return None
        if not self._exchange.is_replayable:
            return None
        if outcome.result is Result.REFUSED:
            return self._plan_resend()
        if not outcome.result.is_transient or not self._call.idempotent or self._retried >= self._retries:
            return None
        pause = outcome.retry_after
        if pause is None:
            pause = pause_before(self._retried + 1, self._line.clock.chance())
        if pause > LONGEST_RETRY_AFTER or pause >= self._remaining() or not health.budget.withdraw():
            return None
        self._retried += 1
        return pause

    def _plan_resend(self) -> float | None:
        """A credential that was rotated meanwhile is used at once: the refusal says that nothing was executed."""
        if self._resent:
            return None
        fresh, refused = self._line.source.reload(), self._binding
        if (fresh.credential, fresh.tls) == (refused.credential, refused.tls):
            return None
        self._resent = True
        return 0.0

    def _prepare_next(self) -> None:
        call, before = self._call, self._binding
        self._binding = self._line.source.current()
        if self._interceptors:
            call.metadata = self._metadata
        call.attempt += 1
        call.kid = self._binding.kid
        if self._binding.uri != before.uri:
            call.message = self._exchange.open(self._binding, call.deadline, call.timeout).message


def _settle(health: Health, permit: Permit, outcome: Outcome) -> None:
    result = outcome.result
    if result is Result.ANSWERED:
        health.budget.deposit()
    if _speaks_against(outcome):
        permit.settle(failed=True, problem=tell_end(outcome))
    else:
        permit.settle(succeeded=result.is_success)


def _speaks_against(outcome: Outcome) -> bool:
    return outcome.result.is_failure and not outcome.blameless


def _end(running: list[Interception], call: Call, outcome: Outcome, limit: float) -> Flow[None]:
    """Tell the interceptors how the attempt ended, the innermost first; all are told, whatever one of them raises."""
    problem: BaseException | None = None
    limit = max(limit, _LAST_WORDS)
    for interception in reversed(running):
        try:
            if isinstance(interception, AsyncGenerator):
                yield Await(interception.asend(outcome), limit)
            else:
                interception.send(outcome)
        except (StopIteration, StopAsyncIteration):
            continue
        except OutOfTimeError:
            # An answer that is there must not be lost: its caller would do once more what was done.
            text = "%s %s: an interceptor took more than %g s after the attempt, and was cancelled"
            _log.warning(text, call.link, call.operation, limit)
        except Exception as error:  # noqa: BLE001 - raised below, once all were told
            problem = problem or error
        else:
            name = getattr(interception, "__qualname__", "an interceptor")
            problem = problem or RuntimeError(f"{name} yielded more than once")
    if problem is not None:
        raise problem
