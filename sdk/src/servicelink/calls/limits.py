"""What keeps a client from doing harm: a rate at which it calls, and a budget out of which it tries again."""

import math
from bisect import insort
from dataclasses import dataclass

from servicelink.calls.options import require_number
from servicelink.forks import Lock

BUDGET_TOKENS = 10.0
TOKENS_PER_SUCCESS = 0.1


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `calls` in `per` seconds; as many may go at once. Raises ValueError for numbers that are not above 0."""

    calls: int
    per: float = 1.0

    def __post_init__(self) -> None:
        require_number("calls", self.calls, "a number of calls above 0")
        require_number("per", self.per, "a number of seconds above 0")
        if not self.calls > 0:
            raise ValueError(f"calls is {self.calls!r}; a rate limit is a number of calls above 0")
        if not 0 < self.per < math.inf:
            raise ValueError(f"per is {self.per!r}; a rate limit is for a number of seconds above 0")


class Pace:
    """Says when the next call may go (GCRA: one time stands for all that went before). Thread-safe."""

    def __init__(self, limit: RateLimit) -> None:
        self._apart = limit.per / limit.calls
        # A millionth more, since sums of such fractions come out a little above or below.
        self._burst = limit.per - self._apart * (1 - 1e-6)
        self._lock = Lock()
        self._next = 0.0
        # Turns that were given back while later ones were taken already, the first one first.
        self._free: list[float] = []

    def reserve(self, now: float, longest: float) -> float | None:
        """Answer how many seconds to wait; None, and nothing is reserved, where that takes `longest` or more."""
        with self._lock:
            while self._free and self._free[0] < now:
                del self._free[0]
            due = max(self._next, now)
            wait = self._free[0] - now if self._free else max(0.0, due - self._burst - now)
            if wait and wait >= longest:
                return None
            if self._free:
                del self._free[0]
            else:
                self._next = due + self._apart
        return wait

    def give_back(self, turn: float) -> None:
        """Let another call go at the time at which one should have gone that waited and will not."""
        with self._lock:
            insort(self._free, turn)
            # The last turn, and those before it that nobody has any more, are as if they had never been taken.
            while self._free and self._free[-1] > self._next - self._burst - 1.5 * self._apart:
                self._next -= self._apart
                del self._free[-1]

    def take(self, now: float) -> float:
        """Answer 0 where a call may go now, and count it; else in how many seconds one may, and nothing is counted."""
        with self._lock:
            due = max(self._next, now)
            wait = max(0.0, due - self._burst - now)
            if not wait:
                self._next = due + self._apart
        return wait


class RetryBudget:
    """Ten tokens; another attempt takes one, a success gives a tenth back. Thread-safe.

    So a server that fails for everybody sees a tenth more calls, not three times as many.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._tokens = BUDGET_TOKENS

    @property
    def tokens(self) -> float:
        """How many there are."""
        return self._tokens

    def deposit(self) -> None:
        """Count a success."""
        if self._tokens < BUDGET_TOKENS:
            with self._lock:
                self._tokens = min(BUDGET_TOKENS, self._tokens + TOKENS_PER_SUCCESS)

    def withdraw(self) -> bool:
        """Take a token; answers False where there is none."""
        with self._lock:
            if self._tokens < 1:
                return False
            self._tokens -= 1
        return True
