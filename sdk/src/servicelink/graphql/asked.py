"""What an HTTP request asks of a GraphQL server, read so that no two programs can read it in two ways.

By the GraphQL over HTTP specification (a draft), and stricter: what servers read in different ways, such as a query
both in the URL and in the body, or a name that stands twice in an object, is refused. Free of I/O, and of any GraphQL
library.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

# Bytes of a body, or of a URL's query.
LARGEST_BODY = 32 * 1024
TOO_LARGE = f"it asks with more than {LARGEST_BODY} bytes"
_MOST_PARAMETERS = 64
_PARAMETERS = frozenset({"query", "operationName", "variables", "extensions"})
_SEPARATORS = re.compile(rb"[&;]")


class RefusedQueryError(ValueError):
    """A request that is not judged but refused; the message names the reason, not what was asked."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One document to execute, and which of its operations."""

    query: str
    operation_name: str | None


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request as it came: names of headers in lower case."""

    method: str
    url_query: bytes
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes


def parse_asked(request: HttpRequest) -> tuple[Asked, ...]:
    """Answer what a request asks, several times for a batch; raises RefusedQueryError."""
    if len(request.url_query) > LARGEST_BODY or len(request.body) > LARGEST_BODY:
        raise RefusedQueryError(TOO_LARGE)
    if request.method == "GET":
        return (_parse_url(request),)
    if request.method != "POST":
        raise RefusedQueryError("it comes neither by GET nor by POST")
    if any(name in _PARAMETERS for name in _names(request.url_query)):
        raise RefusedQueryError("it asks in the URL of a POST")
    _require_plain_json(request.headers)
    return _parse_body(request.body)


def _parse_url(request: HttpRequest) -> Asked:
    if request.body:
        raise RefusedQueryError("it asks by GET with a body")
    names = _names(request.url_query)
    if any(names.count(name) > 1 for name in _PARAMETERS):
        raise RefusedQueryError("a parameter stands twice in its URL")
    said: dict[str, Any] = {name: text for name, text in _pairs(request.url_query) if name in _PARAMETERS}
    for name in ("variables", "extensions"):
        if name in said:
            said[name] = _parse_json(said[name])
    return _parse_member(said)


def _pairs(url_query: bytes) -> list[tuple[str, str]]:
    try:
        text = url_query.decode("ascii")
        return parse_qsl(text, keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise RefusedQueryError("its URL's query is not understood") from error


def _names(url_query: bytes) -> list[str]:
    """Answer the names of parameters, also those that only servers see that part at `;`."""
    parts = _SEPARATORS.split(url_query)
    if len(parts) > _MOST_PARAMETERS:
        raise RefusedQueryError("its URL has too many parameters")
    return [unquote_plus(part.partition(b"=")[0].decode("latin-1")) for part in parts]


def _require_plain_json(headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Raise RefusedQueryError unless the body is JSON as it stands: not compressed, in no other encoding."""
    encodings = [value for name, value in headers if name == b"content-encoding"]
    if any(value.strip().lower() != b"identity" for value in encodings):
        raise RefusedQueryError("its body has a Content-Encoding")
    types = [value for name, value in headers if name == b"content-type"]
    if len(types) != 1:
        raise RefusedQueryError("it has no Content-Type, or several")
    kind, *parameters = (part.strip().lower() for part in types[0].split(b";"))
    if kind != b"application/json" or not all(_is_utf8(parameter) for parameter in parameters):
        raise RefusedQueryError("its Content-Type is not application/json in UTF-8")


def _is_utf8(parameter: bytes) -> bool:
    return parameter.replace(b'"', b"") in {b"charset=utf-8", b"charset=utf8"}


def _parse_body(body: bytes) -> tuple[Asked, ...]:
    try:
        # Not by json.loads, which would take UTF-16 as well.
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RefusedQueryError("its body is no UTF-8") from error
    found = _parse_json(text)
    if not isinstance(found, list):
        return (_parse_member(found),)
    if not found:
        raise RefusedQueryError("it is an empty batch")
    return tuple(_parse_member(member) for member in found)


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_without_twins, parse_constant=_refuse_constant)
    except RefusedQueryError:
        raise
    # RecursionError: nested deeper than any request is.
    except (ValueError, RecursionError) as error:
        raise RefusedQueryError("it is no JSON") from error


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RefusedQueryError("a name stands twice in an object")
    return found


def _refuse_constant(name: str) -> None:
    raise RefusedQueryError(f"{name} is no JSON")


def _parse_member(member: Any) -> Asked:
    if not isinstance(member, dict) or member.keys() - _PARAMETERS:
        # Also a persisted query that is named by another field than `extensions`.
        raise RefusedQueryError("it is no object of query, operationName, variables and extensions")
    query, name = member.get("query"), member.get("operationName")
    if not isinstance(query, str) or not query:
        raise RefusedQueryError("it has no query: persisted ones cannot be judged")
    if name is not None and (not isinstance(name, str) or not name):
        raise RefusedQueryError("its operationName is no name")
    for field in ("variables", "extensions"):
        if not isinstance(member.get(field), dict | None):
            raise RefusedQueryError(f"its {field} are no object")
    _require_own_hash(query, member.get("extensions") or {})
    return Asked(query, name)


def _require_own_hash(query: str, extensions: dict[str, Any]) -> None:
    """A server might look up what the hash names, and never read the query beside it."""
    persisted = extensions.get("persistedQuery")
    if persisted is None:
        return
    digest = sha256(query.encode("utf-8", "surrogatepass")).hexdigest()
    if not isinstance(persisted, dict) or persisted.get("sha256Hash") != digest:
        raise RefusedQueryError("its persistedQuery is not the hash of its query")
