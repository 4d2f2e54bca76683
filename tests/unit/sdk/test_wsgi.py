"""The WSGI middleware decides as its twin does, also where a server hands the path on decoded."""

import io
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from contextvars import Context, copy_context
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sdk_servers import GRAPHQL_KEY, KEY, VERIFIER, write_verifier

import servicelink
from servicelink import context, sync
from servicelink.counts import Counted
from servicelink.graphql.asked import LARGEST_BODY
from servicelink.verify import Allowed
from servicelink_contract.verifier import Mode

LINK = Allowed("shop/web", "uid-1", KEY.kid)


class App:
    """A WSGI application that notes what reaches it, and answers while it is read."""

    def __init__(self) -> None:
        self.environs: list[Any] = []
        self.links: list[Allowed | None] = []
        self.limited: list[tuple[str | None, bool]] = []
        self.bodies: list[bytes] = []

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        """Answer 200."""
        self.environs.append(environ)
        self.bodies.append(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        start_response("200 OK", [])
        return self._answer()

    def _answer(self) -> Iterator[bytes]:
        self.links.append(servicelink.current_link())
        came = context.incoming.get()
        # Now: once the answer is whole there is no limit any more.
        self.limited.append((came.correlation_id, came.deadline < math.inf))
        yield b"fine"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SERVICELINK_VERIFIER_DIR", str(tmp_path))
    monkeypatch.delenv("INTERNAL_API_KEY", raising=False)
    write_verifier(tmp_path / "api")
    return tmp_path


def call(app: Callable[..., Iterable[bytes]], path: str, key: str | None = None, **more: Any) -> tuple[int, bytes]:
    """Make one call as a server would, and answer status and body."""
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "wsgi.input": io.BytesIO(more.pop("body", b"")),
        **({} if key is None else {"HTTP_X_SERVICE_AUTH": key}),
        **more,
    }
    said: list[str] = []
    answer = app(environ, lambda status, *_: said.append(status))
    body = b"".join(answer)
    close = getattr(answer, "close", None)
    if close is not None:
        close()
    return int(said[0].split()[0]), body


def test_a_verified_call_reaches_the_application_with_its_link_and_without_the_key(root: Path) -> None:
    app = App()
    middleware = sync.LinkMiddleware(app)
    forged = {"HTTP_X_SERVICELINK_LINK": "forged", "HTTP_X_OTHER": "stays"}
    status, _ = call(middleware, "/v1/x", KEY.text, **forged)
    [environ] = app.environs

    assert (status, environ["servicelink"], app.links) == (200, LINK, [LINK])
    assert environ["HTTP_X_OTHER"] == "stays"
    assert not {"HTTP_X_SERVICE_AUTH", "HTTP_X_SERVICELINK_LINK"} & environ.keys()
    assert servicelink.current_link() is None
    assert middleware.counts().accepted == {Counted("shop/web", KEY.kid, None): 1}


@pytest.mark.parametrize(
    ("path", "key", "code"),
    [
        ("/v1/x", None, b"INVALID_SERVICE_AUTH"),
        ("/v1/x", f"{KEY.text},{KEY.text}", b"INVALID_SERVICE_AUTH"),
        ("/v2", KEY.text, b"PERMISSION_DENIED"),
        ("/v1/../healthz", KEY.text, b"PERMISSION_DENIED"),
        ("/v1/\xff", KEY.text, b"PERMISSION_DENIED"),
        ("/v1/a;b", KEY.text, b"PERMISSION_DENIED"),
        ("/v1/%2e%2e/x", KEY.text, b"PERMISSION_DENIED"),
        ("//healthz", None, b"INVALID_SERVICE_AUTH"),
    ],
)
def test_a_refusal_is_403_with_its_code(root: Path, path: str, key: str | None, code: bytes) -> None:
    app = App()
    status, body = call(sync.LinkMiddleware(app), path, key)

    assert (status, code in body, app.environs) == (403, True, [])


def test_the_log_says_which_call_was_refused_and_why(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "servicelink")
    call(sync.LinkMiddleware(App()), "/v1/a\nb", None, HTTP_X_REQUEST_ID="r-1", QUERY_STRING="token=hidden")

    assert [one.getMessage() for one in caplog.records if one.name == "servicelink"] == [
        "refused 'GET /v1/a%0Ab' of nobody known: no credential came (correlation r-1, request r-1)"
    ]


