"""A server's verifier is taken whole and in good time: what one generation decided does not outlive it."""

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sdk_servers import KEY, LINK, READS, VERIFIER, entry_of, make_key, swap, with_keys, write_verifier

from servicelink import folder as folders
from servicelink import forks
from servicelink.folder import CHECK_EVERY, SwappedFolder
from servicelink.headers import HeaderNames
from servicelink.memo import Memo
from servicelink.verify import Allowed, RestCall, VerifierFiles, VerifierIndex
from servicelink_contract.paths import parse_pattern
from servicelink_contract.rules import RestRule
from servicelink_contract.verifier import Verifier, render_verifier

pytestmark = pytest.mark.traffic

HEADERS = [(b"x-service-auth", KEY.text.encode())]


@dataclass(slots=True)
class Time:
    """The hands of a clock."""

    seconds: float = 0.0

    def now(self) -> float:
        """Answer the time."""
        return self.seconds

    def pass_check(self) -> None:
        """Let the next look be due."""
        self.seconds += CHECK_EVERY


def allowed(files: VerifierFiles, path: str = "/v1/x", method: str = "GET") -> bool:
    return isinstance(files.decide(HEADERS, RestCall(method, path)).verdict, Allowed)


def large(count: int = 4000, *, mark: str = "a") -> Verifier:
    """Answer a verifier of some megabytes, in which the shared key is the last."""
    paths = tuple(parse_pattern(f"/{mark}/{number}/**") for number in range(4))
    rules = (RestRule(frozenset({"GET", "POST"}), paths),)
    others = tuple(
        replace(
            LINK, link=f"shop/other-{number}", uid=f"{mark}-{number}", keys=(entry_of(make_key(number)),), cap=rules
        )
        for number in range(10, count)
    )
    return replace(VERIFIER, links=(*others, LINK))


def test_a_decision_is_remembered_for_its_generation_and_no_longer(tmp_path: Path) -> None:
    clock = Time()
    write_verifier(tmp_path)
    files = VerifierFiles(tmp_path, clock=clock.now)
    before = files.current()
    first = files.decide(HEADERS, RestCall("GET", "/v1/x"))
    again = files.decide(HEADERS, RestCall("GET", "/v1/x"))
    write_verifier(tmp_path, replace(VERIFIER, links=(replace(LINK, allow=()),)))
    clock.pass_check()

    assert first is again
    assert len(before.decisions) == 1
    assert not allowed(files)
    assert files.current().decisions is not before.decisions


def test_methods_and_paths_of_links_are_told_apart(tmp_path: Path) -> None:
    other = make_key(7)
    links = (LINK, replace(LINK, link="shop/other", keys=(entry_of(other),), allow=None))
    write_verifier(tmp_path, replace(VERIFIER, links=links))
    files = VerifierFiles(tmp_path)
    others = [(b"x-service-auth", other.text.encode())]
    seen = [
        (allowed(files, "/v1/x"), allowed(files, "/v2/x"), allowed(files, "/v1/x", "POST")),
        tuple(files.decide(others, RestCall(*call)).passes for call in (("GET", "/v2/x"), ("POST", "/v1/x"))),
    ]

    assert seen * 2 == [(True, False, False), (True, True)] * 2


def test_what_callers_choose_is_remembered_within_bounds(tmp_path: Path) -> None:
    write_verifier(tmp_path)
    files = VerifierFiles(tmp_path)
    for number in range(10_000):
        allowed(files, f"/v1/{number}")
    allowed(files, "/v1/" + "x" * 5000)
    allowed(files, "/v1/x", "X" * 5000)
    names = HeaderNames("x-service-auth")
    names.read([(b"x-%d" % number, b"") for number in range(5000)])
    names.read([(b"x" * 1000, b"")])
    decisions, kinds = files.current().decisions, names._kinds  # noqa: SLF001 - that it is bounded is seen there only

    assert len(decisions) <= 4096
    assert len(kinds) <= 1024
    assert max(len(path) for _, _, path in decisions) < 300
    assert max(map(len, kinds)) < 100


def test_a_memo_forgets_everything_when_it_is_full() -> None:
    asked: list[int] = []

    def work_out(number: int) -> int:
        asked.append(number)
        return number * 2

    memo = Memo(work_out, wants=lambda number: number >= 0, most=2)

    assert [memo[key] for key in (1, 1, 2, 3, 3, 1, -1, -1)] == [2, 2, 4, 6, 6, 2, -2, -2]
    assert asked == [1, 2, 3, 1, -1, -1]


def number_of(index: VerifierIndex) -> int | None:
    """Answer the number that all parts of a verifier name, None for one that is torn."""
    numbers = {int(known.entries[0].uid) for known in index.keys.values()}
    numbers |= {int(known.kid) for known in index.keys.values()} | {int(index.header.rpartition("-")[2])}
    return numbers.pop() if len(numbers) == 1 and len(index.keys) == 4 else None


def numbered(number: int) -> Verifier:
    """Answer a verifier of four links, all of which name the number."""
    links = tuple(
        replace(LINK, link=f"shop/{place}", uid=str(number), keys=(replace(entry_of(key), kid=f"{number:08d}"),))
        for place, key in enumerate(make_key(number * 10 + place) for place in range(4))
    )
    return replace(VERIFIER, header=f"x-key-{number}", links=links)


def write_numbered(folder: Path, number: int) -> None:
    """Swap in a verifier of several shards."""
    shards = render_verifier(numbered(number), shard_bytes=700)
    assert len(shards) > 1
    swap(folder, {f"shard-{place}.json": text for place, text in enumerate(shards)})


