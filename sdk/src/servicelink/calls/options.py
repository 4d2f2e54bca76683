"""What an application may say of one call or of all calls of a client."""

import math
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import Any, Self

# Seconds.
_YEAR = 31_536_000.0


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What holds for a call; None: what the client says, then what the link's binding says.

    `timeout` is seconds for a whole call, retries and body included; for a stream until it begins, then between two
    pieces. `attempt_timeout` is seconds for one attempt. `retries` counts further attempts. `idempotent` says that
    doing it twice does no harm.
    """

    timeout: float | None = None
    attempt_timeout: float | None = None
    retries: int | None = None
    idempotent: bool | None = None

    def __post_init__(self) -> None:
        for name in ("timeout", "attempt_timeout"):
            require_seconds(name, getattr(self, name))
        if self.retries is not None and (not isinstance(self.retries, int) or self.retries < 0):
            raise ValueError(f"retries is {self.retries!r}; it is a number of further attempts, from 0")

    def over(self, other: Self) -> Self:
        """Answer these options, and the other's where these say nothing."""
        said = {one.name: value for one in fields(self) if (value := getattr(self, one.name)) is not None}
        return replace(other, **said) if said else other


def require_number(name: str, value: Any, meaning: str) -> None:
    """Raise TypeError for an argument that is no number."""
    if not isinstance(value, Real):
        raise TypeError(f"{name} is of {type(value).__name__}; it is {meaning}")


def require_seconds(name: str, seconds: Any) -> None:
    """Raise TypeError or ValueError for an argument that is neither a number of seconds above 0 nor None."""
    if seconds is None:
        return
    require_number(name, seconds, "a number of seconds above 0")
    if not seconds > 0:
        raise ValueError(f"{name} is {seconds!r}; it is a number of seconds above 0")


def countable(seconds: float) -> float:
    """Answer a limit as engines and systems can count it: more than a year is none."""
    return seconds if seconds <= _YEAR else math.inf
