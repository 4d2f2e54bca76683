"""Deciding about a GraphQL request: read, parsed, and held against the rules of the link."""

import importlib
import logging
from contextlib import suppress

from servicelink.graphql.asked import HttpRequest, RefusedQueryError, parse_asked
from servicelink.verify import Decision, Known
from servicelink_contract.rules import OperationType

_log = logging.getLogger("servicelink")


def load() -> None:
    """Load what reads documents, which takes some hundred milliseconds; where it is not there, `judge` says so."""
    # Whatever is wrong with the library: a verifier that cannot be taken would let old keys stand.
    with suppress(Exception):
        importlib.import_module("servicelink.graphql.documents")


def judge(known: Known, request: HttpRequest) -> Decision:
    """Decide about a request of somebody known."""
    try:
        asked = parse_asked(request)
        # Here, since whoever serves no GraphQL has no need of the library.
        from servicelink.graphql.documents import parse_operations  # noqa: PLC0415 - as the comment says

        operations = parse_operations(asked)
    except RefusedQueryError as error:
        return known.refuse(f"the GraphQL request is refused: {error}")
    except ImportError:
        _log.error("a GraphQL link calls, and graphql-core is not there: install servicelink[graphql]")
        return known.refuse("graphql-core is not installed, so no GraphQL can be judged")
    if request.method == "GET" and any(one.type is not OperationType.QUERY for one in operations):
        return known.refuse("only queries may come by GET")
    return known.decide_graphql(operations)