@pytest.mark.parametrize(
    ("path", "raw", "status"),
    [
        ("/v1/a b", "/v1/a%20b?q=1", 200),
        ("/v1/\xc3\xa9", "/v1/%C3%A9", 200),
        ("/v1/a/b", "/v1/a%2Fb", 403),
        ("/v1/x", "//v1/x", 403),
        ("/admin", "/v1/x", 403),
    ],
)
def test_the_undecoded_path_is_judged_where_the_server_tells_it(root: Path, path: str, raw: str, status: int) -> None:
    app = sync.LinkMiddleware(App())

    assert call(app, path, KEY.text, RAW_URI=raw)[0] == status
    assert call(app, path, KEY.text, REQUEST_URI=raw)[0] == status


@pytest.mark.parametrize("header", ["HTTP_SCRIPT_NAME", "HTTP_PATH_INFO", "HTTP_X_HTTP_METHOD_OVERRIDE"])
def test_a_header_that_moves_the_request_is_refused(root: Path, header: str) -> None:
    assert call(sync.LinkMiddleware(App()), "/v1/x", KEY.text, **{header: "/v1"})[0] == 403


@pytest.mark.parametrize("header", ["HTTP_SCRIPT_NAME", "HTTP_PATH_INFO", "HTTP_X_HTTP_METHOD_OVERRIDE"])
def test_a_header_that_moves_the_request_opens_no_path(root: Path, header: str) -> None:
    app = App()
    middleware = sync.LinkMiddleware(app, exempt=("/healthz", "/static/**"), protect=("/admin/**",))
    statuses = [
        call(middleware, path, RAW_URI=raw, SCRIPT_NAME=name, **{header: name})[0]
        for path, raw, name in (
            ("/admin/users", "/open/admin/users", "/open"),
            ("/admin/users", "/static/admin/users", "/static"),
            ("", "/healthz", "/healthz"),
        )
    ]

    assert (statuses, app.environs) == ([403] * 3, [])
    assert sum(middleware.counts().refused.values()) == 3


def test_a_refused_head_has_no_body(root: Path) -> None:
    assert call(sync.LinkMiddleware(App()), "/v1/x", REQUEST_METHOD="HEAD") == (403, b"")


def test_an_exempt_path_needs_no_key_and_a_mounted_application_is_judged_whole(root: Path) -> None:
    app = App()
    middleware = sync.LinkMiddleware(app)
    statuses = [call(middleware, "/healthz")[0], call(middleware, "/x", KEY.text, SCRIPT_NAME="/v1")[0]]

    assert (statuses, app.links) == ([200, 200], [None, LINK])


def test_only_who_is_verified_sets_a_time_limit(root: Path) -> None:
    app = App()
    middleware = sync.LinkMiddleware(app)
    said = {"HTTP_X_CORRELATION_ID": "order-7", "HTTP_X_REQUEST_TIMEOUT_MS": "1"}
    call(middleware, "/healthz", **said)
    call(middleware, "/v1/x", KEY.text, **said)

    assert app.limited == [("order-7", False), ("order-7", True)]


def test_with_nothing_to_check_calls_with_it_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERVICELINK_VERIFIER_DIR", raising=False)
    monkeypatch.setenv("INTERNAL_API_KEY", "")
    with pytest.raises(servicelink.LinkConfigurationError):
        sync.LinkMiddleware(App())


def _answer(answer: Iterable[bytes], *_: Any) -> Iterable[bytes]:
    return answer


def test_an_answer_that_is_a_list_or_a_file_goes_to_the_server_as_it_is(root: Path) -> None:
    class Wrapper:
        """What a server sends in its own way."""

        def __iter__(self) -> Iterator[bytes]:
            yield b"file"

    for answer in ([b"list"], Wrapper()):
        app = sync.LinkMiddleware(partial(_answer, answer))
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/healthz", "wsgi.file_wrapper": Wrapper}

        assert app(environ, lambda *_: None) is answer
    assert servicelink.current_link() is None


def test_an_error_of_the_application_leaves_no_link_behind(root: Path) -> None:
    def fail(environ: Any, start_response: Any) -> Iterable[bytes]:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        call(sync.LinkMiddleware(fail), "/v1/x", KEY.text)
    assert servicelink.current_link() is None


QUERY = b'{"query": "{ order { id } }"}'
DENIED = b'{"query": "mutation { drop }"}'
JSON = {"REQUEST_METHOD": "POST", "CONTENT_TYPE": "application/json"}


