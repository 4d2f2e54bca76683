"""The metadata of a call that came, read as headers are: the credential, what is carried on, what handlers may see."""

from collections.abc import Iterable
from functools import lru_cache

from servicelink.context import TIMEOUT_HEADER
from servicelink.headers import Heads, Kind, tell_kind
from servicelink.memo import Memo

MetadataPair = tuple[str, str | bytes]
_HIDDEN = frozenset({Kind.CREDENTIAL, Kind.TWIN, Kind.OWN})
_LONGEST_NAME = 64
_MOST_NAMES = 1024


class MetadataNames:
    """Reads metadata where the credential is under that key (in lower case, as all keys are)."""

    __slots__ = ("_kinds",)

    def __init__(self, credential: str) -> None:
        self._kinds: Memo[str, Kind] = Memo(
            lambda key: tell_kind(key.encode(), credential),
            wants=lambda key: len(key) <= _LONGEST_NAME,
            most=_MOST_NAMES,
        )

    def read(self, metadata: Iterable[MetadataPair]) -> tuple[Heads, tuple[MetadataPair, ...]]:
        """Answer what the metadata says to us, and what of it is the handler's."""
        kinds, heads, seen = self._kinds, Heads(), 0
        kept = []
        for pair in metadata:
            kind = kinds[pair[0]]
            if kind is Kind.PLAIN:
                kept.append(pair)
            elif kind not in _HIDDEN:
                kept.append(pair)
                # A call's own deadline says how much time there is, and not a header for servers that know none.
                if kind is Kind.CARRIED and pair[0] != TIMEOUT_HEADER:
                    heads.carried.append((pair[0].encode(), _raw(pair[1])))
            elif kind is Kind.CREDENTIAL:
                seen += 1
                heads.credential = _raw(pair[1])
            elif kind is Kind.TWIN:
                seen += 1
                heads.problem = "the credential came under a key that other programs read as another"
        if seen > 1:
            heads.problem = "the credential came more than once"
        if heads.problem is not None:
            heads.credential = None
        return heads, tuple(kept)


def _raw(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


@lru_cache(maxsize=64)
def metadata_names(credential: str) -> MetadataNames:
    """Answer what reads the metadata of servers with that header; what it learnt of names holds for all of them."""
    return MetadataNames(credential)
