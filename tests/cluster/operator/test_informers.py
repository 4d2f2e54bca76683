"""An informer tells of every change exactly as it happened last, whatever happens to its watch."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from structlog.testing import capture_logs

from devcluster.testing import Client
from servicelink_operator.cluster import informers
from servicelink_operator.cluster.api import Api, Object, PatchType
from servicelink_operator.cluster.errors import NotServedError
from servicelink_operator.cluster.informers import Informer
from servicelink_operator.cluster.kinds import CONFIG_MAP, SERVICE, Kind

CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: {plural}.test.servicelink.dev}}
spec:
  group: test.servicelink.dev
  scope: Namespaced
  names: {{kind: {kind}, plural: {plural}, singular: {singular}}}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}
"""


@dataclass(frozen=True, slots=True)
class Crd:
    """A kind of one test's own."""

    cluster: Client
    kind: Kind

    def install(self) -> None:
        """Install it, and wait until it is served."""
        kind = self.kind
        self.cluster.apply(CRD.format(kind=kind.kind, plural=kind.plural, singular=kind.kind.lower()))
        name = f"crd/{kind.plural}.{kind.group}"
        self.cluster.kubectl("wait", name, "--for=condition=Established", "--timeout=30s")

    def remove(self) -> None:
        """Remove it with all its objects."""
        self.cluster.kubectl("delete", f"crd/{self.kind.plural}.{self.kind.group}", "--ignore-not-found")


class Changes:
    """The changes that an informer told of, and waiting for them."""

    def __init__(self) -> None:
        self.seen: list[tuple[Object | None, Object | None]] = []
        self._news = asyncio.Event()

    def __call__(self, _: Kind, old: Object | None, new: Object | None) -> None:
        """Take in a change."""
        self.seen.append((old, new))
        self._news.set()

    def of(self, name: str) -> list[tuple[Any, Any]]:
        """`data.n` before and after each change of one ConfigMap; None where it was not there."""
        return [
            (old and old["data"]["n"], new and new["data"]["n"])
            for old, new in self.seen
            if (old or new or {})["metadata"]["name"] == name
        ]

    async def until(self, predicate: Callable[[], object]) -> None:
        """Wait for a change that makes the predicate true."""
        async with asyncio.timeout(30):
            while not predicate():
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def running(informer: Informer) -> AsyncIterator[Informer]:
    task = asyncio.create_task(informer.run())
    try:
        async with asyncio.timeout(60):
            waiting = asyncio.create_task(informer.wait_synced())
            await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            yield informer
            assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def write(api: Api, namespace: str, name: str, n: int, **metadata: Any) -> Object:
    """Create a ConfigMap, or change it if n is above 1."""
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": {"n": str(n)}}
    if n > 1:
        return await api.patch(CONFIG_MAP, namespace, name, body, content_type=PatchType.MERGE)
    return await api.create(CONFIG_MAP, namespace, body)


@pytest.fixture
def changes() -> Changes:
    return Changes()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reconnect within half a second, as tests are impatient."""
    monkeypatch.setattr(informers, "LONGEST_DELAY", 0.5)


@pytest.fixture
def crd(cluster: Client) -> Iterator[Crd]:
    """A kind of this test's own, not yet installed."""
    word = f"Thing{uuid.uuid4().hex[:8]}"
    made = Crd(cluster, Kind("test.servicelink.dev", "v1", word, f"{word.lower()}s"))
    yield made
    made.remove()


async def test_additions_changes_and_deletions_are_told_in_order(api: Api, namespace: str, changes: Changes) -> None:
    async with running(Informer(api, CONFIG_MAP, namespace=namespace, on_change=changes)) as informer:
        assert informer.has_synced
        await write(api, namespace, "a", 1)
        await write(api, namespace, "a", 2)
        await changes.until(lambda: ("1", "2") in changes.of("a"))
        found = informer.find(namespace, "a")
        await api.delete(CONFIG_MAP, namespace, "a")
        await changes.until(lambda: ("2", None) in changes.of("a"))

        assert changes.of("a") == [(None, "1"), ("1", "2"), ("2", None)]
        assert found is not None
        assert found["kind"] == "ConfigMap"
        assert "managedFields" not in found["metadata"]
        assert informer.find(namespace, "a") is None


