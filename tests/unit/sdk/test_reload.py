"""A binding is followed as its files change: seen in 50 ms, taken whole, the last good one kept."""

import os
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import servicelink
from servicelink.binding import Binding, FolderSource, KeyFileSource, parse_credential
from servicelink.find import observe_source
from servicelink.folder import SwappedFolder
from servicelink_contract.binding import LinkDocument, render_link_document
from servicelink_contract.key import render_key
from servicelink_contract.rules import Protocol

OLD = render_key("AAAAAAAA", b"a" * 32).text
NEW = render_key("BBBBBBBB", b"b" * 32).text
DOCUMENT = LinkDocument("shop/web-to-api", "backend/api", 2.0, 1, 7, 3.0)
FILES = {"uri": "http://api:8080", "api-key": OLD, "protocol": "rest", "link.json": render_link_document(DOCUMENT)}
Mount = Callable[[Path, Mapping[str, str]], None]


@dataclass(slots=True)
class Folder:
    """A mounted binding."""

    path: Path
    mount: Mount

    def write(self, **changes: str) -> None:
        """Swap other files in."""
        self.mount(self.path, FILES | {name.replace("_", "-"): text for name, text in changes.items()})

    def source(self) -> FolderSource:
        """Answer a reader."""
        return FolderSource(self.path, Protocol.REST)


@pytest.fixture
def folder(tmp_path: Path, mount: Mount) -> Folder:
    return Folder(tmp_path / "web-to-api", mount)


def key_of(binding: Binding) -> str | None:
    return None if binding.credential is None else binding.credential.text


def test_a_binding_says_names_address_key_and_limits(folder: Folder) -> None:
    folder.write(header="x-our-key")
    binding = folder.source().current()

    assert (binding.link, binding.server, binding.uri) == ("shop/web-to-api", "backend/api", "http://api:8080")
    assert binding.credential is not None
    assert (binding.credential.header, binding.credential.kid) == ("x-our-key", "AAAAAAAA")
    limits = binding.limits
    assert (limits.timeout, limits.retries, limits.breaker_failures, limits.breaker_open_for) == (2.0, 1, 7, 3.0)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"uri": ""}, "has no uri"),
        ({"api_key": ""}, "has neither api-key nor tls.crt"),
        ({"api_key": OLD[:-3]}, "cut off or mistyped"),
        ({"api_key": "two\nlines"}, "no header can hold"),
        ({"protocol": "grpc"}, "is a link for grpc"),
        ({"link.json": "{"}, "is not understood"),
        ({"tls.crt": "PEM"}, "go together"),
        ({"tls.crt": "PEM", "tls.key": "PEM"}, "goes with ca.crt"),
        ({"tls.crt": "PEM", "tls.key": "PEM", "ca.crt": "PEM"}, "leads where no certificate is shown"),
        ({"tls.crt": "PEM", "tls.key": "PEM", "ca.crt": "PEM", "uri": "https://api"}, "not understood"),
        ({"ca.crt": "PEM"}, "the roots are not understood"),
    ],
)
def test_a_binding_that_is_no_good_says_why_and_never_what_the_key_was(
    folder: Folder, changes: dict[str, str], problem: str
) -> None:
    folder.write(**changes)
    with pytest.raises(servicelink.LinkNotFound, match=problem) as bad:
        folder.source().current()

    assert OLD[:-3] not in str(bad.value)


def test_the_last_good_binding_is_kept_while_the_newest_is_none(folder: Folder) -> None:
    folder.write()
    source = folder.source()
    before = source.current()
    folder.write(api_key=NEW[:-1])

    assert source.reload() is before
    folder.write(api_key=NEW)
    assert key_of(source.reload()) == NEW


def test_an_error_of_a_kind_that_nobody_foresaw_leaves_the_last_good_state_and_quotes_nothing(folder: Folder) -> None:
    def parse(path: Path) -> str:
        text = (path / "api-key").read_text()
        if text != OLD:
            raise TypeError(f"{text} is no good")
        return text

    folder.write()
    files = SwappedFolder(folder.path, parse)
    before = files.current()
    folder.write(api_key=NEW)

    assert (before, files.reload()) == (OLD, OLD)
    assert files.problem == f"{folder.path} is not understood: TypeError"


