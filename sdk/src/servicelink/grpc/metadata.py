"""The metadata of a call that came, read as headers are: the credential, what is carried on, what handlers may see."""

from collections.abc import Iterable
from functools import lru_cache

from servicelink.context import TIMEOUT_HEADER
from servicelink.headers import Heads, Kind, tell_kind
from servicelink.memo import Memo

MetadataPair = tuple[str, str | bytes]
_PLAIN, _CARRIED, _CREDENTIAL, _TWIN = Kind.PLAIN, Kind.CARRIED, Kind.CREDENTIAL, Kind.TWIN
_LONGEST_NAME = 64
_MOST_NAMES = 1024


class MetadataNames:
    """Reads metadata where the credential is under that key (in lower case, as all keys are)."""

    __slots__ = ("_kinds", "credential")

    def __init__(self, credential: str) -> None:
        self.credential = credential
        self._kinds: Memo[str, Kind] = Memo(
            lambda key: _kind_of(key, credential),
            wants=lambda key: len(key) <= _LONGEST_NAME,
            most=_MOST_NAMES,
        )

    def read(self, metadata: Iterable[MetadataPair], heads: "MetadataHeads") -> None:
        """Read what the metadata says into `heads`, once."""
        kinds, seen = self._kinds, 0
        kept: list[MetadataPair] = []
        carried: list[MetadataPair] = []
        problem: str | None = None
        heads.credential = None
        for pair in metadata:
            kind = kinds[pair[0]]
            if kind is _PLAIN:
                kept.append(pair)
            elif kind is _CARRIED:
                kept.append(pair)
                carried.append(pair)
            elif kind is _CREDENTIAL:
                seen += 1
                value = pair[1]
                heads.credential = value if isinstance(value, bytes) else value.encode()
            elif kind is _TWIN:
                seen += 1
                problem = "the credential came under a key that other programs read as another"
        if seen > 1:
            problem = "the credential came more than once"
        if problem is not None:
            heads.credential = None
        heads.problem = problem
        heads.shown = tuple(kept)
        heads.goes_on = carried


class MetadataHeads(Heads):
    """What the metadata of one call says: `shown` is what handlers may see, `goes_on` what goes on to other calls.

    Beside the credential and its problem nothing of other protocols' headers is set.
    """

    __slots__ = ("goes_on", "shown")

    shown: tuple[MetadataPair, ...]
    goes_on: list[MetadataPair]

    # What is not set costs nothing.
    __init__ = object.__init__


def _kind_of(key: str, credential: str) -> Kind:
    # A call's own deadline says how much time there is, and no header moves a call to another method.
    kind = tell_kind(key.encode(), credential)
    return Kind.PLAIN if key == TIMEOUT_HEADER or kind is Kind.OVERRIDE else kind


@lru_cache(maxsize=64)
def metadata_names(credential: str) -> MetadataNames:
    """Answer what reads the metadata of servers with that header; what it learnt of names holds for all of them."""
    return MetadataNames(credential)
