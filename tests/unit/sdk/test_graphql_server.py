"""A GraphQL link may ask for what its rules list, however the question is dressed; and bodies are handed on whole."""

import gzip
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from sdk_servers import GRAPHQL_KEY, GRAPHQL_LINK, NO_TRUST, VERIFIER, AsgiApp, write_verifier

import servicelink
from servicelink.graphql.asked import LARGEST_BODY
from servicelink.graphql.documents import MOST_TOKENS
from servicelink.verify import Code, Refused
from servicelink_contract.rules import GraphQLRule, OperationType
from servicelink_contract.verifier import Mode, Verifier

Serve = Callable[[Any], Awaitable[str]]
KEY = {"x-service-auth": GRAPHQL_KEY.text}
JSON = {"content-type": "application/json"}
ORDER = "query Order { order(id: 1) { id } }"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SERVICELINK_VERIFIER_DIR", str(tmp_path))
    write_verifier(tmp_path / "api")
    return tmp_path


def with_rules(*rules: GraphQLRule, cap: tuple[GraphQLRule, ...] | None = None) -> Verifier:
    """Answer a verifier whose only link is a GraphQL one with these rules."""
    return replace(VERIFIER, links=(replace(GRAPHQL_LINK, allow=rules, cap=cap),))


async def ask(
    address: str, body: Any = None, *, method: str = "POST", path: str = "/graphql", headers: Mapping[str, str] = JSON
) -> httpx.Response:
    """Ask, with the link's key; what is no bytes is JSON."""
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    async with httpx.AsyncClient(verify=NO_TRUST, trust_env=False) as client:
        return await client.request(method, address + path, content=content, headers={**KEY, **headers})


@pytest.mark.parametrize(
    "body",
    [
        {"query": ORDER},
        {"query": ORDER, "operationName": "Order", "variables": {"a": [1, None]}, "extensions": {"trace": 1}},
        {"query": ORDER, "operationName": None, "variables": None},
        {"query": "{ __typename mine: order { id } ... { user } ...f } fragment f on Query { user }"},
        {"query": f"{ORDER} mutation Drop {{ drop }}", "operationName": "Order"},
        [{"query": ORDER}, {"query": "{ user }"}],
        {"query": "{ user }", "extensions": {"persistedQuery": {"sha256Hash": sha256(b"{ user }").hexdigest()}}},
    ],
)
async def test_what_the_rules_list_passes_and_reaches_the_application_whole(
    root: Path, serve: Serve, body: Any
) -> None:
    app = AsgiApp()
    answer = await ask(await serve(servicelink.LinkMiddleware(app)), body)

    assert answer.status_code == 200
    assert [json.loads(text) for text in app.bodies] == [body]
    assert [link and link.link for link in app.links] == ["shop/app"]


@pytest.mark.parametrize(
    "query",
    [
        "{ secret }",
        "{ order: secret }",
        "{ order ...f } fragment f on Query { ...g } fragment g on Query { secret }",
        "{ order ... on Query @include(if: false) { secret } }",
        "mutation { order }",
        "subscription { order }",
        "{ __schema { types { name } } }",
        '{ order __type(name: "Query") { name } }',
        "{ ...f } fragment f on Query { ...f }",
        "query A { order } query B { order }",
        "query A { order } query A { secret }",
        "{ order } query B { order }",
        "{ order } fragment f on Query { a } fragment f on Query { b }",
        "{ order } type Query { order: Int }",
        "fragment f on Query { order }",
        "{ ...missing }",
        "{ order",
        "query { }",
        "",
        "{a" * 10_000,
        "{ " + "a " * MOST_TOKENS + "}",
        '{ order(a: """' + '\\"""' * 3000 + '""") }' + "}",
    ],
)
async def test_what_they_do_not_list_is_denied(root: Path, serve: Serve, query: str) -> None:
    app = AsgiApp()
    address = await serve(servicelink.LinkMiddleware(app))
    answers = [await ask(address, {"query": query}), await ask(address, [{"query": ORDER}, {"query": query}])]

    assert [(answer.status_code, answer.json()["error"]["code"]) for answer in answers] == [
        (403, "PERMISSION_DENIED")
    ] * 2
    assert app.scopes == []