@pytest.mark.proof
@pytest.mark.traffic
@pytest.mark.timeout(0)
@pytest.mark.parametrize("is_large", [False, True])
def test_swaps_under_readers_never_give_a_torn_verifier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, *, is_large: bool
) -> None:
    monkeypatch.setattr(folders, "CHECK_EVERY", 0.0)
    monkeypatch.setattr("servicelink.verify.files.LARGE", 0 if is_large else 1 << 30)
    # A tenth, since every one waits for three readers in turn, step by step.
    swaps: int = request.config.getoption("--swaps") // 10
    write_numbered(tmp_path, 0)
    files = VerifierFiles(tmp_path)
    files.current()
    seen: set[int | None] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(number_of(files.current()))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(1, swaps):
        write_numbered(tmp_path, number)
    done.set()
    for reader in readers:
        reader.join()

    assert None not in seen
    assert len(seen) > 10
    until(lambda: number_of(files.current()) == swaps - 1)


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds, for ten seconds at most."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline


async def test_a_large_verifier_is_read_while_the_loop_goes_on(tmp_path: Path) -> None:
    write_verifier(tmp_path, large())
    files = VerifierFiles(tmp_path)
    before = files.current()
    write_verifier(tmp_path, with_keys(large(mark="b"), make_key(9)))
    await asyncio.sleep(CHECK_EVERY)
    turns = 0
    while files.current() is before:
        await asyncio.sleep(0)
        turns += 1

    # Python hands over every 5 ms, and this takes some hundred; read on the loop it would be none.
    assert turns > 10


def test_the_verifier_before_decides_while_a_large_one_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Time()
    write_verifier(tmp_path)
    files = VerifierFiles(tmp_path, clock=clock.now)
    assert allowed(files)
    begun, go_on = threading.Event(), threading.Event()
    collected: list[bool] = []
    real: Any = files._files._parse  # noqa: SLF001 - reading is held up there

    def parse(folder: Path) -> Any:
        collected.append(gc.isenabled())
        begun.set()
        assert go_on.wait(10)
        return real(folder)

    monkeypatch.setattr(files._files, "_parse", parse)  # noqa: SLF001 - as above
    write_verifier(tmp_path, replace(large(), links=large().links[:-1]))
    clock.pass_check()
    first = allowed(files)
    assert begun.wait(10)
    clock.pass_check()
    meanwhile = allowed(files)
    go_on.set()

    assert (first, meanwhile) == (True, True)
    until(lambda: not allowed(files))
    until(gc.isenabled)
    assert collected == [False]


def test_a_large_verifier_is_read_in_place_where_no_thread_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Time()
    write_verifier(tmp_path)
    files = VerifierFiles(tmp_path, clock=clock.now)
    monkeypatch.setattr("servicelink.verify.files.LARGE", 0)
    with monkeypatch.context() as patch:
        # As where a container's limit of processes is reached (pthread_create(3), EAGAIN).
        patch.setattr(threading.Thread, "start", _refuse_to_start)
        before = allowed(files)
        write_verifier(tmp_path, replace(VERIFIER, links=()))
        clock.pass_check()
        revoked = allowed(files)
    write_verifier(tmp_path)
    clock.pass_check()

    assert (before, revoked) == (True, False)
    until(lambda: allowed(files))


def _refuse_to_start(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_forked_child_reads_on_where_a_thread_of_its_parent_was_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = SwappedFolder(tmp_path, lambda path: (path / "name").read_text(), is_large=lambda _: True)
    swap(tmp_path, {"name": "one"})
    assert files.current() == "one"
    monkeypatch.setattr(folders, "CHECK_EVERY", 0.0)
    # As a child finds it whose parent was reading: the thread is in another process.
    files._reading_in = forks.generation() - 1  # noqa: SLF001 - set by the parent
    swap(tmp_path, {"name": "two"})

    until(lambda: files.current() == "two")


def test_a_child_forked_while_a_large_verifier_is_read_collects_garbage(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def parse(folder: Path) -> str:
        text = (folder / "name").read_text()
        if text == "two":
            begun.set()
            assert go_on.wait(10)
        return text

    clock = Time()
    files = SwappedFolder(tmp_path, parse, clock=clock.now, is_large=lambda _: True)
    swap(tmp_path, {"name": "one"})
    files.current()
    swap(tmp_path, {"name": "two"})
    clock.pass_check()
    files.current()
    assert begun.wait(10)
    in_parent, in_child = gc.isenabled(), _ask_child(gc.isenabled)
    go_on.set()

    assert (in_parent, in_child) == (False, True)
    until(gc.isenabled)


def test_a_child_of_a_process_that_collects_no_garbage_collects_none() -> None:
    gc.disable()
    try:
        with forks.uncollected():
            in_child = _ask_child(gc.isenabled)
        after = gc.isenabled()
    finally:
        gc.enable()

    assert (in_child, after) == (False, False)


def _ask_child(question: Callable[[], bool]) -> bool:
    """Answer what holds in a forked child."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(int(question()))
        finally:
            os._exit(2)
    return {0: False, 1: True}[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]


def test_rules_are_followed_within_50_ms_of_use(tmp_path: Path) -> None:
    clock = Time()
    write_verifier(tmp_path)
    files = VerifierFiles(tmp_path, clock=clock.now)
    before = allowed(files, "/v1/x", "POST")
    more = RestRule(frozenset({"POST"}), READS.paths)
    write_verifier(tmp_path, replace(VERIFIER, links=(replace(LINK, allow=(READS, more)),)))
    at_once = allowed(files, "/v1/x", "POST")
    clock.pass_check()

    assert (before, at_once, allowed(files, "/v1/x", "POST")) == (False, False, True)
