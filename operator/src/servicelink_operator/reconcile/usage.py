"""What the links of each namespace take, kept up to date link by link, and which of them find no room."""

from collections import defaultdict
from collections.abc import Callable, Iterable

from servicelink_core.limits import Claimant, Excess, Usage, exceeds, plan_shares, usage_of
from servicelink_operator.cluster.cache import Object
from servicelink_operator.reconcile.packed import is_accepted, unpack_spec


class UsageBook:
    """Counts for each namespace; the links without room are looked for only where a count is above the quota."""

    def __init__(self, quota: Usage) -> None:
        self._quota = quota
        self._used: defaultdict[str, Usage] = defaultdict(Usage)
        self._refused: dict[str, dict[str, Excess]] = {}

    def changed(self, old: Object | None, new: Object | None) -> None:
        """Take in that a link came, changed or went; also a status counts, since it says what has been accepted."""
        namespace = (new or old or {})["metadata"]["namespace"]
        self._refused.pop(namespace, None)
        if old is not None:
            self._used[namespace] -= _usage_of(old)
        if new is not None:
            self._used[namespace] += _usage_of(new)
        if not self._used[namespace].links:
            del self._used[namespace]

    def is_crowded(self, namespace: str) -> bool:
        """Answer whether the links of a namespace take more than they may."""
        return namespace in self._used and exceeds(self._used[namespace], self._quota) is not None

    def find_excess(self, body: Object, of_namespace: Callable[[], Iterable[Object]]) -> Excess | None:
        """Answer for what a link finds no room, among the links of its namespace; these are asked for if need be."""
        metadata = body["metadata"]
        namespace = metadata["namespace"]
        if not self.is_crowded(namespace):
            return None
        if namespace not in self._refused:
            self._refused[namespace] = plan_shares(map(_claimant, of_namespace()), self._quota)
        return self._refused[namespace].get(metadata["uid"])


def _usage_of(body: Object) -> Usage:
    return usage_of(unpack_spec(body), len(body["spec"]))


def _claimant(body: Object) -> Claimant:
    metadata = body["metadata"]
    return Claimant(
        metadata["uid"], (not is_accepted(body), metadata["creationTimestamp"], metadata["name"]), _usage_of(body)
    )
