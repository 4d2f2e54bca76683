"""Informers of some namespaces, read as if there were one of all: for an operator with Roles and no ClusterRole.

A Role cannot grant to list or watch Namespaces; it can grant to get the one that it is in. So these are asked for by
name, in turns.
"""

import asyncio
from collections.abc import Hashable, Iterable, Mapping
from itertools import chain
from typing import Any

from servicelink_operator.cluster.api import Api
from servicelink_operator.cluster.cache import KeysOf, Object, place_of
from servicelink_operator.cluster.errors import ForbiddenError, NotFoundError
from servicelink_operator.cluster.informers import Informer
from servicelink_operator.cluster.kinds import NAMESPACE, Kind

# Labels decide about consent; a namespace's end is also told by the API server's refusals.
_TURN_SECONDS = 15.0


class ScopedInformer:
    """The informers of one kind by namespace, as one."""

    def __init__(self, kind: Kind, informers: Mapping[str, Informer]) -> None:
        self.kind = kind
        self._informers = informers

    def __len__(self) -> int:
        return sum(map(len, self._informers.values()))

    def find(self, namespace: str, name: str) -> Object | None:
        """Answer the object of that name, None where there is none or the namespace is out of scope."""
        informer = self._informers.get(namespace)
        return None if informer is None else informer.find(namespace, name)

    def items(self) -> Iterable[Object]:
        """Answer all objects."""
        return tuple(chain.from_iterable(informer.items() for informer in self._informers.values()))

    def index(self, name: str, keys_of: KeysOf) -> None:
        """Declare an index; before `run`."""
        for informer in self._informers.values():
            informer.index(name, keys_of)

    def by_index(self, name: str, key: Hashable) -> tuple[Object, ...]:
        """Answer the objects with that key, ordered by namespace and name."""
        found = chain.from_iterable(informer.by_index(name, key) for informer in self._informers.values())
        return tuple(sorted(found, key=place_of))

    def store(self, answer: Object) -> None:
        """Take in the API server's answer to a write of ours."""
        self._informers[place_of(answer)[0]].store(answer)

    def forget(self, namespace: str, name: str, uid: str) -> None:
        """Take in a deletion of ours."""
        self._informers[namespace].forget(namespace, name, uid)

    async def wait_synced(self) -> None:
        """Wait until each namespace is read, or has refused to be: one that is gone must not stop the others."""
        await asyncio.gather(*(informer.wait_synced(or_refused=True) for informer in self._informers.values()))

    async def run(self) -> None:
        """List and watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            for informer in self._informers.values():
                group.create_task(informer.run())


class NamespaceReader(Informer):
    """The Namespaces of those names, read by name again and again."""

    def __init__(self, api: Api, names: Iterable[str], **options: Any) -> None:
        super().__init__(api, NAMESPACE, **options)
        self._names = tuple(names)

    async def _advance(self) -> None:
        for name in self._names:
            try:
                found = await self._api.read(NAMESPACE, None, name)
            except NotFoundError:
                self._lose(name)
            except ForbiddenError:
                continue
            else:
                self._cache.observe(self._shape(found))
        self._synced.set()
        await asyncio.sleep(_TURN_SECONDS)

    def _lose(self, name: str) -> None:
        known = self._cache.find(("", name))
        if known is not None:
            self._cache.forget(("", name), known["metadata"]["uid"])


AnyInformer = Informer | ScopedInformer
