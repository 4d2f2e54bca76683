"""How many calls, how they ended and how long they took: counted always, read when asked.

Labels are link, protocol and result: all bounded. Operations hold paths, of which there is no end; who wants them
writes a `MetricsSink`.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any
from typing import Protocol as Interface

from servicelink import forks
from servicelink_contract.rules import Protocol

# Seconds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
MAX_ROWS = 4096
OTHERS = "(others)"
CALLS = (
    "servicelink_client_call_seconds",
    "Calls over links: how they ended, and how long they took with all attempts.",
)
RESENDS = ("servicelink_client_resends_total", "Attempts after the first of a call.")


@dataclass(frozen=True, slots=True)
class Measured:
    """A finished call. `result` is how it ended: a `Result`, or an error's name such as CircuitOpen.

    `status` is that of the last answer (None: there was none), `seconds` with all attempts; a stream's until its end.
    """

    link: str
    protocol: Protocol
    operation: str
    result: str
    status: int | None
    attempts: int
    seconds: float


class MetricsSink(Interface):
    """Where a client's measurements go beside the process's own count: `connect(name, metrics=sink)`."""

    def record(self, measured: Measured) -> None:
        """Take note of a finished call; called by whoever made the call, so it must be quick."""


@dataclass(frozen=True, slots=True)
class CallRow:
    """What a number counts."""

    link: str
    protocol: Protocol
    result: str


@dataclass(frozen=True, slots=True)
class CallCount:
    """How many calls, seconds of all of them, further attempts, and calls by upper bound of their seconds."""

    calls: int
    seconds: float
    resends: int
    buckets: Mapping[float, int]


@dataclass(slots=True)
class _Cell:
    calls: int = 0
    seconds: float = 0.0
    resends: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))


class CallTally:
    """Counts calls; thread-safe and bounded: past 4096 rows further ones count under the link "(others)".

    A forked child begins at zero.
    """

    def __init__(self, *, max_rows: int = MAX_ROWS) -> None:
        self._lock = forks.Lock()
        self._max_rows = max_rows
        self.renew()
        forks.renew_in_children(self)

    def renew(self) -> None:
        """Begin at zero."""
        self._cells: dict[tuple[str, Protocol, str], _Cell] = {}

    def record(self, measured: Measured) -> None:
        """Count a call."""
        key = measured.link, measured.protocol, measured.result
        with self._lock:
            cell = self._cells.get(key) or self._open(key)
            cell.calls += 1
            cell.seconds += measured.seconds
            cell.resends += measured.attempts - 1
            cell.buckets[bisect_left(BUCKETS, measured.seconds)] += 1

    def _open(self, key: tuple[str, Protocol, str]) -> _Cell:
        if len(self._cells) >= self._max_rows:
            key = (OTHERS, *key[1:])
        return self._cells.setdefault(key, _Cell())

    def counts(self) -> Mapping[CallRow, CallCount]:
        """Answer the numbers as they are now."""
        with self._lock:
            found = {CallRow(*key): _counted(cell) for key, cell in self._cells.items()}
        return MappingProxyType(found)


def _counted(cell: _Cell) -> CallCount:
    sums = [sum(cell.buckets[: place + 1]) for place in range(len(BUCKETS))]
    return CallCount(cell.calls, cell.seconds, cell.resends, MappingProxyType(dict(zip(BUCKETS, sums, strict=True))))


PROCESS = CallTally()


class _Registered:
    collector: Any = None


def metrics() -> Mapping[CallRow, CallCount]:
    """Answer the numbers of this process; with prometheus-client they are in its default registry from now on.

    Calls are counted from the start of the process, whether or not this is ever called.
    """
    if _Registered.collector is None and find_spec("prometheus_client") is not None:
        from prometheus_client import REGISTRY  # noqa: PLC0415 - an application's choice

        _Registered.collector = PrometheusCollector()
        REGISTRY.register(_Registered.collector)
    return PROCESS.counts()


class PrometheusCollector:
    """The numbers as prometheus-client collects them; for a registry of your own."""

    def __init__(self, tally: CallTally = PROCESS) -> None:
        self._tally = tally

    def describe(self) -> Iterable[Any]:
        """Answer nothing: otherwise registering would collect."""
        return ()

    def collect(self) -> Iterator[Any]:
        """Answer the metric families."""
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily  # noqa: PLC0415 - as above

        calls = HistogramMetricFamily(*CALLS, labels=("link", "protocol", "result"))
        resends = CounterMetricFamily(*RESENDS, labels=("link", "protocol", "result"))
        for row, count in self._tally.counts().items():
            labels = (row.link, str(row.protocol), row.result)
            bounds = [*((f"{bound:g}", number) for bound, number in count.buckets.items()), ("+Inf", count.calls)]
            calls.add_metric(labels, bounds, count.seconds)
            resends.add_metric(labels, count.resends)
        yield calls
        yield resends
