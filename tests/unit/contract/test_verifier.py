"""A verifier is read whole or not at all."""

import datetime as dt
import json
from dataclasses import replace

import pytest

from servicelink_contract.key import render_key
from servicelink_contract.paths import parse_pattern
from servicelink_contract.rules import GraphQLRule, GrpcRule, OperationType, Protocol, RestRule
from servicelink_contract.verifier import (
    KeyEntry,
    LinkEntry,
    Mode,
    Verifier,
    VerifierError,
    find_overflow,
    parse_verifier,
    render_verifier,
)

NOON = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
KEY = render_key("k7Q2M4ZB", bytes(32))
REST = LinkEntry(
    link="shop/checkout-to-payments",
    uid="4b0f",
    port=8080,
    protocol=Protocol.REST,
    keys=(KeyEntry(KEY.kid, KEY.sha256, NOON, NOON + dt.timedelta(days=1)), KeyEntry("k6P1AAAA", "0" * 64, NOON)),
    allow=(
        RestRule(frozenset({"POST", "GET"}), tuple(map(parse_pattern, ("/v1/charges/*", "/v1/**", "/")))),
        RestRule(None, (parse_pattern("/**"),)),
    ),
    cap=(),
)
GRPC = LinkEntry(
    link="shop/cart-to-payments",
    uid="77aa",
    port=9090,
    protocol=Protocol.GRPC,
    identity="spiffe://cluster.local/ns/shop/link/cart-to-payments",
    issued_after=NOON,
    allow=(GrpcRule("payments.v1.Payments", frozenset({"Charge"})), GrpcRule("a.B", None)),
)
GRAPHQL = LinkEntry(
    link="web/web-to-payments",
    uid="0c1d",
    port=8080,
    protocol=Protocol.GRAPHQL,
    keys=(KeyEntry("AAAAAAAA", "f" * 64, NOON),),
    allow=(GraphQLRule(OperationType.QUERY, frozenset({"OrderById"}), frozenset({"order"})),),
)
WHOLE = Verifier("payments/payments", Mode.ENFORCE, "x-service-auth", "/graphql", (GRAPHQL, REST, GRPC))


def many(number: int) -> Verifier:
    links = tuple(
        LinkEntry(f"shop/link-{place:05}", str(place), 80, Protocol.REST, (KeyEntry("AAAAAAAA", "f" * 64, NOON),))
        for place in range(number)
    )
    return Verifier("payments/payments", Mode.AUDIT, "x-service-auth", "/graphql", links)


def test_what_is_rendered_is_parsed() -> None:
    assert parse_verifier(render_verifier(WHOLE)) == replace(WHOLE, links=(GRPC, REST, GRAPHQL))