async def test_a_list_in_pages_is_told_whole(api: Api, namespace: str, changes: Changes) -> None:
    names = {f"page-{number}" for number in range(7)}
    for name in names:
        await write(api, namespace, name, 1)

    async with running(Informer(api, CONFIG_MAP, namespace=namespace, on_change=changes, page=2)) as informer:
        assert names <= {one["metadata"]["name"] for one in informer.items()}
        assert {one["kind"] for one in informer.items()} == {"ConfigMap"}
        assert all(changes.of(name) == [(None, "1")] for name in names)


async def test_a_selector_shows_what_fits_and_drops_what_no_longer_does(
    api: Api, namespace: str, changes: Changes
) -> None:
    informer = Informer(api, CONFIG_MAP, namespace=namespace, label_selector="side=left", on_change=changes)
    async with running(informer):
        await write(api, namespace, "right", 1, labels={"side": "right"})
        await write(api, namespace, "left", 1, labels={"side": "left"})
        await changes.until(lambda: changes.of("left"))
        await write(api, namespace, "left", 2, labels={"side": "right"})
        await changes.until(lambda: informer.find(namespace, "left") is None)

        assert changes.of("right") == []


async def test_an_index_follows_every_change(api: Api, namespace: str, changes: Changes) -> None:
    informer = Informer(api, CONFIG_MAP, namespace=namespace, on_change=changes)
    informer.index("n", lambda found: [(found.get("data") or {}).get("n")])
    async with running(informer):
        await write(api, namespace, "b", 1)
        await write(api, namespace, "a", 1)
        await changes.until(lambda: changes.of("a") and changes.of("b"))
        before = [one["metadata"]["name"] for one in informer.by_index("n", "1")]
        await write(api, namespace, "a", 2)
        await api.delete(CONFIG_MAP, namespace, "b")
        await changes.until(lambda: ("1", "2") in changes.of("a") and ("1", None) in changes.of("b"))

        assert before == ["a", "b"]
        assert informer.by_index("n", "1") == ()
        assert [one["metadata"]["name"] for one in informer.by_index("n", "2")] == ["a"]


async def test_metadata_only_keeps_neither_data_nor_spec(api: Api, namespace: str, changes: Changes) -> None:
    listed = await write(api, namespace, "listed", 1)
    informer = Informer(api, CONFIG_MAP, namespace=namespace, metadata_only=True, on_change=changes)
    async with running(informer):
        stored = await write(api, namespace, "stored", 1)
        informer.store(stored)
        kept = [informer.find(namespace, found["metadata"]["name"]) for found in (listed, stored)]

    assert [set(one or ()) for one in kept] == [{"apiVersion", "kind", "metadata"}] * 2


async def test_what_happened_while_the_watch_was_cut_is_told_afterwards(
    api: Api, line: Any, namespace: str, changes: Changes
) -> None:
    await write(api, namespace, "kept", 1)
    await write(api, namespace, "gone", 1)
    async with running(Informer(line.api, CONFIG_MAP, namespace=namespace, on_change=changes)):
        line.refuse()
        await write(api, namespace, "kept", 2)
        await api.delete(CONFIG_MAP, namespace, "gone")
        await write(api, namespace, "new", 1)
        line.mend()
        await changes.until(lambda: changes.of("new"))

    assert changes.of("kept") == [(None, "1"), ("1", "2")]
    assert changes.of("gone") == [(None, "1"), ("1", None)]


async def test_a_watch_that_falls_silent_is_replaced(api: Api, line: Any, namespace: str, changes: Changes) -> None:
    async with running(Informer(line.api, CONFIG_MAP, namespace=namespace, on_change=changes)):
        await write(api, namespace, "before", 1)
        await changes.until(lambda: changes.of("before"))
        line.hang(new=False)
        await write(api, namespace, "after", 1)
        await changes.until(lambda: changes.of("after"))


