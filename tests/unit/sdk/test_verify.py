"""A verifier's folder is followed as it is swapped, and decides by key, expiry, rules and cap."""

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from servicelink.verify import Allowed, Code, Decision, Peer, Refused, RestCall, RpcCall, SharedKeys, VerifierFiles
from servicelink_contract.key import render_key
from servicelink_contract.paths import parse_pattern
from servicelink_contract.rules import GrpcRule, Protocol, RestRule
from servicelink_contract.verifier import KeyEntry, LinkEntry, Mode, Verifier, render_verifier

NOW = dt.datetime(2026, 11, 24, 12, 0, tzinfo=dt.UTC)
KEY = render_key("k7Q2M4ZB", bytes(range(32)))
SAME_KID = render_key("k7Q2M4ZB", bytes(range(1, 33)))
ENTRY = KeyEntry(KEY.kid, KEY.sha256, NOW - dt.timedelta(days=1))
READS = RestRule(frozenset({"GET"}), (parse_pattern("/v1/**"),))
LINK = LinkEntry("shop/web", "uid-1", 8080, Protocol.REST, (ENTRY,), allow=(READS,))
VERIFIER = Verifier("shop/api", Mode.ENFORCE, "x-service-auth", "/graphql", (LINK,))
GET = RestCall("GET", "/v1/items")


@dataclass(slots=True)
class World:
    """A folder, its reader, and the hands of its clock."""

    folder: Path
    mount: Callable[[Path, Mapping[str, str]], None]
    seconds: float = 0.0

    def files(self) -> VerifierFiles:
        """Answer a reader of the folder."""
        return VerifierFiles(self.folder, clock=lambda: self.seconds, now=lambda: NOW)

    def write(self, verifier: Verifier, **options: int) -> None:
        """Swap the verifier in, and let the next check be due."""
        shards = render_verifier(verifier, **options)
        self.mount(self.folder, {f"shard-{place}.json": text for place, text in enumerate(shards)})
        self.seconds += 1


@pytest.fixture
def world(tmp_path: Path, mount: Callable[[Path, Mapping[str, str]], None]) -> World:
    return World(tmp_path / "verifier", mount)


def ask(files: VerifierFiles | SharedKeys, text: str | None = KEY.text, call: RestCall = GET) -> Decision:
    return files.decide([] if text is None else [(b"x-service-auth", text.encode())], call)


def code(decision: Decision) -> Code | None:
    return decision.verdict.code if isinstance(decision.verdict, Refused) else None


def test_a_key_of_the_verifier_is_allowed_and_names_its_link(world: World) -> None:
    world.write(VERIFIER)

    assert ask(world.files()).verdict == Allowed("shop/web", "uid-1", KEY.kid)


@pytest.mark.parametrize("text", [None, "", "nonsense", KEY.text[:-1] + "0", SAME_KID.text])
def test_no_key_a_mistyped_one_and_another_with_the_same_kid_are_refused(world: World, text: str | None) -> None:
    world.write(VERIFIER)
    decision = ask(world.files(), text)

    assert (code(decision), decision.passes, decision.identity) == (Code.INVALID_SERVICE_AUTH, False, None)
    assert decision.verdict.link is None
    assert not text or text not in repr(decision)


@pytest.mark.parametrize(("ends_in", "refused"), [(1, None), (0, Code.INVALID_SERVICE_AUTH)])
def test_a_key_is_refused_from_its_end_on(world: World, ends_in: int, refused: Code | None) -> None:
    key = replace(ENTRY, not_after=NOW + dt.timedelta(seconds=ends_in))
    world.write(replace(VERIFIER, links=(replace(LINK, keys=(key,)),)))

    assert code(ask(world.files())) == refused


@pytest.mark.parametrize(
    "call",
    [RestCall("POST", "/v1/items"), RestCall("GET", "/v2"), RestCall("GET", "/v1/%2e%2e/x"), RestCall("GET", "")],
)
def test_what_the_rules_do_not_name_is_denied_to_a_verified_link(world: World, call: RestCall) -> None:
    world.write(VERIFIER)
    verdict = ask(world.files(), call=call).verdict

    assert isinstance(verdict, Refused)
    assert (verdict.code, verdict.link, verdict.kid) == (Code.PERMISSION_DENIED, "shop/web", KEY.kid)


@pytest.mark.parametrize(
    "link",
    [
        replace(LINK, allow=None, cap=()),
        replace(LINK, cap=(RestRule(None, (parse_pattern("/v1/other"),)),)),
        replace(LINK, allow=None, protocol=Protocol.GRPC),
    ],
)
def test_the_cap_holds_beside_the_rules_and_another_protocol_is_not_allowed(world: World, link: LinkEntry) -> None:
    world.write(replace(VERIFIER, links=(link,)))

    assert code(ask(world.files())) == Code.PERMISSION_DENIED


