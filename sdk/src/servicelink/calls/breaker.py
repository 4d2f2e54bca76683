"""The circuit breaker of a link: after so many failures in a row nobody is sent for a while, then one on trial.

Attempts are counted, not calls: it stands inside the retry, and one call may make several.

One for each link of a process: what one caller has learnt the others need not learn again. Who asks gets a permit and
gives it back with what came of it; a permit that is given back with neither success nor failure frees its place, so
that a cancelled trial never keeps a link closed.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from servicelink.calls.options import require_number
from servicelink.forks import Lock

_log = logging.getLogger("servicelink")


class CircuitState(StrEnum):
    """Whether calls are sent: all, none, or one on trial."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True)
class CircuitChange:
    """A breaker went from one state to another."""

    link: str
    before: CircuitState
    now: CircuitState


Listener = Callable[[CircuitChange], None]


class CircuitBreaker:
    """Opens after `failures` attempts in a row have failed, retries included, for `open_for` seconds. Thread-safe.

    `failures=0` never opens. Raises ValueError for numbers below 0. Listeners are called by whoever caused the change,
    outside of the lock; what they raise is logged. `clock` is in monotonic seconds.
    """

    def __init__(
        self, link: str = "", *, failures: int = 5, open_for: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if not isinstance(failures, int) or failures < 0:
            raise ValueError(
                f"failures is {failures!r}; it is a number of attempts that fail in a row, and 0 never opens it"
            )
        require_number("open_for", open_for, "a number of seconds from 0")
        if not open_for >= 0:
            raise ValueError(f"open_for is {open_for!r}; it is a number of seconds from 0")
        self._link = link
        self._limit = failures
        self._open_for = open_for
        self._clock = clock
        self._lock = Lock()
        self._listeners: tuple[Listener, ...] = ()
        self._failed = 0
        self._last_failure = ""
        self._opened_at = 0.0
        self._state = CircuitState.CLOSED
        # Which trial may still say something: one that was started before a reset may not.
        self._trial: Permit | None = None

    @property
    def state(self) -> CircuitState:
        """What the next call will find."""
        if self._state is CircuitState.OPEN and self.retry_after() <= 0:
            return CircuitState.HALF_OPEN
        return self._state

    @property
    def last_failure(self) -> str:
        """How the last attempt failed, in words; "" where none has since the last success."""
        return self._last_failure

    def retry_after(self) -> float:
        """Answer in how many seconds a call may be sent on trial; 0 where one may be sent now."""
        if self._state is not CircuitState.OPEN:
            return 0.0
        return max(0.0, self._opened_at + self._open_for - self._clock())

    def configure(self, failures: int, open_for: float) -> None:
        """Take over other limits, as a link's binding says them."""
        self._limit, self._open_for = failures, open_for

    def add_listener(self, listener: Listener) -> None:
        """Tell of every change from now on."""
        with self._lock:
            self._listeners = (*self._listeners, listener)

    def admit(self) -> "Permit | None":
        """Answer a permit for one attempt, or None while the circuit is open; each is given back by `settle`."""
        if self._state is CircuitState.CLOSED:
            return Permit(self)
        with self._lock:
            before = self._state
            permit = self._admit()
            after = self._state
        self._tell(before, after)
        return permit

    def reset(self) -> None:
        """Close the circuit and forget all failures."""
        with self._lock:
            before, self._trial = self._state, None
            self._forget()
        self._tell(before, CircuitState.CLOSED)

    def _admit(self) -> "Permit | None":
        if self._state is CircuitState.CLOSED:
            return Permit(self)
        if self.retry_after() > 0 or self._is_on_trial():
            return None
        self._state, self._trial, self._opened_at = CircuitState.HALF_OPEN, Permit(self), self._clock()
        return self._trial

    def _is_on_trial(self) -> bool:
        # One that takes longer, such as a stream that says nothing yet, keeps nobody else from trying.
        return self._trial is not None and self._clock() - self._opened_at < self._open_for

    def _settle(self, permit: "Permit", *, failed: bool, succeeded: bool, problem: str) -> None:
        if self._state is CircuitState.CLOSED and not failed and not self._failed:
            return
        with self._lock:
            before = self._state
            self._note(permit, failed=failed, succeeded=succeeded, problem=problem)
            after = self._state
        self._tell(before, after)

    def _note(self, permit: "Permit", *, failed: bool, succeeded: bool, problem: str) -> None:
        on_trial = permit is self._trial
        if on_trial:
            self._trial = None
        elif self._state is not CircuitState.CLOSED:
            # Sent before it opened: what it learnt is old.
            return
        if failed:
            self._failed += 1
            self._last_failure = problem
            if on_trial or 0 < self._limit <= self._failed:
                self._state, self._opened_at = CircuitState.OPEN, self._clock()
        elif succeeded:
            self._forget()

    def _forget(self) -> None:
        self._failed, self._last_failure, self._state = 0, "", CircuitState.CLOSED

    def _tell(self, before: CircuitState, after: CircuitState) -> None:
        if before is after:
            return
        change = CircuitChange(self._link, before, after)
        for listener in self._listeners:
            try:
                listener(change)
            except Exception:  # noqa: BLE001 - whatever it is
                # An answer must not be lost, nor a trial, because of who looks on.
                _log.exception("a listener of the circuit breaker of %s failed", self._link)


class Permit:
    """Leave to make one attempt."""

    __slots__ = ("_breaker", "_open")

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._breaker = breaker
        self._open = True

    def settle(self, *, failed: bool = False, succeeded: bool = False, problem: str = "") -> None:
        """Say what came of it, once; neither counts neither way. `problem` says in words how it failed."""
        if self._open:
            self._open = False
            self._breaker._settle(self, failed=failed, succeeded=succeeded, problem=problem)  # noqa: SLF001 - its other half

    def fail(self, problem: str = "") -> None:
        """Say that what had begun well broke off later: a stream."""
        self._breaker._settle(self, failed=True, succeeded=False, problem=problem)  # noqa: SLF001 - its other half