GOOD = json.dumps({"query": ORDER}).encode()


@pytest.mark.parametrize(
    ("body", "headers", "path"),
    [
        (GOOD, {**JSON, "content-encoding": "gzip"}, "/graphql"),
        (gzip.compress(GOOD, mtime=0), {**JSON, "content-encoding": "gzip"}, "/graphql"),
        (GOOD, {}, "/graphql"),
        (GOOD, {"content-type": "application/graphql"}, "/graphql"),
        (GOOD, {"content-type": "application/json; charset=utf-16"}, "/graphql"),
        (GOOD, {"content-type": "multipart/form-data; boundary=x"}, "/graphql"),
        (GOOD.decode().encode("utf-16"), JSON, "/graphql"),
        (b"\xef\xbb\xbf" + GOOD, JSON, "/graphql"),
        (b'{"query": "{ order }", "query": "{ user }"}', JSON, "/graphql"),
        (b'{"query": "{ order }", "variables": {"a": 1, "a": 2}}', JSON, "/graphql"),
        (b'{"query": "{ order }", "variables": {"a": NaN}}', JSON, "/graphql"),
        (b'{"query": "{ order }", "Query": "{ secret }"}', JSON, "/graphql"),
        (b'{"query": "{ order }", "id": "stored"}', JSON, "/graphql"),
        (b'{"query": "{ order }", "operationName": ""}', JSON, "/graphql"),
        (b'{"query": "{ order }", "operationName": "Other"}', JSON, "/graphql"),
        (b'{"query": "query A { order } query A { secret }", "operationName": "A"}', JSON, "/graphql"),
        (b'[{"query": "query A { order } query A { secret }", "operationName": "A"}]', JSON, "/graphql"),
        (b'{"query": "query A { order } { secret }", "operationName": "A"}', JSON, "/graphql"),
        (b'{"query": "{ order }", "operationName": 1}', JSON, "/graphql"),
        (b'{"query": "{ order }", "variables": []}', JSON, "/graphql"),
        (b'{"query": ["{ order }"]}', JSON, "/graphql"),
        (b'{"extensions": {"persistedQuery": {"sha256Hash": "00"}}}', JSON, "/graphql"),
        (b'{"query": "{ order }", "extensions": {"persistedQuery": {"sha256Hash": "00"}}}', JSON, "/graphql"),
        (b'{"query": "{ order }", "extensions": {"persistedQuery": "00"}}', JSON, "/graphql"),
        (b"[]", JSON, "/graphql"),
        (b"[[]]", JSON, "/graphql"),
        (b"null", JSON, "/graphql"),
        (b"", JSON, "/graphql"),
        (b"[" * 20_000, JSON, "/graphql"),
        (GOOD + b" " * LARGEST_BODY, JSON, "/graphql"),
        (GOOD, JSON, "/graphql?query=%7Bsecret%7D"),
        (GOOD, JSON, "/graphql?a=1;query=%7Bsecret%7D"),
        (GOOD, JSON, "/graphql?que%72y=%7Bsecret%7D"),
        (GOOD, JSON, "/graphql?operationName=Other"),
        (GOOD, JSON, "/graphql?" + "a=1&" * 100),
        (GOOD, JSON, "/graphql/"),
        (GOOD, JSON, "/%67raphql"),
        (GOOD, JSON, "/v1/x"),
        (GOOD, {**JSON, "x-http-method-override": "GET"}, "/graphql"),
    ],
)
async def test_what_two_programs_could_read_in_two_ways_is_denied(
    root: Path, serve: Serve, *, body: bytes, headers: Mapping[str, str], path: str
) -> None:
    app = AsgiApp()
    answer = await ask(await serve(servicelink.LinkMiddleware(app)), body, headers=headers, path=path)

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "PERMISSION_DENIED")
    assert app.scopes == []


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("/graphql?query=%7B%20order%20%7D", 200),
        ("/graphql?query=query+A%7Border%7Dmutation+B%7Bdrop%7D&operationName=A&variables=%7B%7D&other=1", 200),
        ("/graphql?query=mutation%20%7B%20order%20%7D", 403),
        ("/graphql?query=%7Border%7D&query=%7Bsecret%7D", 403),
        ("/graphql?query=%7Border%7D;query=%7Bsecret%7D", 403),
        ("/graphql?query=%ff", 403),
        ("/graphql?variables=%7B%7D", 403),
        ("/graphql?query=%7Border%7D&extensions=%5B%5D", 403),
        ("/graphql", 403),
    ],
)
async def test_only_queries_may_come_by_get_and_once(root: Path, serve: Serve, url: str, status: int) -> None:
    write_verifier(root / "api", with_rules(*(GraphQLRule(kind, None, frozenset({"order"})) for kind in OperationType)))
    answer = await ask(await serve(servicelink.LinkMiddleware(AsgiApp())), None, method="GET", path=url)

    assert answer.status_code == status


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD", "QUERY"])
async def test_no_other_method_asks(root: Path, serve: Serve, method: str) -> None:
    answer = await ask(await serve(servicelink.LinkMiddleware(AsgiApp())), GOOD, method=method)

    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("verifier", "query", "passes"),
    [
        (with_rules(GraphQLRule(OperationType.SUBSCRIPTION, None, None)), "subscription { order }", True),
        (with_rules(GraphQLRule(OperationType.QUERY, None, None)), "{ anything }", True),
        (with_rules(GraphQLRule(OperationType.QUERY, None, None)), "{ __schema { types { name } } }", False),
        (with_rules(GraphQLRule(OperationType.QUERY, None, frozenset({"__schema"}))), "{ __schema { a } }", True),
        (with_rules(GraphQLRule(OperationType.QUERY, frozenset({"Order"}), None)), ORDER, True),
        (with_rules(GraphQLRule(OperationType.QUERY, frozenset({"Order"}), None)), "{ order }", False),
        (with_rules(GraphQLRule(OperationType.QUERY, None, None), cap=()), ORDER, False),
    ],
)
async def test_rules_and_cap_decide(root: Path, serve: Serve, verifier: Verifier, *, query: str, passes: bool) -> None:
    write_verifier(root / "api", verifier)
    answer = await ask(await serve(servicelink.LinkMiddleware(AsgiApp())), {"query": query})

    assert answer.status_code == (200 if passes else 403)