def test_the_trust_bundle_is_in_every_shard_and_absent_where_there_is_none() -> None:
    trusting = replace(many(40), trust="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    shards = render_verifier(trusting, shard_bytes=2000)

    assert len(shards) > 1
    assert all(len(shard.encode()) <= 2000 for shard in shards)
    assert parse_verifier(shards) == trusting
    assert all("trust" not in shard for shard in render_verifier(WHOLE))
    with pytest.raises(VerifierError):
        parse_verifier([shard.replace('"trust":"', '"trust":["').replace('-\\n"', '-\\n"]') for shard in shards])


def test_the_order_of_links_changes_nothing() -> None:
    turned = replace(WHOLE, links=WHOLE.links[::-1])

    assert render_verifier(turned) == render_verifier(WHOLE)


def test_nothing_of_a_key_but_its_hash_is_written() -> None:
    assert KEY.sha256 in "".join(render_verifier(WHOLE))
    assert KEY.text not in "".join(render_verifier(WHOLE))


def test_a_server_without_links_has_a_verifier() -> None:
    assert parse_verifier(render_verifier(many(0))) == many(0)


def test_links_are_dealt_out_to_shards_below_the_limit() -> None:
    shards = render_verifier(many(100), shard_bytes=4096)

    assert 2 < len(shards) <= 8
    assert all(len(shard.encode()) <= 4096 for shard in shards)
    assert parse_verifier(shards[::-1]) == many(100)


def test_more_links_than_eight_shards_hold_are_an_error_not_a_loss() -> None:
    with pytest.raises(ValueError, match="200 links do not fit into 8 shards of 2048 bytes"):
        render_verifier(many(200), shard_bytes=2048)


def test_a_link_that_fits_no_shard_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 links do not fit"):
        render_verifier(replace(WHOLE, links=(replace(REST, uid="u" * 1000),)), shard_bytes=500)


def test_shards_that_disagree_are_no_verifier() -> None:
    first, *rest = render_verifier(many(100), shard_bytes=4096)

    with pytest.raises(VerifierError, match="two revisions"):
        parse_verifier([first.replace('"mode":"Audit"', '"mode":"Enforce"'), *rest])


def test_a_missing_shard_is_no_verifier() -> None:
    shards = render_verifier(many(100), shard_bytes=4096)

    with pytest.raises(VerifierError, match=r"of \d shards are there"):
        parse_verifier(shards[1:])


def test_shards_of_two_revisions_are_no_verifier() -> None:
    """As a reader sees them in the middle of an update."""
    before, after = (render_verifier(many(number), shard_bytes=4096) for number in (100, 101))

    with pytest.raises(VerifierError, match="two revisions"):
        parse_verifier([before[0], *after[1:]])


def test_no_shard_at_all_is_no_verifier() -> None:
    with pytest.raises(VerifierError, match="no shard"):
        parse_verifier([])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"format":1', '"format":2'),
        ('"protocol":"REST"', '"protocol":"SOAP"'),
        ('"mode":"Enforce"', '"mode":"Relaxed"'),
        ('"paths":["/v1/charges/*"', '"paths":["/../*"'),
        ('"methods":["GET","POST"]', '"methods":"GET"'),
        ('"service":"a.B"', '"service":"a.B","only":"Tuesdays"'),
        ('"uid":"4b0f"', '"uid":"4b0f","only":"Tuesdays"'),
        ('"kid":"k6P1AAAA"', '"kid":"k6P1AAAA","only":"Tuesdays"'),
        ('"uid":"4b0f"', '"uid":"4b0f","uid":"4b10"'),
        ('"since":"2026-11-23T12:00:00Z"', '"since":"yesterday"'),
        ('"links":[', '"links":[7,'),
        ('{"head"', '["head"'),
        ('"port":8080', '"port":"8080"'),
        ('"port":8080', '"port":true'),
        ('"header":"x-service-auth"', '"header":["x-service-auth"]'),
        ('"of":1', '"of":1e999'),
        ('"of":1', '"of":1000000000000'),
        ('"format":1', '"format":1,"only":"Tuesdays"'),
        ('"methods":["GET","POST"]', '"methods":[["GET"]]'),
        ('"paths":["/v1/charges/*"', '"paths":[7'),
        ('"kid":"k6P1AAAA"', '"kid":null'),
        ('"links":[', '"links":' + "[" * 100_000),
        ("{", ""),
    ],
)
def test_what_is_not_understood_whole_is_refused(old: str, new: str) -> None:
    (text,) = render_verifier(WHOLE)
    assert old in text

    with pytest.raises(VerifierError):
        parse_verifier([text.replace(old, new, 1)])


def test_the_format_is_the_same_for_ever() -> None:
    """Servers with an older SDK read what a newer operator writes."""
    (text,) = render_verifier(Verifier("payments/payments", Mode.ENFORCE, "x-service-auth", "/graphql", (GRAPHQL,)))

    assert json.loads(text) == {
        "head": {
            "format": 1,
            "graphqlPath": "/graphql",
            "header": "x-service-auth",
            "mode": "Enforce",
            "of": 1,
            "revision": json.loads(text)["head"]["revision"],
            "service": "payments/payments",
            "shard": 0,
        },
        "links": [
            {
                "allow": [{"fields": ["order"], "operations": ["OrderById"], "type": "Query"}],
                "keys": [{"kid": "AAAAAAAA", "sha256": "f" * 64, "since": "2026-11-23T12:00:00Z"}],
                "link": "web/web-to-payments",
                "port": 8080,
                "protocol": "GraphQL",
                "uid": "0c1d",
            }
        ],
    }


def test_what_does_not_overflow_can_be_rendered_and_what_does_could_not() -> None:
    """The first links are served first; among them, room is left for one shard's uneven end only."""
    whole = many(1500)
    over = find_overflow(whole, shard_bytes=20_000)
    fitting = replace(whole, links=tuple(entry for entry in whole.links if entry not in over))

    assert over == whole.links[len(fitting.links) :]
    assert len(over) > 100
    assert parse_verifier(render_verifier(fitting, shard_bytes=20_000)) == fitting
    with pytest.raises(ValueError, match="do not fit"):
        render_verifier(replace(whole, links=whole.links[: len(fitting.links) + 10]), shard_bytes=20_000)


def test_an_entry_larger_than_a_shard_overflows_and_keeps_nobody_else_out() -> None:
    rules = tuple(RestRule(None, (parse_pattern(f"/{number:0200}"),)) for number in range(32))
    large = replace(REST, allow=rules)

    assert find_overflow(replace(WHOLE, links=(large, GRPC)), shard_bytes=3000) == (large,)


def test_a_verifier_that_surely_fits_is_not_measured() -> None:
    assert find_overflow(many(100)) == ()