def test_a_header_that_names_another_path_is_denied_here_as_well(world: World) -> None:
    world.write(VERIFIER)
    headers = [(b"x-service-auth", KEY.text.encode()), (b"X-Original-URL", b"/admin")]

    assert code(world.files().decide(headers, GET)) is Code.PERMISSION_DENIED


def test_of_two_links_with_one_key_the_first_is_meant(world: World) -> None:
    world.write(replace(VERIFIER, links=(LINK, replace(LINK, link="shop/zoo", uid="uid-2"))))

    assert ask(world.files()).identity == Allowed("shop/web", "uid-1", KEY.kid)


def test_audit_refuses_nobody_says_what_it_would_refuse_and_makes_up_no_identity(world: World) -> None:
    world.write(replace(VERIFIER, mode=Mode.AUDIT))
    decision = ask(world.files(), SAME_KID.text)

    assert decision.passes
    assert decision.identity is None
    assert code(decision) == Code.INVALID_SERVICE_AUTH


def test_a_folder_that_is_absent_or_empty_refuses_until_files_come(world: World) -> None:
    files = world.files()
    absent = ask(files)
    world.mount(world.folder, {})
    world.seconds += 1
    empty = ask(files)
    world.write(VERIFIER)

    assert [absent.passes, empty.passes, ask(files).passes] == [False, False, True]


def test_an_emptied_folder_refuses_also_where_there_was_a_verifier(world: World) -> None:
    world.write(VERIFIER)
    files = world.files()
    before = ask(files)
    world.mount(world.folder, {})
    world.seconds += 1

    assert [before.passes, ask(files).passes] == [True, False]


def test_the_last_good_verifier_decides_while_the_newest_is_not_understood(world: World) -> None:
    world.write(VERIFIER)
    files = world.files()
    before = ask(files)
    world.mount(world.folder, {"shard-0.json": '{"head": {"format": 99}}'})
    world.seconds += 1

    assert [before.passes, ask(files).passes] == [True, True]
    assert "is not understood" in (files.problem or "")


def test_a_swap_is_seen_after_50_ms_and_not_before(world: World) -> None:
    world.write(VERIFIER)
    files = world.files()
    ask(files)
    seconds = world.seconds
    world.write(replace(VERIFIER, links=()))
    world.seconds = seconds + 0.049
    early = ask(files)
    world.seconds = seconds + 0.05

    assert [early.passes, ask(files).passes] == [True, False]


def test_shards_are_read_through_one_target(world: World) -> None:
    """The outer names point to another revision here; a reader that used them would find no whole verifier."""
    world.write(VERIFIER)
    outer = world.folder / "shard-0.json"
    outer.unlink()
    outer.write_text("{}")

    assert ask(world.files()).passes


def test_several_shards_are_one_verifier(world: World) -> None:
    many = tuple(replace(LINK, link=f"shop/web-{n}", keys=()) for n in range(20))
    world.write(replace(VERIFIER, links=(*many, LINK)), shard_bytes=1000)

    assert len(list(world.folder.glob("shard-*.json"))) > 1
    assert ask(world.files()).passes


def test_plain_files_are_followed_by_their_times(world: World) -> None:
    world.folder.mkdir()
    [text] = render_verifier(replace(VERIFIER, links=()))
    (world.folder / "shard-0.json").write_text(text)
    files = world.files()
    before = ask(files)
    [text] = render_verifier(VERIFIER)
    (world.folder / "shard-0.json").write_text(text)
    world.seconds += 1

    assert [before.passes, ask(files).passes] == [False, True]


@pytest.mark.parametrize(
    "names", [(b"x-service-auth", b"X-Service-Auth"), (b"x-service-auth", b"x_service_auth"), (b"x_service-auth",)]
)
def test_a_doubled_header_and_twins_are_refused(world: World, names: tuple[bytes, ...]) -> None:
    world.write(VERIFIER)
    decision = world.files().decide([(name, KEY.text.encode()) for name in names], GET)

    assert code(decision) == Code.INVALID_SERVICE_AUTH


@pytest.mark.parametrize(
    ("text", "passes"), [("one", True), ("two", True), ("three", False), ("", False), ("é", False)]
)
def test_a_shared_key_lets_in_whoever_has_one(text: str, passes: bool) -> None:  # noqa: FBT001 - a table's column
    assert ask(SharedKeys(["one", "two"]), text).passes is passes


@pytest.mark.parametrize("keys", [[], [""], ["one", ""]])
def test_no_shared_key_and_an_empty_one_are_errors(keys: list[str]) -> None:
    with pytest.raises(ValueError, match="shared key"):
        SharedKeys(keys)