@pytest.mark.parametrize(("body", "status"), [(QUERY, 200), (DENIED, 403), (QUERY + b" " * 40_000, 403)])
def test_graphql_is_judged_by_its_body_which_the_application_reads_once_more(
    root: Path, body: bytes, status: int
) -> None:
    app = App()
    asked = {**JSON, "CONTENT_LENGTH": str(len(body)), "body": body}

    assert call(sync.LinkMiddleware(app), "/graphql", GRAPHQL_KEY.text, **asked)[0] == status
    assert app.bodies == ([body] if status == 200 else [])


@pytest.mark.parametrize(("more", "status"), [(b"", 200), (b" ", 403), (b"]", 403)])
def test_a_body_is_judged_whole_or_not_at_all(root: Path, more: bytes, status: int) -> None:
    body = QUERY.ljust(LARGEST_BODY) + more
    for length in ({"CONTENT_LENGTH": str(len(body))}, {"wsgi.input_terminated": True}):
        asked = {**JSON, **length, "body": body}

        assert call(sync.LinkMiddleware(App()), "/graphql", GRAPHQL_KEY.text, **asked)[0] == status


def test_where_the_application_reads_another_path_nothing_is_asked(root: Path) -> None:
    asked = {**JSON, "RAW_URI": "/graphql", "CONTENT_LENGTH": str(len(QUERY)), "body": QUERY}

    assert call(sync.LinkMiddleware(App()), "/admin", GRAPHQL_KEY.text, **asked)[0] == 403


@pytest.mark.parametrize("body", [DENIED, QUERY + b" " * 40_000])
def test_audit_hands_the_whole_body_on(root: Path, body: bytes) -> None:
    write_verifier(root / "api", replace(VERIFIER, mode=Mode.AUDIT))
    app = App()
    middleware = sync.LinkMiddleware(app)
    for length in ({"CONTENT_LENGTH": str(len(body))}, {"wsgi.input_terminated": True}):
        call(middleware, "/graphql", GRAPHQL_KEY.text, **JSON, **length, body=body)

    assert (app.links, app.bodies[0]) == ([None, None], body)
    assert app.environs[1]["wsgi.input"].read() == body


def test_nobody_reads_past_the_end_of_a_body_that_was_judged(root: Path) -> None:
    app = App()
    asked = {**JSON, "CONTENT_LENGTH": str(len(QUERY)), "body": QUERY + b"GET /next HTTP/1.1"}
    call(sync.LinkMiddleware(app), "/graphql", GRAPHQL_KEY.text, **asked)

    assert (app.bodies, app.environs[0]["wsgi.input"].read()) == ([QUERY], b"")


@pytest.mark.parametrize("length", ["\u00b2", "9" * 5000, "-1", "+5", " 5", "0x5", "1_0", ""])
def test_a_length_that_is_none_is_refused_and_not_raised_for(root: Path, length: str) -> None:
    """There are servers that hand it on as it came."""
    app = sync.LinkMiddleware(App())
    body = json.dumps({"query": "{ order }"}).encode()
    words = {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": length, "body": body}
    status, said = call(app, "/graphql", GRAPHQL_KEY.text, REQUEST_METHOD="POST", **words)

    assert (status, json.loads(said)["error"]["code"]) == (403, "PERMISSION_DENIED")


@pytest.mark.parametrize("kind", ["list", "generator", "failure"])
def test_what_outlives_the_answer_has_no_time_limit_and_keeps_the_ids(root: Path, kind: str) -> None:
    deadlines: list[float] = []
    workers: list[Context] = []

    def app(_environ: Any, start_response: Any) -> Iterable[bytes]:
        workers.append(copy_context())
        deadlines.append(context.deadline_of_incoming())
        start_response("200 OK", [])
        if kind == "failure":
            raise RuntimeError
        return [b"fine"] if kind == "list" else iter((b"fine",))

    more = {"HTTP_X_REQUEST_TIMEOUT_MS": "60000", "HTTP_X_REQUEST_ID": "r-1"}
    with pytest.raises(RuntimeError) if kind == "failure" else nullcontext():
        call(sync.LinkMiddleware(app), "/v1/x", KEY.text, **more)

    assert math.isfinite(deadlines[0])
    assert workers[0].run(context.deadline_of_incoming) == math.inf
    assert workers[0].run(servicelink.current_correlation_id) == "r-1"
