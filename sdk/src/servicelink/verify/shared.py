"""One key that all callers share, or several while it is being changed: what stands in where there is no operator."""

import datetime as dt
import hmac
from collections.abc import Iterable

from servicelink.headers import HeaderNames, Headers, Heads
from servicelink.verify.verdicts import Allowed, Call, Code, Decision, Desk, Now, Peer, Refused, decide
from servicelink_contract.binding import DEFAULT_HEADER
from servicelink_contract.rules import GraphQLRequest

# The link's name where one key is shared by all callers.
SHARED_KEY = "shared key"


class _SharedDesk:
    """Who has one of the keys; all who have are alike, and no certificate is one."""

    header = DEFAULT_HEADER
    graphql_path = "/graphql"
    trust = ""
    wants_body = False
    identity = Allowed(SHARED_KEY, "", "")

    def __init__(self, keys: tuple[bytes, ...]) -> None:
        self._keys = keys
        self._allowed = Decision(self.identity, enforced=True, header=self.header)
        self.names = HeaderNames(self.header)

    def authenticate(self, heads: Heads, peer: Peer | None, now: Now) -> "_SharedDesk | Decision":  # noqa: ARG002 - a desk's
        given = heads.credential
        if given is None:
            return self._unknown(heads.problem or "no credential came")
        # Every key is compared, so that the time taken does not tell which one was nearly right.
        fits = [hmac.compare_digest(key, given) for key in self._keys]
        return self if any(fits) else self._unknown("the credential is no shared key")

    def decide(self, method: str, path: str) -> Decision:  # noqa: ARG002 - there are no rules
        return self._allowed

    def decide_rpc(self, path: str) -> Decision:  # noqa: ARG002 - as above
        return self._allowed

    def decide_graphql(self, operations: Iterable[GraphQLRequest]) -> Decision:  # noqa: ARG002 - as above
        return self._allowed

    def refuse(self, reason: str) -> Decision:
        refused = Refused(Code.PERMISSION_DENIED, reason, SHARED_KEY, "")
        return Decision(refused, enforced=True, header=self.header)

    def _unknown(self, reason: str) -> Decision:
        refused = Refused(Code.INVALID_SERVICE_AUTH, reason)
        return Decision(refused, enforced=True, header=self.header)


class SharedKeys:
    """One key for all callers, or several while it is being changed; always enforced.

    Raises ValueError for no keys and for an empty one, which everybody would have.
    """

    header = DEFAULT_HEADER

    def __init__(self, keys: Iterable[str]) -> None:
        given = tuple(key.encode() for key in keys)
        if not given or not all(given):
            raise ValueError("at least one shared key is needed, and no empty one")
        self._desk = _SharedDesk(given)

    @staticmethod
    def now() -> dt.datetime:
        """Answer the time of day."""
        return dt.datetime.now(dt.UTC)

    def current(self) -> Desk:
        """Answer these keys."""
        return self._desk

    def decide(self, headers: Headers, call: Call, peer: Peer | None = None) -> Decision:
        """Decide about a call: any, from whoever has a key."""
        return decide(self._desk, headers, call, now=self.now, peer=peer)
