"""The verifier of a folder, followed as it changes."""

import datetime as dt
import time
from collections.abc import Callable
from pathlib import Path

from servicelink.folder import SwappedFolder
from servicelink.headers import Headers
from servicelink.verify.desk import NOTHING, VerifierIndex, plan_index
from servicelink.verify.verdicts import Call, Decision, Now, Peer, decide
from servicelink_contract.rules import Protocol
from servicelink_contract.verifier import parse_verifier

_SHARDS = "shard-*.json"
# Bytes of shards from which on a verifier is read beside the calls: a megabyte takes some hundred milliseconds.
LARGE = 64 * 1024
# As the protocol of a link; where GraphQL is served is said in every verifier.
_GRAPHQL = f'"{Protocol.GRAPHQL}"'.encode()


def observe_index(folder: Path) -> VerifierIndex:
    """Read the verifier of a folder; one without shards refuses every call. Raises VerifierError, OSError."""
    shards = [path.read_text(encoding="utf-8") for path in sorted(folder.iterdir()) if path.match(_SHARDS)]
    return plan_index(parse_verifier(shards)) if shards else NOTHING


def _is_large(folder: Path) -> bool:
    return sum(path.stat().st_size for path in folder.glob(_SHARDS)) >= LARGE


def _names_graphql(folder: Path) -> bool:
    return any(_GRAPHQL in path.read_bytes() for path in folder.glob(_SHARDS))


class VerifierFiles:
    """The verifier in a folder, `/etc/servicelink/verifier/<service>` in a Pod, followed as it changes.

    Until there was something to read, and while the folder is empty, every call is refused; while what is there is not
    understood, the last good verifier decides. A large one is read in a thread, meanwhile the one before decides.
    `load_graphql`, which may take long, is called once, before the first verifier with a GraphQL link decides, in such
    a thread too. `clock` is monotonic seconds, `now` the aware time of day.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Now = lambda: dt.datetime.now(dt.UTC),
        load_graphql: Callable[[], None] | None = None,
    ) -> None:
        folder = Path(directory)
        self._files = SwappedFolder(folder, self._observe, pattern=_SHARDS, clock=clock, is_large=self._is_slow)
        # None once it was called.
        self._load_graphql = load_graphql
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

    def _observe(self, folder: Path) -> VerifierIndex:
        load = self._load_graphql
        if load is not None and _names_graphql(folder):
            load()
            self._load_graphql = None
        return observe_index(folder)

    def _is_slow(self, folder: Path) -> bool:
        return _is_large(folder) or (self._load_graphql is not None and _names_graphql(folder))

    def decide(self, headers: Headers, call: Call, peer: Peer | None = None) -> Decision:
        """Decide about a call by the newest good verifier."""
        return decide(self.current(), headers, call, now=self.now, peer=peer)
