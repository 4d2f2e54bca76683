"""The headers of a call that concern us: the credential, what is carried on, what the application must not see.

Names are told once each and remembered. `_` and `-` in one are the same: what CGI and WSGI cannot tell apart is one
header.
"""

from collections.abc import Iterable
from enum import Enum, auto

from servicelink.context import CARRIED
from servicelink.memo import Memo

OWN_PREFIX = "x-servicelink-"
# Some applications act on these instead of on what was judged: the request's own method and path.
OVERRIDES = frozenset(
    {
        *("x-http-method", "x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url"),
        # From peers that it trusts, its own machine unless told otherwise, gunicorn takes these for CGI's variables.
        *("script-name", "path-info"),
    }
)
_LONGEST_NAME = 64
_MOST_NAMES = 1024

Pair = tuple[bytes, bytes]
# As they came: names and values as bytes, in any case, twins and all.
Headers = Iterable[Pair]


class Kind(Enum):
    """What a header is to us."""

    PLAIN = auto()
    CREDENTIAL = auto()
    # The credential's in a spelling that other programs may read as another header.
    TWIN = auto()
    # What only we may say to the application.
    OWN = auto()
    CARRIED = auto()
    OVERRIDE = auto()


_PLAIN, _CREDENTIAL, _TWIN, _OWN, _OVERRIDE = Kind.PLAIN, Kind.CREDENTIAL, Kind.TWIN, Kind.OWN, Kind.OVERRIDE


class Heads:
    """What the headers of one call say.

    `kept` is what the application may see, `carried` what goes on to outgoing calls. `credential` is None where it was
    absent, or where `problem` says why it cannot be told. `overrides` tells of a header by which some applications
    change method or path.
    """

    __slots__ = ("carried", "credential", "kept", "overrides", "problem")

    def __init__(self) -> None:
        self.kept: list[Pair] = []
        self.carried: list[Pair] = []
        self.credential: bytes | None = None
        self.problem: str | None = None
        self.overrides = False


class HeaderNames:
    """Reads headers where the credential is in the one of that name (in lower case)."""

    __slots__ = ("_kinds",)

    def __init__(self, credential: str) -> None:
        self._kinds: Memo[bytes, Kind] = Memo(
            lambda name: tell_kind(name, credential), wants=lambda name: len(name) <= _LONGEST_NAME, most=_MOST_NAMES
        )

    def read(self, headers: Headers) -> Heads:
        """Read the headers of a call, each once."""
        kinds, heads, seen = self._kinds, Heads(), 0
        kept = heads.kept
        for pair in headers:
            kind = kinds[pair[0]]
            if kind is _PLAIN:
                kept.append(pair)
            elif kind is _CREDENTIAL:
                seen += 1
                heads.credential = pair[1]
            elif kind is _TWIN:
                seen += 1
                heads.problem = "the credential's header came in a spelling that other programs read as another header"
            elif kind is _OVERRIDE:
                kept.append(pair)
                heads.overrides = True
            elif kind is not _OWN:
                kept.append(pair)
                heads.carried.append(pair)
        if seen > 1:
            heads.problem = "the credential's header came more than once"
        if heads.problem is not None:
            heads.credential = None
        return heads


def normalise_header(name: str) -> str:
    """Answer a header's name in lower case with `-` for `_`."""
    return name.lower().replace("_", "-")


def tell_kind(raw: bytes, credential: str) -> Kind:
    """Say what a header of that name is where the credential is in the other (in lower case)."""
    name = raw.decode("latin-1").lower()
    normal = normalise_header(name)
    if normal == normalise_header(credential):
        return Kind.CREDENTIAL if name == credential else Kind.TWIN
    if normal.startswith(OWN_PREFIX):
        return Kind.OWN
    if normal in OVERRIDES:
        return Kind.OVERRIDE
    return Kind.CARRIED if name in CARRIED else Kind.PLAIN