CHARGES = LinkEntry(
    "shop/web",
    "uid-1",
    50051,
    Protocol.GRPC,
    (ENTRY,),
    allow=(GrpcRule("payments.v1.Payments", frozenset({"Charge"})),),
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/payments.v1.Payments/Charge", None),
        ("/payments.v1.Payments/Refund", Code.PERMISSION_DENIED),
        ("/payments.v1.payments/Charge", Code.PERMISSION_DENIED),
        ("/payments.v1.Payments/charge", Code.PERMISSION_DENIED),
        ("/payments.v1.Payments/Charge/", Code.PERMISSION_DENIED),
        ("//payments.v1.Payments/Charge", Code.PERMISSION_DENIED),
        ("/payments.v1.Payments/%43harge", Code.PERMISSION_DENIED),
        ("/payments.v1.Payments/Charge\n", Code.PERMISSION_DENIED),
        ("payments.v1.Payments/Charge", Code.PERMISSION_DENIED),
        ("", Code.PERMISSION_DENIED),
    ],
)
def test_a_grpc_call_is_judged_by_service_and_method_as_they_are_written(
    world: World, path: str, expected: Code | None
) -> None:
    world.write(replace(VERIFIER, links=(CHARGES,)))
    decision = world.files().decide([(b"x-service-auth", KEY.text.encode())], RpcCall(path))

    assert code(decision) == expected


@pytest.mark.parametrize("path", ["/payments.v1.Payments/Charge/", "/", "/payments.v1.Payments/"])
def test_a_grpc_call_that_names_no_method_is_denied_also_without_rules(world: World, path: str) -> None:
    world.write(replace(VERIFIER, links=(replace(CHARGES, allow=None),)))
    decision = world.files().decide([(b"x-service-auth", KEY.text.encode())], RpcCall(path))

    assert code(decision) == Code.PERMISSION_DENIED


SPIFFE = "spiffe://cluster.local/ns/shop/link/web"
BY_CERTIFICATE = replace(LINK, keys=(), identity=SPIFFE)
PEER = Peer((SPIFFE,), "3fa1", NOW - dt.timedelta(minutes=5), NOW + dt.timedelta(hours=1))


def show(world: World, peer: Peer | None, headers: list[tuple[bytes, bytes]] | None = None) -> Decision:
    """Ask with a certificate."""
    return world.files().decide(headers or [], GET, peer)


def test_a_certificate_with_the_identity_of_a_link_is_allowed_and_named_by_its_serial(world: World) -> None:
    world.write(replace(VERIFIER, links=(BY_CERTIFICATE,)))

    assert show(world, PEER).verdict == Allowed("shop/web", "uid-1", "3fa1")
    assert code(world.files().decide([], RestCall("POST", "/v1/items"), PEER)) == Code.PERMISSION_DENIED


@pytest.mark.parametrize(
    "peer",
    [
        None,
        replace(PEER, uris=()),
        replace(PEER, uris=(SPIFFE, "spiffe://cluster.local/ns/shop/link/other")),
        replace(PEER, uris=(f"{SPIFFE}/",)),
        replace(PEER, uris=(SPIFFE[:-1],)),
        replace(PEER, uris=(f"{SPIFFE}2",)),
        replace(PEER, uris=(SPIFFE.upper(),)),
        replace(PEER, uris=(SPIFFE.replace("cluster.local", "other.local"),)),
        replace(PEER, not_after=NOW),
        replace(PEER, not_before=NOW + dt.timedelta(seconds=1)),
        replace(PEER, problem="its root is not trusted any more"),
    ],
)
def test_any_other_certificate_is_refused(world: World, peer: Peer | None) -> None:
    world.write(replace(VERIFIER, links=(BY_CERTIFICATE,)))

    assert code(show(world, peer)) == Code.INVALID_SERVICE_AUTH


def test_a_certificate_that_was_issued_before_its_time_is_refused_at_once(world: World) -> None:
    world.write(replace(VERIFIER, links=(replace(BY_CERTIFICATE, issued_after=PEER.not_before),)))
    younger = replace(PEER, not_before=PEER.not_before + dt.timedelta(seconds=1))

    assert [code(show(world, peer)) for peer in (PEER, younger)] == [Code.INVALID_SERVICE_AUTH, None]


def test_a_wrong_key_is_refused_whatever_certificate_comes_with_it(world: World) -> None:
    world.write(replace(VERIFIER, links=(BY_CERTIFICATE,)))

    assert code(show(world, PEER, [(b"x-service-auth", SAME_KID.text.encode())])) == Code.INVALID_SERVICE_AUTH
    assert code(show(world, PEER, [(b"x_service_auth", b"")])) == Code.INVALID_SERVICE_AUTH


@pytest.mark.parametrize("uid", ["uid-0", "uid-2"])
def test_a_link_that_was_made_anew_is_known_beside_the_entry_that_is_held(world: World, uid: str) -> None:
    held = replace(BY_CERTIFICATE, uid=uid, allow=())
    world.write(replace(VERIFIER, links=(held, BY_CERTIFICATE)))

    assert show(world, PEER).verdict == Allowed("shop/web", "uid-1", "3fa1")


def test_a_shared_key_is_not_replaced_by_a_certificate() -> None:
    assert code(SharedKeys(["one"]).decide([], GET, PEER)) == Code.INVALID_SERVICE_AUTH