async def test_deletions_are_found_by_a_new_list_when_the_version_is_gone(
    crd: Crd, line: Any, namespace: str, changes: Changes
) -> None:
    def create(name: str) -> None:
        thing = {"apiVersion": crd.kind.api_version, "kind": crd.kind.kind, "metadata": {"name": name}}
        crd.cluster.kubectl("create", f"--namespace={namespace}", "--filename=-", stdin=json.dumps(thing))

    def told(name: str) -> list[tuple[bool, bool]]:
        of_name = [pair for pair in changes.seen if (pair[0] or pair[1] or {})["metadata"]["name"] == name]
        return [(old is not None, new is not None) for old, new in of_name]

    informer = Informer(line.api, crd.kind, namespace=namespace, on_change=changes)
    crd.install()
    create("first")
    with capture_logs() as logs:
        async with running(informer):
            line.refuse()
            # A CRD that is installed again serves no version from before.
            crd.remove()
            crd.install()
            create("second")
            line.mend()
            await changes.until(lambda: told("second"))
            await changes.until(lambda: informer.find(namespace, "first") is None)

    assert told("first") == [(False, True), (True, False)]
    assert told("second") == [(False, True)]
    assert 410 in [log["status"] for log in logs if log["event"] == "watch_interrupted"]


async def test_a_kind_that_is_not_served_yet_is_not_taken_for_empty(
    crd: Crd, line: Any, namespace: str, changes: Changes
) -> None:
    informer = Informer(line.api, crd.kind, namespace=namespace, on_change=changes)
    task = asyncio.create_task(informer.run())
    # The first requests are answered with "no such kind".
    with pytest.raises(NotServedError):
        await line.api.list_page(crd.kind)
    before = informer.has_synced
    crd.install()
    await asyncio.wait_for(informer.wait_synced(), 60)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert not before


async def test_our_own_write_is_not_overwritten_by_an_older_event(
    api: Api, line: Any, namespace: str, changes: Changes
) -> None:
    async with running(Informer(line.api, CONFIG_MAP, namespace=namespace, on_change=changes)) as informer:
        line.refuse()
        await write(api, namespace, "a", 1)
        informer.store(await write(api, namespace, "a", 2))
        at_once = changes.of("a")
        await write(api, namespace, "last", 1)
        line.mend()
        await changes.until(lambda: changes.of("last"))

    assert at_once == [(None, "2")]
    assert changes.of("a") == [(None, "2")]


async def test_an_answer_that_comes_after_the_deletion_brings_nothing_back(
    api: Api, namespace: str, changes: Changes
) -> None:
    async with running(Informer(api, CONFIG_MAP, namespace=namespace, on_change=changes)) as informer:
        answer = await write(api, namespace, "a", 1)
        await api.delete(CONFIG_MAP, namespace, "a")
        await changes.until(lambda: ("1", None) in changes.of("a"))
        informer.store(answer)

        assert informer.find(namespace, "a") is None
        assert changes.of("a") == [(None, "1"), ("1", None)]


async def test_what_we_deleted_is_not_brought_back_by_older_events_and_may_come_anew(
    api: Api, line: Any, namespace: str, changes: Changes
) -> None:
    first = await write(api, namespace, "a", 1)
    async with running(Informer(line.api, CONFIG_MAP, namespace=namespace, on_change=changes)) as informer:
        line.refuse()
        await write(api, namespace, "a", 2)
        await api.delete(CONFIG_MAP, namespace, "a")
        informer.forget(namespace, "a", first["metadata"]["uid"])
        at_once = informer.find(namespace, "a")
        await write(api, namespace, "a", 1)
        line.mend()
        await changes.until(lambda: len(changes.of("a")) > 2)

    assert at_once is None
    assert changes.of("a") == [(None, "1"), ("1", None), (None, "1")]


async def test_kinds_without_objects_are_synced_too(api: Api, namespace: str, changes: Changes) -> None:
    async with running(Informer(api, SERVICE, namespace=namespace, on_change=changes)) as informer:
        assert informer.has_synced
        assert list(informer.items()) == []
