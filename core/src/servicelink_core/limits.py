"""Limits: what the links of one namespace may take of what all namespaces share.

A tenant beyond them does no harm but to itself: links that were accepted stay so, and later ones are told.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from servicelink_core.api.fields import Body

_BLOCKS = ("rest", "grpc", "graphql")


@dataclass(frozen=True, slots=True)
class Usage:
    """Links, their allow rules, and the bytes of their specs as JSON."""

    links: int = 0
    rules: int = 0
    bytes: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.links + other.links, self.rules + other.rules, self.bytes + other.bytes)

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(self.links - other.links, self.rules - other.rules, self.bytes - other.bytes)


# What an installation gives each namespace, unless it is told otherwise.
DEFAULT_QUOTA = Usage(links=1000, rules=5000, bytes=2 * 1024 * 1024)


@dataclass(frozen=True, slots=True)
class Excess:
    """What a namespace has more of than it may ("links", "rules", "bytes of specs"), and the setting that says so."""

    what: str
    most: int
    setting: str


@dataclass(frozen=True, slots=True)
class Claimant:
    """A link of a namespace; `rank` puts those first that keep what they have."""

    uid: str
    rank: tuple[bool, str, str]
    usage: Usage


def usage_of(spec: Body, size: int) -> Usage:
    """Answer what one link takes, also where it cannot be parsed; `size` are the bytes of its spec."""
    allowed = [(spec.get(name) or {}).get("allow") for name in _BLOCKS]
    return Usage(1, sum(len(rules) for rules in allowed if isinstance(rules, list)), size)


def exceeds(usage: Usage, quota: Usage) -> Excess | None:
    """Answer what is more than the quota; None where all fits."""
    for used, found in (
        (usage.links, Excess("links", quota.links, "maxLinksPerNamespace")),
        (usage.rules, Excess("rules", quota.rules, "maxRulesPerNamespace")),
        (usage.bytes, Excess("bytes of specs", quota.bytes, "maxBytesPerNamespace")),
    ):
        if used > found.most:
            return found
    return None


def plan_shares(claimants: Iterable[Claimant], quota: Usage) -> dict[str, Excess]:
    """Answer the links, by UID, that find no room any more; a small one may where a large one does not."""
    taken, refused = Usage(), {}
    for one in sorted(claimants, key=lambda claimant: claimant.rank):
        excess = exceeds(taken + one.usage, quota)
        if excess is None:
            taken += one.usage
        else:
            refused[one.uid] = excess
    return refused
