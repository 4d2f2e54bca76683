"""What lives in memory only: what Secrets said (they are not watched), what the API server refused, and pacing.

All of it can be lost at any time: it is read again, asked again, or waited for again.
"""

import datetime as dt
from collections import defaultdict, deque
from dataclasses import dataclass, field

from servicelink_core.api.links import ServiceRef
from servicelink_core.rotation import BindingFacts, SecretView
from servicelink_operator.reconcile.keys import Key

SERVER_PAUSE = 1.0
# A link that is gone may be the first of many. So many within so many seconds are looked at together, once none has
# gone for so long.
FIRST_QUIET = 1.0
CROWD = 10
CROWD_SECONDS = 10.0
CROWD_QUIET = 3.0
CROWD_PATIENCE = 60.0
WORKLOAD_QUIET = 0.3
WORKLOAD_PATIENCE = 3.0
STATUS_PATIENCE = 2.0


@dataclass(slots=True)
class Memory:
    """Facts by link UID; refusals by key; times in seconds of the event loop, except `read_at`.

    `left_out` are the links for which a verifier has no room, `crowded` those for which their namespace has none, and
    `paced` says of a workload why its change waits.
    """

    secrets: dict[str, SecretView | BindingFacts] = field(default_factory=dict)
    read_at: dict[str, dt.datetime] = field(default_factory=dict)
    refusals: dict[Key, str] = field(default_factory=dict)
    conflicts: set[ServiceRef] = field(default_factory=set)
    left_out: dict[ServiceRef, frozenset[str]] = field(default_factory=dict)
    crowded: defaultdict[str, set[Key]] = field(default_factory=lambda: defaultdict(set))
    paced: dict[Key, str] = field(default_factory=dict)
    _unsettled: dict[str, tuple[int, float]] = field(default_factory=dict)
    _written: dict[Key, float] = field(default_factory=dict)
    _rung: dict[Key, tuple[float, float]] = field(default_factory=dict)
    _vanished: deque[float] = field(default_factory=deque)
    _crowd_since: float | None = None

    def secret_of(self, uid: str) -> SecretView | BindingFacts:
        """Answer what is known of a link's Secret."""
        return self.secrets.get(uid, SecretView.UNREAD)

    def forget_link(self, uid: str) -> None:
        """Drop what is remembered of a link that is gone."""
        for memory in (self.secrets, self.read_at, self._unsettled):
            memory.pop(uid, None)

    def vanished(self, now: float) -> None:
        """Note that a link is gone."""
        self._vanished.append(now)

    def vanishing_pause(self, now: float) -> float:
        """Answer how long to wait until it is clear how many links are gone at once."""
        count = self.crowd(now)
        if count < CROWD:
            self._crowd_since = None
            return max(0.0, self._vanished[-1] + FIRST_QUIET - now) if count else 0.0
        self._crowd_since = self._vanished[0] if self._crowd_since is None else self._crowd_since
        return max(0.0, min(self._vanished[-1] + CROWD_QUIET, self._crowd_since + CROWD_PATIENCE) - now)

    def crowd(self, now: float) -> int:
        """Answer how many links have vanished of late."""
        while self._vanished and self._vanished[0] < now - CROWD_SECONDS:
            self._vanished.popleft()
        return len(self._vanished)

    def status_pause(self, uid: str, generation: int, now: float) -> float:
        """Answer how long to wait yet before a status without an outcome is written; 0 is now."""
        known, since = self._unsettled.get(uid, (generation, now))
        if known != generation:
            since = now
        self._unsettled[uid] = (generation, since)
        return max(0.0, since + STATUS_PATIENCE - now)

    def told(self, uid: str, generation: int, now: float) -> None:
        """Remember that a status without an outcome was written; the next one has time again."""
        self._unsettled[uid] = (generation, now)

    def settled(self, uid: str) -> None:
        """Remember that a link has its outcome."""
        self._unsettled.pop(uid, None)

    def server_pause(self, key: Key, now: float) -> float:
        """Answer how long a server's next write must wait: the first goes at once, the others a second apart."""
        return max(0.0, self._written.get(key, now - SERVER_PAUSE) + SERVER_PAUSE - now)

    def server_written(self, key: Key, now: float) -> None:
        """Remember when a server was written."""
        self._written[key] = now

    def ring_workload(self, key: Key, now: float) -> float:
        """Note that a workload's key was rung, and answer when to look at it: after some quiet, but not for ever."""
        first, _ = self._rung.get(key, (now, now))
        self._rung[key] = (first, now)
        return self.workload_pause(key, now)

    def workload_pause(self, key: Key, now: float) -> float:
        """Answer how long a workload must wait yet for quiet."""
        if key not in self._rung:
            return 0.0
        first, last = self._rung[key]
        return max(0.0, min(last + WORKLOAD_QUIET, first + WORKLOAD_PATIENCE) - now)

    def workload_looked_at(self, key: Key) -> None:
        """Begin a new time of quiet."""
        self._rung.pop(key, None)
