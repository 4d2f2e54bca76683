"""What there is to decide about a call, who may decide, and what comes of it."""

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol as Interface

from servicelink.headers import HeaderNames, Headers, Heads
from servicelink_contract.rules import GraphQLRequest

OVERRIDDEN = "a header names another method or path than the request"


class Code(StrEnum):
    """Why a call is refused, as callers see it."""

    INVALID_SERVICE_AUTH = "INVALID_SERVICE_AUTH"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    RATE_LIMITED = "RATE_LIMITED"


@dataclass(frozen=True, slots=True)
class Allowed:
    """A call that may pass: `link` is namespace/name, `uid` the link's, `kid` that of the key it came with.

    With a certificate `kid` is its serial number in hexadecimal digits. With a shared key `link` is "shared key", and
    `uid` and `kid` are empty.
    """

    link: str
    uid: str
    kid: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A call that may not pass, and why, in words for the server's log.

    `link` and `kid` are there only where the credential was verified (the code is then another than
    INVALID_SERVICE_AUTH). `retry_after` is in seconds, and says when a link that called too often may call again.
    """

    code: Code
    reason: str
    link: str | None = None
    kid: str | None = None
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict, and whether the server acts on it (Enforce) or only counts it (Audit).

    `header` names the header that was read, in lower case: it must not go on to the application.
    """

    verdict: Allowed | Refused
    enforced: bool
    header: str

    @property
    def passes(self) -> bool:
        """Whether the call goes on to the application."""
        return isinstance(self.verdict, Allowed) or not self.enforced

    @property
    def identity(self) -> Allowed | None:
        """Who calls, for the application; None where the call was not verified and allowed, also in Audit."""
        return self.verdict if isinstance(self.verdict, Allowed) else None


@dataclass(frozen=True, slots=True)
class RestCall:
    """A REST call as received: the method as sent, the path not decoded and without its query."""

    method: str
    path: str


@dataclass(frozen=True, slots=True)
class RpcCall:
    """A gRPC call as received: its path, which is `/<service>/<method>`."""

    path: str


Call = RestCall | RpcCall


@dataclass(frozen=True, slots=True)
class Peer:
    """What the certificate says that a client proved to have, read by whoever holds the connection.

    `uris` are those among its subject alternative names, `serial` its number in hexadecimal digits; valid from
    `not_before` until `not_after` (aware times). `roots` are the SHA-256, in hexadecimal digits, of the root that
    vouched for it when the connection began, or of all that may have: the verifier tells whether they still may.
    Whoever tells that by itself leaves them empty, and says in `problem` why the certificate is not trusted now.
    """

    uris: tuple[str, ...]
    serial: str
    not_before: dt.datetime
    not_after: dt.datetime
    problem: str | None = None
    roots: frozenset[str] = frozenset()


Now = Callable[[], dt.datetime]


class Known(Interface):
    """Somebody whose credential is accepted."""

    @property
    def wants_body(self) -> bool:
        """Whether some of its calls are judged by what they ask for, by `decide_graphql`."""

    @property
    def identity(self) -> Allowed:
        """Who it is, which does not say what it may do."""

    def decide(self, method: str, path: str) -> Decision:
        """Decide about a REST call; the path is not decoded."""

    def decide_rpc(self, path: str) -> Decision:
        """Decide about a gRPC call by its path."""

    def decide_graphql(self, operations: Iterable[GraphQLRequest]) -> Decision:
        """Decide about GraphQL operations, all of which must be allowed."""

    def refuse(self, reason: str) -> Decision:
        """Answer that a call of its is denied."""


class Desk(Interface):
    """One generation of what a server accepts."""

    @property
    def header(self) -> str:
        """The name of the header that holds the credential, in lower case."""

    @property
    def names(self) -> HeaderNames:
        """Reads the headers of calls."""

    @property
    def graphql_path(self) -> str:
        """Where GraphQL is served."""

    @property
    def trust(self) -> str:
        """The roots that vouch for clients' certificates, as PEM, "" for none."""

    def authenticate(self, heads: Heads, peer: Peer | None, now: Now) -> Known | Decision:
        """Answer who calls, or the decision that it is nobody known; `peer` is the certificate, None without one."""


class Guard(Interface):
    """Who decides for a server."""

    @property
    def now(self) -> Now:
        """The time of day, aware of its zone."""

    @property
    def header(self) -> str:
        """The name of the header that holds the credential, in lower case."""

    def current(self) -> Desk:
        """Answer what is accepted now."""

    def decide(self, headers: Headers, call: Call, peer: Peer | None = None) -> Decision:
        """Decide about one call, now; `peer` is the client's certificate, None where it proved none."""


def decide(desk: Desk, headers: Headers, call: Call, *, now: Now, peer: Peer | None = None) -> Decision:
    """Decide about a call: who calls, then whether the link's rules and the policy's cap allow it.

    A key decides where one came, right or wrong; the certificate where none did.
    """
    heads = desk.names.read(headers)
    known = desk.authenticate(heads, peer, now)
    if isinstance(known, Decision):
        return known
    if isinstance(call, RpcCall):
        return known.decide_rpc(call.path)
    return known.refuse(OVERRIDDEN) if heads.overrides else known.decide(call.method, call.path)