@pytest.mark.parametrize("how", ["emptied", "removed", "unreadable"])
def test_files_that_go_away_leave_the_last_good_binding(
    folder: Folder, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write()
    source = folder.source()
    before = source.current()
    if how == "emptied":
        folder.mount(folder.path, {})
    elif how == "removed":
        shutil.rmtree(folder.path)
    else:
        # Root reads everything, so the refusal is made where it would come from.
        folder.write(api_key=NEW)
        monkeypatch.setattr(Path, "read_text", _refuse)

    assert source.reload() is before


def _refuse(*_: Any, **__: Any) -> str:
    raise PermissionError(13, "Permission denied")


def test_what_could_not_be_read_is_tried_again(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", _refuse)
        source = folder.source()
        with pytest.raises(servicelink.LinkNotFound, match="Permission denied"):
            source.current()

    assert key_of(source.reload()) == OLD


def test_a_look_costs_one_readlink_and_not_more_than_every_50_ms(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write()
    seconds = 0.0
    looks: list[str] = []
    real = os.readlink
    files = SwappedFolder(folder.path, lambda path: (path / "api-key").read_text(), clock=lambda: seconds)
    files.current()

    def count(path: Any, **options: Any) -> Any:
        looks.append(str(path))
        return real(path, **options)

    monkeypatch.setattr(os, "readlink", count)
    monkeypatch.setattr(Path, "stat", _refuse)
    monkeypatch.setattr(Path, "read_text", _refuse)
    for step in range(100):
        seconds = step * 0.01
        assert files.current() == OLD

    # One second, a look every 50 ms: and nothing read while nothing changes.
    assert len(looks) <= 20
    assert set(looks) == {str(folder.path / "..data")}


def test_a_key_file_named_by_the_environment_is_followed(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(f"{OLD}\n")
    environ = {
        "API_URL": "http://api",
        "API_API_KEY_FILE": str(key_file),
        "SERVICE_BINDING_ROOT": str(tmp_path / "none"),
    }
    source = observe_source("api", Protocol.REST, environ)
    before = source.current()
    fresh = tmp_path / "fresh"
    fresh.write_text(NEW)
    fresh.rename(key_file)

    assert isinstance(source, KeyFileSource)
    assert (key_of(before), key_of(source.reload())) == (OLD, NEW)


def test_a_key_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(servicelink.LinkNotFound, match=f"{tmp_path}/key cannot be read: No such file") as missing:
        KeyFileSource("api", "http://api", tmp_path / "key").current()

    assert "understood" not in str(missing.value)


def test_a_link_to_nowhere_beside_a_key_keeps_no_rotation_back(tmp_path: Path) -> None:
    for name, text in (("uri", "http://api"), ("api-key", OLD)):
        (tmp_path / name).write_text(text)
    source = FolderSource(tmp_path, Protocol.REST)
    before = source.current()
    # As editors lock a file.
    (tmp_path / ".#api-key").symlink_to("somebody@host.1:2")
    (tmp_path / "api-key").write_text(NEW)

    assert (key_of(before), key_of(source.reload())) == (OLD, NEW)


HEADERS_OF_OTHERS = ["host", "content-length", "transfer-encoding", "x-request-id", "X-Correlation-ID", "traceparent"]


@pytest.mark.parametrize("name", ["a:b", "x y", "x-key\r\nx: y", "é", *HEADERS_OF_OTHERS, "x-servicelink-link"])
def test_a_header_that_holds_no_key_leaves_the_last_good_one(folder: Folder, name: str) -> None:
    folder.write(header="x-pay-key")
    key_file = KeyFileSource("api", "http://api", folder.path / "api-key")
    sources: list[FolderSource | KeyFileSource] = [folder.source(), key_file]
    before = [source.current().credential for source in sources]
    folder.write(header=name, api_key=NEW)
    with pytest.raises(servicelink.LinkNotFound, match="its header"):
        folder.source().current()

    assert [source.reload().credential for source in sources] == before
    assert [credential and credential.header for credential in before] == ["x-pay-key"] * 2


def test_a_file_whose_time_is_set_back_is_read_again(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("a" * 20)
    before = key_file.stat()
    source = KeyFileSource("api", "http://api", key_file)
    first = key_of(source.current())
    key_file.write_text("b" * 20)
    os.utime(key_file, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert (first, key_of(source.reload())) == ("a" * 20, "b" * 20)


def test_what_was_too_much_for_a_moment_is_read_at_the_next(folder: Folder) -> None:
    # As often as a look tries.
    fails = [*[MemoryError()] * 4, None]

    def parse(path: Path) -> str:
        if error := fails.pop(0):
            raise error
        return (path / "uri").read_text()

    folder.write()
    files = SwappedFolder(folder.path, parse)
    first, problem = files.current(), files.problem

    assert (first, files.reload()) == (None, FILES["uri"])
    assert str(problem).endswith("cannot be read: MemoryError")


@pytest.mark.parametrize("half", ["", " \n", NEW[:20], NEW[:-1]])
def test_a_key_file_that_is_half_written_leaves_the_last_good_key(tmp_path: Path, half: str) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(OLD)
    source = KeyFileSource("api", "http://api", key_file)
    source.current()
    key_file.write_text(half)
    meanwhile = key_of(source.reload())
    key_file.write_text(NEW)

    assert (meanwhile, key_of(source.reload())) == (OLD, NEW)


def test_a_key_that_is_none_of_ours_is_taken_as_it_is() -> None:
    credential = parse_credential(" shared-secret\n")

    assert (credential.text, credential.kid) == ("shared-secret", "")
    assert "shared-secret" not in repr(credential)


def test_whoever_comes_while_it_is_read_for_the_first_time_waits_for_it(folder: Folder) -> None:
    folder.write()
    answered = threading.Event()
    answers: list[str | None] = []

    def parse(path: Path) -> str:
        other.start()
        # Whoever does not wait would have an answer by then, and it would be none.
        answered.wait(0.2)
        return (path / "uri").read_text()

    files = SwappedFolder(folder.path, parse)

    def ask() -> None:
        answers.append(files.current())
        answered.set()

    other = threading.Thread(target=ask)
    answers.append(files.current())
    other.join()

    assert answers == [FILES["uri"]] * 2


@pytest.mark.parametrize("is_strict", [False, True])
def test_what_is_swapped_while_it_is_read_is_read_anew(folder: Folder, *, is_strict: bool) -> None:
    def parse(path: Path) -> tuple[str, ...]:
        before = (path / "uri").read_text()
        if before == FILES["uri"]:
            # What is read next went away with its folder, and looks like a file that is absent.
            write_version(folder, 1)
        if is_strict and not (path / "header").exists():
            raise ValueError("it has no header")
        return before, (path / "header").read_text() if (path / "header").exists() else ""

    folder.write(header="x-key-0")
    files = SwappedFolder(folder.path, parse)

    assert files.current() == ("http://api-1:80", "x-key-1")
    assert files.problem is None


def write_version(folder: Folder, number: int) -> None:
    """Swap in files that all name one number, and remove those before at once, as the kubelet does."""
    before = list(folder.path.glob("..2026_*"))
    document = render_link_document(LinkDocument(f"shop/web-{number}", f"backend/api-{number}"))
    key = render_key(f"{number:08d}", number.to_bytes(32, "big")).text
    folder.write(uri=f"http://api-{number}:80", api_key=key, header=f"x-key-{number}", **{"link.json": document})
    for old in before:
        shutil.rmtree(old)


def number_of(binding: Binding) -> int | None:
    """Answer the number that all parts of a binding name, None for one that is torn."""
    assert binding.credential is not None
    number = int(binding.credential.kid)
    whole = (f"http://api-{number}:80", f"x-key-{number}", f"shop/web-{number}")
    return number if (binding.uri, binding.credential.header, binding.link) == whole else None


@pytest.mark.proof
@pytest.mark.traffic
@pytest.mark.timeout(0)
def test_swaps_under_readers_never_give_a_torn_binding(folder: Folder, request: pytest.FixtureRequest) -> None:
    swaps: int = request.config.getoption("--swaps")
    write_version(folder, 0)
    source = folder.source()
    source.current()
    seen: set[int | None] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(number_of(source.reload()))

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for number in range(1, swaps):
        write_version(folder, number)
    done.set()
    for reader in readers:
        reader.join()

    assert None not in seen
    assert len(seen) > 10
    assert number_of(source.reload()) == swaps - 1
