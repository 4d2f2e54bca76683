"""What the operations of a GraphQL document select at their root, read by graphql-core and remembered.

A document is counted before it is parsed: parsing a token takes some microseconds, counting it a hundredth of that.
"""

import re
from collections.abc import Iterable, Sequence
from hashlib import sha256

from graphql import GraphQLError, parse
from graphql.language import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    OperationDefinitionNode,
    SelectionNode,
)

from servicelink.graphql.asked import Asked, RefusedQueryError
from servicelink_contract.rules import GraphQLRequest, OperationType

# Of all documents of one request together.
MOST_TOKENS = 2000
# How many documents, and bytes of what is kept of one: some twenty root fields, however much there is below them. More
# at the root has hardly any, and callers could fill the memory with such.
MOST_REMEMBERED = 1024
LARGEST_REMEMBERED = 2048
_BYTES_OF_TEXT = 64
# GraphQL specification, section 2.1: what is neither ignored nor part of a longer token. What is no GraphQL may count
# for more than the parser reads of it, never for less: by this count a document is let through to the parser.
_TOKEN = re.compile(
    r"""
    \#[^\n\r]*
    | ([_A-Za-z][_0-9A-Za-z]*
    | \.\.\.
    | \"\"\"(?:[^"\\]|\\\"\"\"|\\|"(?!""))*(?:\"\"\")?
    | "(?:[^"\\\n\r]|\\.)*"?
    | -?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?
    | [^\s,\ufeff])
    """,
    re.VERBOSE,
)
_TYPES = {
    "query": OperationType.QUERY,
    "mutation": OperationType.MUTATION,
    "subscription": OperationType.SUBSCRIPTION,
}
_remembered: dict[bytes, tuple[GraphQLRequest, ...]] = {}


def parse_operations(asked: Sequence[Asked]) -> tuple[GraphQLRequest, ...]:
    """Answer the operations that are asked for, one for each member of a batch; raises RefusedQueryError."""
    room = MOST_TOKENS
    numbers: list[int] = []
    for one in asked:
        numbers.append(count_tokens(one.query, room))
        room -= numbers[-1]
        if room < 0:
            raise RefusedQueryError(f"it has more than {MOST_TOKENS} tokens")
    return tuple(
        _choose(_remember(one.query, number), one.operation_name) for one, number in zip(asked, numbers, strict=True)
    )


def count_tokens(query: str, most: int) -> int:
    """Count the tokens of a document, at most one more than `most`; comments count, so that none are free."""
    number = 0
    for number, _ in enumerate(_TOKEN.finditer(query), 1):
        if number > most:
            break
    return number


def _choose(operations: tuple[GraphQLRequest, ...], name: str | None) -> GraphQLRequest:
    if name is not None:
        named = [one for one in operations if one.name == name]
        if not named:
            raise RefusedQueryError("it has no operation of that name")
        return named[0]
    if len(operations) != 1:
        raise RefusedQueryError("it has several operations, or none, and no operationName")
    return operations[0]


def _remember(query: str, tokens: int) -> tuple[GraphQLRequest, ...]:
    """Answer the operations of a document as parsed before, if it was; by its hash, since texts are long."""
    digest = sha256(query.encode("utf-8", "surrogatepass")).digest()
    found = _remembered.get(digest)
    if found is None:
        found = _parse(query, tokens)
        if _weigh(found) <= LARGEST_REMEMBERED:
            if len(_remembered) >= MOST_REMEMBERED:
                _remembered.clear()
            _remembered[digest] = found
    return found


def _weigh(operations: tuple[GraphQLRequest, ...]) -> int:
    """Answer about how many bytes operations take: each name is a text of its own."""
    return sum(len(text) + _BYTES_OF_TEXT for one in operations for text in (one.name, *one.fields))


def _parse(query: str, tokens: int) -> tuple[GraphQLRequest, ...]:
    try:
        document = parse(query, no_location=True, max_lexical_tokens=tokens, max_comments=tokens)
    # RecursionError: also where the library has no room left to say so.
    except (GraphQLError, RecursionError) as error:
        raise RefusedQueryError("its query is no GraphQL, or nested too deep") from error
    fragments = _fragments(document)
    operations = tuple(
        GraphQLRequest(
            _TYPES[one.operation.value],
            one.name.value if one.name else "",
            tuple(dict.fromkeys(_root_fields(one.selection_set.selections, fragments))),
        )
        for one in document.definitions
        if isinstance(one, OperationDefinitionNode)
    )
    names = [one.name for one in operations]
    if len(set(names)) != len(names) or ("" in names and len(names) > 1):
        raise RefusedQueryError("two of its operations have one name, or none")
    return operations


def _fragments(document: DocumentNode) -> dict[str, FragmentDefinitionNode]:
    fragments: dict[str, FragmentDefinitionNode] = {}
    for one in document.definitions:
        if isinstance(one, FragmentDefinitionNode):
            if one.name.value in fragments:
                raise RefusedQueryError("two of its fragments have one name")
            fragments[one.name.value] = one
        elif not isinstance(one, OperationDefinitionNode):
            raise RefusedQueryError("it defines something else than operations and fragments")
    return fragments


def _root_fields(selections: Sequence[SelectionNode], fragments: dict[str, FragmentDefinitionNode]) -> Iterable[str]:
    """Answer the fields by name, whatever their alias; of fragments, each looked at once, also of cycles."""
    waiting, seen = list(selections), set[str]()
    while waiting:
        one = waiting.pop()
        if isinstance(one, FieldNode):
            yield one.name.value
            continue
        if isinstance(one, FragmentSpreadNode):
            name = one.name.value
            if name in seen:
                continue
            seen.add(name)
            if name not in fragments:
                raise RefusedQueryError("it spreads a fragment that is not there")
            waiting += fragments[name].selection_set.selections
        else:
            waiting += one.selection_set.selections  # type: ignore[attr-defined] # an inline fragment
