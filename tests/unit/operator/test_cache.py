"""The order of versions settles every race between lists, events and answers."""

from typing import Any

import pytest

from servicelink_operator.cluster.cache import Cache


class World:
    """A cache, and the versions that it told of: (before, after), None for absent."""

    def __init__(self) -> None:
        self.told: list[tuple[str | None, str | None]] = []
        self.cache = Cache(lambda old, new: self.told.append((version(old), version(new))))


def version(found: dict[str, Any] | None) -> str | None:
    return None if found is None else str(found["metadata"]["resourceVersion"])


def thing(number: int, uid: str = "u1", **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "n", "name": "a", "uid": uid, "resourceVersion": str(number), **metadata}}


@pytest.fixture
def world() -> World:
    return World()


def test_versions_are_compared_as_numbers(world: World) -> None:
    world.cache.observe(thing(9))
    world.cache.observe(thing(10))
    world.cache.observe(thing(9))
    world.cache.observe(thing(10))

    assert world.told == [(None, "9"), ("9", "10")]


def test_a_late_deletion_does_not_take_what_was_created_anew(world: World) -> None:
    world.cache.observe(thing(5, "u1"))
    world.cache.store(thing(8, "u2"))
    world.cache.observe_deletion(thing(7, "u1"))

    assert world.told == [(None, "5"), ("5", "8")]


def test_a_change_that_leaves_the_selector_deletes_at_its_own_version(world: World) -> None:
    world.cache.observe(thing(5))
    world.cache.store(thing(6))
    world.cache.observe_deletion(thing(6))

    assert world.cache.find(("n", "a")) is None


def test_an_answer_older_than_the_watch_is_passed_over_where_nothing_is_known(world: World) -> None:
    world.cache.version = 7
    world.cache.store(thing(6))
    world.cache.store(thing(8))

    assert world.told == [(None, "8")]


def test_a_list_drops_what_it_lacks_and_keeps_what_is_newer_than_it(world: World) -> None:
    world.cache.observe(thing(5))
    world.cache.replace(frozenset(), 4)
    kept = world.cache.find(("n", "a"))
    world.cache.replace(frozenset(), 5)

    assert kept is not None
    assert world.cache.find(("n", "a")) is None


def test_what_we_deleted_stays_away_until_its_deletion_was_seen(world: World) -> None:
    world.cache.observe(thing(5))
    world.cache.forget(("n", "a"), "u1")
    world.cache.observe(thing(6))
    world.cache.observe_deletion(thing(7))
    world.cache.observe(thing(8, "u2"))

    assert world.told == [(None, "5"), ("5", None), (None, "8")]


def test_what_we_deleted_and_a_finalizer_keeps_is_seen_again(world: World) -> None:
    world.cache.observe(thing(5))
    world.cache.forget(("n", "a"), "u1")
    world.cache.observe(thing(6, deletionTimestamp="2026-11-23T00:00:00Z"))

    assert world.told[-1] == (None, "6")


def test_forgetting_another_incarnation_does_nothing(world: World) -> None:
    world.cache.observe(thing(5, "u2"))
    world.cache.forget(("n", "a"), "u1")

    assert world.cache.find(("n", "a")) is not None


def test_after_a_restored_backup_what_is_listed_counts_whatever_its_version(world: World) -> None:
    world.cache.observe(thing(500))
    world.cache.replace(frozenset({("n", "a")}), 500)
    world.cache.rewind()
    world.cache.observe(thing(300))
    world.cache.replace(frozenset({("n", "a")}), 310)
    world.cache.store(thing(311))

    assert world.told == [(None, "500"), ("500", "300"), ("300", "311")]


def test_an_index_forgets_keys_that_nobody_has(world: World) -> None:
    world.cache.index("label", lambda found: found["metadata"].get("labels", {}).values())
    world.cache.observe(thing(5, labels={"x": "one", "y": "two"}))
    world.cache.observe(thing(6, labels={"x": "two"}))

    assert world.cache.by_index("label", "one") == ()
    assert [version(found) for found in world.cache.by_index("label", "two")] == ["6"]
