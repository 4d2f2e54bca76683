"""What the calls of one client stand on: where its link is found, what the link has gone through, who looks on."""

import random
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from servicelink import otel
from servicelink.binding import Binding, Source
from servicelink.calls.breaker import CircuitBreaker
from servicelink.calls.call import AsyncInterceptor, Interceptor
from servicelink.calls.limits import Pace, RetryBudget
from servicelink_contract.rules import Protocol

if TYPE_CHECKING:
    from servicelink.measures import MetricsSink


@dataclass(frozen=True, slots=True)
class Clock:
    """Where time and chance come from: monotonic seconds, seconds since 1970, a number from 0 to 1."""

    now: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    chance: Callable[[], float] = random.random


@dataclass(slots=True, weakref_slot=True, eq=False)
class Health:
    """What a process has learnt of one link: all its clients share it."""

    breaker: CircuitBreaker
    budget: RetryBudget = field(default_factory=RetryBudget)


# Gone with the last client of the link, so that nobody inherits what a closed client has seen.
_healths: "weakref.WeakValueDictionary[tuple[Protocol, str, str], Health]" = weakref.WeakValueDictionary()


def health_of(protocol: Protocol, binding: Binding, clock: Clock) -> Health:
    """Answer what this process knows of a link at an address, with the limits that its binding says."""
    key = (protocol, binding.link, binding.uri)
    health = _healths.get(key)
    if health is None:
        # Of two threads that come here at once, both get the one that was first.
        health = _healths.setdefault(key, Health(CircuitBreaker(binding.link, clock=clock.now)))
    health.breaker.configure(binding.limits.breaker_failures, binding.limits.breaker_open_for)
    return health


@dataclass(slots=True, eq=False)
class Line:
    """One client's way to its server. `breaker` is the application's own, in place of the link's.

    `probing` says that its calls only ask whether the server is there, so that an end in failure is expected.
    """

    protocol: Protocol
    source: Source
    interceptors: Sequence[Interceptor | AsyncInterceptor] = ()
    pace: Pace | None = None
    breaker: CircuitBreaker | None = None
    sink: "MetricsSink | None" = None
    clock: Clock = field(default_factory=Clock)
    probing: bool = False
    # Not for a line that is made of this one with another breaker or other interceptors.
    _known: tuple[Binding, Health, Health] | None = field(default=None, init=False)
    _traced: Sequence[Interceptor | AsyncInterceptor] | None = field(default=None, init=False)

    def wants_interceptors(self) -> Sequence[Interceptor | AsyncInterceptor]:
        """Answer who stands around an attempt; tracing innermost, once the application has loaded OpenTelemetry."""
        if self._traced is None:
            if not otel.is_loaded():
                return self.interceptors
            self._traced = (*self.interceptors, otel.Tracing())
        return self._traced

    def health(self, binding: Binding) -> Health:
        """Answer what is known of the link as it is bound now."""
        # One reference is read and written at once, whichever thread does it.
        known = self._known
        if known is not None and known[0] is binding:
            return known[1]
        shared = health_of(self.protocol, binding, self.clock)
        health = shared if self.breaker is None else Health(self.breaker, shared.budget)
        # The shared one as well: it is gone once nobody refers to it, and the next client would have another budget.
        self._known = (binding, health, shared)
        return health