@pytest.mark.parametrize("body", [GOOD + b" " * LARGEST_BODY * 4, json.dumps({"query": "{ secret }"}).encode()])
async def test_audit_lets_the_whole_body_through(root: Path, serve: Serve, body: bytes) -> None:
    write_verifier(root / "api", replace(VERIFIER, mode=Mode.AUDIT))
    app = AsgiApp()
    middleware = servicelink.LinkMiddleware(app)
    answer = await ask(await serve(middleware), body)

    assert (answer.status_code, app.bodies, app.links) == (200, [body], [None])
    assert [row.code for row in middleware.counts().would_refuse] == [Code.PERMISSION_DENIED]


async def test_a_body_in_pieces_is_read_as_one_and_what_comes_after_it_is_the_servers(root: Path) -> None:
    """A long answer waits on `receive` for the caller to go away: it must get that from the server."""
    came = [{"type": "http.request", "body": piece, "more_body": True} for piece in (GOOD[:9], GOOD[9:20])]
    came += [{"type": "http.request", "body": GOOD[20:]}, {"type": "http.disconnect"}]
    seen: list[Any] = []

    async def receive() -> Any:
        return came.pop(0)

    async def send(message: Any) -> None:
        raise AssertionError("nothing is answered")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend([await receive() for _ in range(4)])

    headers = [*((name.encode(), value.encode()) for name, value in {**KEY, **JSON}.items())]
    scope = {"type": "http", "method": "POST", "path": "/graphql", "raw_path": b"/graphql", "headers": headers}
    await servicelink.LinkMiddleware(app)(scope, receive, send)

    assert b"".join(message.get("body", b"") for message in seen) == GOOD
    assert seen[-1] == {"type": "http.disconnect"}
    assert came == []


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ([GOOD.ljust(LARGEST_BODY)], 200),
        ([GOOD.ljust(LARGEST_BODY), b""], 200),
        ([GOOD.ljust(LARGEST_BODY), b"]"], 403),
        ([GOOD.ljust(LARGEST_BODY), b" "], 403),
        ([GOOD.ljust(LARGEST_BODY - 1), b" ", b"]"], 403),
    ],
)
async def test_a_body_is_judged_whole_or_not_at_all(root: Path, pieces: list[bytes], status: int) -> None:
    came = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    came[-1]["more_body"] = False

    assert await status_of(came) == status


