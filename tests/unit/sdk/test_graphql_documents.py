"""What it takes to read a GraphQL document is bounded beforehand, and what is kept of it too."""

import re
from contextlib import suppress

import pytest
from graphql import GraphQLSyntaxError, Lexer, Source, TokenKind
from hypothesis import given, settings
from hypothesis import strategies as st

from servicelink.graphql import documents
from servicelink.graphql.asked import Asked, RefusedQueryError
from servicelink.graphql.documents import MOST_TOKENS, count_tokens, parse_operations
from servicelink_contract.rules import GraphQLRequest, OperationType


def test_a_document_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_remembered", {})
    first = parse_operations([Asked("{ order }", None)])
    monkeypatch.setattr(documents, "parse", None)

    assert parse_operations([Asked("{ order }", None)]) == first
    assert first == (GraphQLRequest(OperationType.QUERY, "", ("order",)),)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_remembered", {})
    monkeypatch.setattr(documents, "MOST_REMEMBERED", 10)
    for number in range(100):
        parse_operations([Asked(f"{{ f{number} }}", None)])

    assert len(documents._remembered) <= 10  # noqa: SLF001 - that it is bounded can be seen there only


@pytest.mark.parametrize(
    ("query", "is_kept"),
    [
        ("query Order { order(id: 1) { id items " + "{ a " * 100 + "}" * 100 + " } user }", True),
        ("{ " + "order " * 1000 + "}", True),
        ("{ " + " ".join(f"f{number}" for number in range(100)) + " }", False),
        (" ".join(f"query Q{number} {{ order }}" for number in range(100)), False),
        ("{ " + "f" * 3000 + " }", False),
        ("query " + "Q" * 3000 + " { order }", False),
        ("{ order", False),
        ("{ ...missing }", False),
    ],
)
def test_a_document_is_remembered_by_how_much_there_is_to_keep_of_it(
    monkeypatch: pytest.MonkeyPatch, query: str, *, is_kept: bool
) -> None:
    monkeypatch.setattr(documents, "_remembered", {})
    with suppress(RefusedQueryError):
        parse_operations([Asked(query, None)])

    assert bool(documents._remembered) is is_kept  # noqa: SLF001 - it is kept there only


def test_the_tokens_of_a_batch_count_together() -> None:
    half = "{ " + "a " * (MOST_TOKENS // 2) + "}"
    parse_operations([Asked(half, None)])
    with pytest.raises(RefusedQueryError, match="tokens"):
        parse_operations([Asked(half, None), Asked(half, None)])


@pytest.mark.parametrize(
    "query",
    [
        "{ a }",
        'query A($x: [Int!] = -1.5e3) @b { c(d: "e # f \\" g") ...g }',
        '{ a(b: """c "d" \\""" e\\f""") c(d: """"""  e: "") }',
        "# one\n{a,b #two\r}",
        "{ a(b: 0 c: -0.5E+10 d: $e f: {g: [1 2 3]}) | & = @h }",
        "{ a(b: [1-1-1 0-0 -0.5-2.5e3-1E-2-3 1,2]) }",
        "\ufeff \t\r\n,",
    ],
)
def test_tokens_are_counted_as_the_parser_has_them(query: str) -> None:
    assert count_tokens(query, MOST_TOKENS) == tokens_read(query) + query.count("#") - query.count("e # f")


PIECES = ["1", "-1", "0", ".", "e", "E+", "-", "+", "...", '"', '"""', '\\"""', "\\", "\\n", "a", "{", "$", "&", "'"]
PIECES += [" ", ",", "\ufeff", "\n", "\r", "\t", "\x0b", "\xa0", "\u2028", "\ud800", "#", "\u00b2", "\u0661"]


@settings(max_examples=1000, database=None, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.characters(), max_size=30).map("".join))
def test_no_document_counts_less_than_the_parser_reads_of_it(query: str) -> None:
    assert count_tokens(query, MOST_TOKENS) >= tokens_read(query)


def tokens_read(query: str) -> int:
    """Answer how many tokens the parser has until it ends, or understands no more."""
    lexer = Lexer(Source(query))
    number = 0
    with suppress(GraphQLSyntaxError):
        while lexer.advance().kind is not TokenKind.EOF:
            number += 1
    return number


def test_no_more_of_a_document_is_parsed_than_was_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_TOKEN", re.compile(".{4}", re.DOTALL))
    for query in ("{a}\n", "#\n#\n{a}\n"):
        with pytest.raises(RefusedQueryError, match="no GraphQL"):
            parse_operations([Asked(query, None)])
