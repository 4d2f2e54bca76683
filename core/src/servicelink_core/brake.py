"""The brake: an entry of a verifier goes because somebody took its link or consent away, not because they vanished.

A deleted definition takes every link of the cluster with it; a prune of the wrong folder takes most of them. Calls that
were declared must outlive both, so what may be an accident is held: until the link comes back and has a key of its own,
or until the operator's owner confirms (the setting `confirm_removals`). What goes with its namespace, or is one
deletion among others, goes at once; also while another tenant's links vanish.
"""

import datetime as dt
from dataclasses import dataclass, replace

from servicelink_contract.verifier import LinkEntry

# Fewer at a time are people's work.
FEWEST = 10


@dataclass(frozen=True, slots=True)
class Removals:
    """What decides whether entries may go.

    `installation` names the installed definitions of our kinds, "" where the operator may not read them; None says that
    one is missing or being deleted. `vanished` counts the entries without a link that are not held, `living` the links;
    `emptied` are the namespaces that have lost most of theirs. What is in `departing` namespaces, which are being
    deleted or gone, was meant. `confirmed`: what has been held since before then may go.
    """

    installation: str | None = ""
    vanished: int = 0
    living: int = 0
    emptied: frozenset[str] = frozenset()
    departing: frozenset[str] = frozenset()
    confirmed: dt.datetime | None = None

    def holds(self, namespace: str) -> bool:
        """Say whether so many links are gone at once that those of this namespace rather went by accident."""
        return self.vanished >= FEWEST and self.vanished > self.living and namespace in self.emptied


def may_go(entry: LinkEntry, removals: Removals) -> bool:
    """Say whether the entry of a link that is gone may go, too."""
    namespace = entry.link.partition("/")[0]
    if namespace in removals.departing:
        return True
    if entry.held_since is not None:
        return removals.confirmed is not None and entry.held_since <= removals.confirmed
    return not removals.holds(namespace) and is_of(entry, removals.installation)


def is_of(entry: LinkEntry, installation: str | None) -> bool:
    """Say whether an entry is of the installed definitions, as far as it can be known."""
    if installation is None:
        return False
    return "" in (installation, entry.installation) or entry.installation == installation


def hold(entry: LinkEntry, now: dt.datetime) -> LinkEntry:
    """Answer the entry marked as held."""
    return entry if entry.held_since is not None else replace(entry, held_since=now)