async def test_where_the_application_reads_another_path_nothing_is_asked(root: Path) -> None:
    assert await status_of([{"type": "http.request", "body": GOOD}], path="/admin") == 403


async def status_of(came: list[Any], path: str = "/graphql") -> int:
    """Answer the status for messages that come to `/graphql`, which the server reads as `path`."""
    sent: list[Any] = []

    async def receive() -> Any:
        return came.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(name.encode(), value.encode()) for name, value in {**KEY, **JSON}.items()]
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": b"/graphql", "headers": headers}
    await servicelink.LinkMiddleware(AsgiApp())(scope, receive, send)
    return int(sent[0]["status"])


async def test_a_body_that_is_announced_as_too_large_is_not_read(root: Path) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    async def send(message: Any) -> None:
        sent.append(message)

    for length in (str(LARGEST_BODY + 1), "9" * 5000, "-1", "1_0"):
        headers = [(name.encode(), value.encode()) for name, value in {**KEY, **JSON, "content-length": length}.items()]
        scope = {"type": "http", "method": "POST", "path": "/graphql", "raw_path": b"/graphql", "headers": headers}
        await servicelink.LinkMiddleware(AsgiApp())(scope, receive, send)

    assert [message["status"] for message in sent[::2]] == [403] * 4


async def test_a_websocket_of_a_graphql_link_is_refused(root: Path) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(name.encode(), value.encode()) for name, value in KEY.items()]
    scope = {"type": "websocket", "path": "/graphql", "raw_path": b"/graphql", "headers": headers}
    await servicelink.LinkMiddleware(AsgiApp())(scope, receive, send)

    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_without_graphql_core_nothing_passes_and_the_log_says_why(
    root: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "servicelink.graphql.documents", None)
    answer = await ask(await serve(servicelink.LinkMiddleware(AsgiApp())), {"query": ORDER})

    assert answer.status_code == 403
    assert "servicelink[graphql]" in caplog.text


def test_a_refusal_names_no_content_of_the_request() -> None:
    from servicelink.graphql.asked import HttpRequest  # noqa: PLC0415 - beside its only use
    from servicelink.graphql.judge import judge  # noqa: PLC0415 - as above
    from servicelink.verify import plan_index  # noqa: PLC0415 - as above

    known = next(iter(plan_index(with_rules()).keys.values()))
    body = json.dumps({"query": "{ topsecret", "topsecret": 1}).encode()
    decision = judge(known, HttpRequest("POST", b"", [(b"content-type", b"application/json")], body))

    assert isinstance(decision.verdict, Refused)
    assert "topsecret" not in decision.verdict.reason
