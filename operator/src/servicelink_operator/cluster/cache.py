"""The newest known state of one kind, ordered by resourceVersion, with indices.

Three sources write here: lists, watch events, and the answers to our own writes, which arrive before or after the
events they cause. Within a kind, resourceVersions are integers that only grow (KEP-5504), which settles every race: an
object is replaced only by a newer version, and an answer to a write is passed over if the watch is already past its
version and the object is not there, since then it was deleted in between.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import Any

Object = dict[str, Any]
Place = tuple[str, str]
OnChange = Callable[[Object | None, Object | None], None]
KeysOf = Callable[[Object], Iterable[Hashable]]


def place_of(found: Object) -> Place:
    """Answer (namespace, name), the namespace "" where it has none."""
    metadata = found["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def version_of(found: Object) -> int:
    """Answer the resourceVersion of an object or list as a number."""
    return int(found["metadata"]["resourceVersion"])


class Cache:
    """Objects of one kind by (namespace, name); `on_change(old, new)` is called after each change, None for absent."""

    def __init__(self, on_change: OnChange) -> None:
        self._on_change = on_change
        self._objects: dict[Place, Object] = {}
        self._versions: dict[Place, int] = {}
        self._indices: dict[str, tuple[KeysOf, dict[Hashable, dict[Place, Object]]]] = {}
        # Deleted by ourselves, by UID; the deletion's event is still to come.
        self._forgotten: dict[Place, str] = {}
        # How far lists and events have come.
        self.version = 0

    def index(self, name: str, keys_of: KeysOf) -> None:
        """Declare an index, before anything is stored."""
        assert not self._objects, "an index is declared before the cache is filled"
        self._indices[name] = (keys_of, {})

    def find(self, place: Place) -> Object | None:
        """Answer the object at a place."""
        return self._objects.get(place)

    def __len__(self) -> int:
        return len(self._objects)

    def items(self) -> Iterable[Object]:
        """Answer all objects, as of now."""
        return tuple(self._objects.values())

    def by_index(self, name: str, key: Hashable) -> tuple[Object, ...]:
        """Answer the objects that have this key, by namespace and name."""
        found = self._indices[name][1].get(key)
        if found is None:
            return ()
        return tuple(found[place] for place in sorted(found)) if len(found) > 1 else tuple(found.values())

    def observe(self, found: Object) -> None:
        """Take in an object that a list or an event showed."""
        place, metadata = place_of(found), found["metadata"]
        # One that is kept by a finalizer still exists, whatever we asked for.
        if self._forgotten.get(place) == metadata["uid"] and "deletionTimestamp" not in metadata:
            return
        if self._versions.get(place, -1) < version_of(found):
            self._put(place, found)

    def observe_deletion(self, last: Object) -> None:
        """Take in the event of a deletion, `last` with the version at which it happened."""
        place = place_of(last)
        if self._forgotten.get(place) == last["metadata"]["uid"]:
            del self._forgotten[place]
        if self._versions.get(place, version_of(last) + 1) <= version_of(last):
            self._drop(place)

    def store(self, answer: Object) -> None:
        """Take in the answer to a write of ours, which may be older than what is known by now."""
        if place_of(answer) in self._objects or version_of(answer) > self.version:
            self.observe(answer)

    def forget(self, place: Place, uid: str) -> None:
        """Take in a deletion of ours, before its event."""
        known = self._objects.get(place)
        if known is not None and known["metadata"]["uid"] == uid:
            self._forgotten[place] = uid
            self._drop(place)

    def replace(self, listed: frozenset[Place], version: int) -> None:
        """Drop what a complete list of that version does not have, except what is newer than it."""
        for place in [place for place in self._objects if place not in listed]:
            if self._versions[place] <= version:
                self._drop(place)
        self._forgotten = {place: uid for place, uid in self._forgotten.items() if place in listed}
        self.version = version

    def rewind(self) -> None:
        """Take whatever comes next as newer than what is known: versions started anew, as after a restored backup."""
        self._versions = dict.fromkeys(self._versions, 0)
        self.version = 0

    def _put(self, place: Place, new: Object) -> None:
        old = self._objects.get(place)
        self._unindex(place, old)
        self._objects[place] = new
        self._versions[place] = version_of(new)
        for keys_of, entries in self._indices.values():
            for key in keys_of(new):
                entries.setdefault(key, {})[place] = new
        self._on_change(old, new)

    def _drop(self, place: Place) -> None:
        old = self._objects.pop(place)
        del self._versions[place]
        self._unindex(place, old)
        self._on_change(old, None)

    def _unindex(self, place: Place, old: Object | None) -> None:
        if old is None:
            return
        for keys_of, entries in self._indices.values():
            for key in keys_of(old):
                entries.get(key, {}).pop(place, None)
                if not entries.get(key):
                    entries.pop(key, None)
