"""The verifier of a folder, followed as it changes."""

import datetime as dt
import time
from collections.abc import Callable
from pathlib import Path

from servicelink.folder import SwappedFolder
from servicelink.headers import Headers
from servicelink.verify.desk import NOTHING, VerifierIndex, plan_index
from servicelink.verify.verdicts import Call, Decision, Now, Peer, decide
from servicelink_contract.verifier import parse_verifier

_SHARDS = "shard-*.json"
# Bytes of shards from which on a verifier is read beside the calls: a megabyte takes some hundred milliseconds.
LARGE = 64 * 1024


def observe_index(folder: Path) -> VerifierIndex:
    """Read the verifier of a folder; one without shards refuses every call. Raises VerifierError, OSError."""
    shards = [path.read_text(encoding="utf-8") for path in sorted(folder.iterdir()) if path.match(_SHARDS)]
    return plan_index(parse_verifier(shards)) if shards else NOTHING


def _is_large(folder: Path) -> bool:
    return sum(path.stat().st_size for path in folder.glob(_SHARDS)) >= LARGE


class VerifierFiles:
    """The verifier in a folder, `/etc/servicelink/verifier/<service>` in a Pod, followed as it changes.

    Until there was something to read, and while the folder is empty, every call is refused; while what is there is not
    understood, the last good verifier decides. A large one is read in a thread, meanwhile the one before decides.
    `clock` is monotonic seconds, `now` the aware time of day.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Now = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        folder = Path(directory)
        self._files = SwappedFolder(folder, observe_index, pattern=_SHARDS, clock=clock, is_large=_is_large)
        self.now = now

    @property
    def problem(self) -> str | None:
        """Why the newest files could not be taken; None when they were."""
        return self._files.problem

    @property
    def header(self) -> str:
        """The name of the header that holds the credential, in lower case."""
        return self.current().header

    def current(self) -> VerifierIndex:
        """Answer the newest good verifier."""
        return self._files.current() or NOTHING

    def decide(self, headers: Headers, call: Call, peer: Peer | None = None) -> Decision:
        """Decide about a call by the newest good verifier."""
        return decide(self.current(), headers, call, now=self.now, peer=peer)
