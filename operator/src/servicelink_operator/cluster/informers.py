"""Informers: a cache of one kind, filled by a list, kept by a watch, and a call for every change.

An event may come late, never not at all: a watch is resumed at the version it had come to; when that version is gone,
a new list is compared with the cache and what is no longer listed is reported as deleted. A watch that falls silent is
a broken one: the server ends each after about five minutes and sends bookmarks in between, and the client hangs up
on a longer silence. A list that failed half-way deletes nothing.
"""

import asyncio
import random
import time
from collections.abc import Callable, Hashable, Iterable
from contextlib import aclosing
from typing import Any

import structlog

from servicelink_operator import telemetry
from servicelink_operator.cluster.api import Api
from servicelink_operator.cluster.cache import Cache, KeysOf, Object, Place, place_of, version_of
from servicelink_operator.cluster.errors import ApiError, ForbiddenError, GoneError
from servicelink_operator.cluster.kinds import Kind

# A page is parsed whole: five hundred objects at a time would leave a heap that is a fifth larger.
PAGE = 100
WATCH_SECONDS = 300
FIRST_DELAY = 0.2
LONGEST_DELAY = 10.0
# A watch that lives this long ends the backoff.
STEADY_SECONDS = 5.0
_TOO_NEW = "ResourceVersionTooLarge"

log = structlog.get_logger("servicelink.informer")

OnKindChange = Callable[[Kind, Object | None, Object | None], None]


def drop_managed_fields(found: Object) -> Object:
    """Drop `metadata.managedFields`, half of many objects' size; the default trim."""
    found["metadata"].pop("managedFields", None)
    return found


class Informer:
    """One kind, of one namespace or all, optionally by label, with full objects or metadata only.

    `trim` makes an object smaller before it is kept. `on_change(kind, old, new)` is called for every change, from the
    event loop and before anything else can happen: old None is an addition, new None a deletion; it must not wait, nor
    change what it is given.
    """

    def __init__(
        self,
        api: Api,
        kind: Kind,
        *,
        on_change: OnKindChange,
        namespace: str | None = None,
        label_selector: str | None = None,
        metadata_only: bool = False,
        trim: Callable[[Object], Object] | None = None,
        page: int = PAGE,
        watch_seconds: int = WATCH_SECONDS,
    ) -> None:
        self.kind = kind
        self._api = api
        self._scope: dict[str, Any] = {
            "namespace": namespace,
            "label_selector": label_selector,
            "metadata_only": metadata_only,
        }
        self._trim = trim or drop_managed_fields
        self._page = page
        self._watch_seconds = watch_seconds
        self._cache = Cache(lambda old, new: on_change(kind, old, new))
        self._synced = asyncio.Event()
        self._refused = asyncio.Event()
        self._must_list = True
        self._failures = 0

    @property
    def has_synced(self) -> bool:
        """Whether the cache has held all of the kind since a first complete list."""
        return self._synced.is_set()

    async def wait_synced(self, *, or_refused: bool = False) -> None:
        """Wait for that; with `or_refused` only until the API server has said that this may not be read."""
        waits = [asyncio.ensure_future(self._synced.wait())]
        if or_refused:
            waits.append(asyncio.ensure_future(self._refused.wait()))
        _, rest = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for one in rest:
            one.cancel()

    def find(self, namespace: str, name: str) -> Object | None:
        """Answer the object of that name, None where there is none; namespace "" for cluster-wide kinds."""
        return self._cache.find((namespace, name))

    def __len__(self) -> int:
        return len(self._cache)

    def items(self) -> Iterable[Object]:
        """Answer all objects."""
        return self._cache.items()

    def index(self, name: str, keys_of: KeysOf) -> None:
        """Declare an index: `keys_of` answers the keys of an object, always the same; before `run`."""
        self._cache.index(name, keys_of)

    def by_index(self, name: str, key: Hashable) -> tuple[Object, ...]:
        """Answer the objects with that key, ordered by namespace and name."""
        return self._cache.by_index(name, key)

    def store(self, answer: Object) -> None:
        """Take in the API server's answer to a write of ours; passed over when the cache is further already."""
        self._cache.store(self._shape(answer))

    def forget(self, namespace: str, name: str, uid: str) -> None:
        """Take in a deletion of ours; events that are older than it do not bring the object back."""
        self._cache.forget((namespace, name), uid)

    async def run(self) -> None:
        """List and watch until cancelled; an error of the API server is waited out, however long it lasts."""
        while True:
            started = time.monotonic()
            try:
                await self._advance()
                error = None
            except ApiError as failed:
                error = failed
                if isinstance(failed, ForbiddenError):
                    self._refused.set()
                self._must_list = self._must_list or isinstance(failed, GoneError) or _TOO_NEW in failed.causes
            if time.monotonic() - started > STEADY_SECONDS:
                self._failures = 0
            await self._pause(error)

    async def _advance(self) -> None:
        if self._must_list:
            await self._list()
            self._must_list = False
        await self._follow()

    async def _list(self) -> None:
        listed: set[Place] = set()
        continue_: str | None = None
        while True:
            page = await self._api.list_page(self.kind, limit=self._page, continue_=continue_, **self._scope)
            version = version_of(page)
            if version < self._cache.version:
                log.warning("history_rewound", kind=self.kind.kind, known=self._cache.version, listed=version)
                self._cache.rewind()
            for found in map(self._shape, page["items"]):
                listed.add(place_of(found))
                self._cache.observe(found)
            continue_ = page["metadata"].get("continue")
            if not continue_:
                break
        self._cache.replace(frozenset(listed), version)
        self._synced.set()
        telemetry.INFORMER_SYNCED.labels(self.kind.kind).set(1)

    async def _follow(self) -> None:
        seconds = round(self._watch_seconds * random.uniform(0.8, 1.2))  # noqa: S311 (spreads reconnections)
        events = self._api.watch(
            self.kind, resource_version=str(self._cache.version), timeout_seconds=seconds, **self._scope
        )
        async with aclosing(events):
            async for event in events:
                self._take(event["type"], event["object"])

    def _take(self, kind_of_event: str, found: Object) -> None:
        version = version_of(found)
        match kind_of_event:
            case "ADDED" | "MODIFIED":
                self._cache.observe(self._shape(found))
            case "DELETED":
                self._cache.observe_deletion(found)
            case _ if version < self._cache.version:
                # A bookmark from the past: a backup was restored, and the watch would wait for ever to be caught up.
                raise GoneError(410, "Rewound", f"{self.kind.plural} were at {self._cache.version}, now at {version}")
        self._cache.version = max(self._cache.version, version)

    def _shape(self, found: Object) -> Object:
        """Make objects of lists, events and answers alike: their own kind, trimmed, metadata only where so chosen."""
        named: Object = {**found, "apiVersion": self.kind.api_version, "kind": self.kind.kind}
        if self._scope["metadata_only"]:
            named = {field: named[field] for field in ("apiVersion", "kind", "metadata")}
        return self._trim({**named, "metadata": dict(named["metadata"])})

    async def _pause(self, error: ApiError | None) -> None:
        """Wait before the next attempt: longer with each failure in a row, and as long as the API server asked for."""
        self._failures += 1
        longest = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(self._failures - 1, 10))
        delay = random.uniform(longest / 2, longest)  # noqa: S311 (spreads retries)
        if error is not None:
            delay = max(delay, error.retry_after or 0)
            log.info("watch_interrupted", kind=self.kind.kind, status=error.status, reason=error.reason, retry_in=delay)
        await asyncio.sleep(delay)
