"""The middleware lets through what links allow, over real sockets, and is never an open door."""

import asyncio
import logging
import math
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asgi_guarded import KEY, VERIFIER, WITH_KEY, App, Mount, Serve, connection, get, write

import servicelink
from servicelink import context
from servicelink.asgi import LinkMiddleware
from servicelink.counts import Counted
from servicelink.verify import Allowed, Code
from servicelink_contract.verifier import Mode


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SERVICELINK_VERIFIER_DIR", str(tmp_path))
    monkeypatch.delenv("INTERNAL_API_KEY", raising=False)
    return tmp_path


async def test_a_verified_call_reaches_the_application_with_its_link_and_without_the_key(
    root: Path, mount: Mount, serve: Serve
) -> None:
    write(mount, root / "api")
    app = App()
    middleware = LinkMiddleware(app)
    forged = {"X-ServiceLink-Link": "forged", "x_servicelink_uid": "forged", "x-other": "stays"}
    answer = await get(await serve(middleware), "/v1/x", {**WITH_KEY, **forged})

    link = Allowed("shop/web", "uid-1", KEY.kid)
    names = {name for name, _ in app.scopes[0]["headers"]}
    assert (answer.status_code, app.scopes[0]["servicelink"], app.links) == (204, link, [link])
    assert b"x-other" in names
    assert not any(b"service" in name for name in names)
    assert servicelink.current_link() is None
    assert middleware.counts().accepted == {Counted("shop/web", KEY.kid, None): 1}


@pytest.mark.parametrize(
    ("path", "headers", "code"),
    [
        ("/v1/x", [], "INVALID_SERVICE_AUTH"),
        ("/v1/x", [*WITH_KEY.items(), *WITH_KEY.items()], "INVALID_SERVICE_AUTH"),
        ("/v1/x", [*WITH_KEY.items(), ("x_service_auth", "other")], "INVALID_SERVICE_AUTH"),
        ("/v2/x", [*WITH_KEY.items()], "PERMISSION_DENIED"),
        ("/v1/%2e%2e/healthz", [*WITH_KEY.items()], "PERMISSION_DENIED"),
        ("/healthz/%2e%2e/v1", [], "INVALID_SERVICE_AUTH"),
    ],
)
async def test_a_refusal_is_403_with_its_code(
    root: Path, mount: Mount, serve: Serve, *, path: str, headers: Any, code: str
) -> None:
    write(mount, root / "api")
    app = App()
    middleware = LinkMiddleware(app)
    answer = await get(await serve(middleware), path, headers)

    assert (answer.status_code, answer.json()["error"]["code"], app.scopes) == (403, code, [])
    assert answer.json()["error"]["message"]
    assert [row.code for row in middleware.counts().refused] == [code]


async def test_audit_lets_through_counts_and_hands_on_no_identity(root: Path, mount: Mount, serve: Serve) -> None:
    write(mount, root / "api", replace(VERIFIER, mode=Mode.AUDIT))
    app = App()
    middleware = LinkMiddleware(app)
    address = await serve(middleware)
    answers = [await get(address, "/v1/x"), await get(address, "/v2", WITH_KEY)]

    assert [answer.status_code for answer in answers] == [204, 204]
    assert app.links == [None, None]
    assert middleware.counts().would_refuse == {
        Counted(None, None, Code.INVALID_SERVICE_AUTH): 1,
        Counted("shop/web", KEY.kid, Code.PERMISSION_DENIED): 1,
    }


async def test_exempt_and_unprotected_paths_need_no_credential_and_lose_it(
    root: Path, mount: Mount, serve: Serve
) -> None:
    write(mount, root / "api")
    app = App()
    address = await serve(LinkMiddleware(app, protect=("/v1/**",)))
    answers = [await get(address, path, WITH_KEY) for path in ("/healthz", "/metrics", "/public")]

    assert [answer.status_code for answer in answers] == [204] * 3
    assert not any(name == b"x-service-auth" for scope in app.scopes for name, _ in scope["headers"])


async def test_a_final_slash_opens_no_protected_path_and_makes_none_exempt(
    root: Path, mount: Mount, serve: Serve
) -> None:
    write(mount, root / "api")
    address = await serve(LinkMiddleware(App(), exempt=("/open",), protect=("/admin", "/v1/*", "/open")))
    paths = ("/admin", "/admin/", "/v1/charges", "/v1/charges/", "/open/", "/open", "/v1/", "/")
    answers = [(await get(address, path)).status_code for path in paths]

    assert answers == [403] * 5 + [204] * 3


async def test_the_header_is_the_verifiers(root: Path, mount: Mount, serve: Serve) -> None:
    write(mount, root / "api", replace(VERIFIER, header="X-Our-Key"))
    address = await serve(LinkMiddleware(App()))

    assert (await get(address, "/v1/x", {"x-our-key": KEY.text})).status_code == 204
    assert (await get(address, "/v1/x", WITH_KEY)).status_code == 403


async def test_a_websocket_is_checked_as_get(root: Path, mount: Mount) -> None:
    write(mount, root / "api")
    app = App()
    middleware = LinkMiddleware(app)
    refused = await connection(middleware, "websocket", path="/v1/x", raw_path=b"/v1/x")
    headers = [(b"x-service-auth", KEY.text.encode())]
    await connection(middleware, "websocket", path="/v1/x", raw_path=b"/v1/x", headers=headers)

    assert [(sent["type"], sent["code"]) for sent in refused] == [("websocket.close", 1008)]
    assert len(app.scopes) == 1


async def test_what_stands_outside_sees_what_the_application_notes_of_a_request(root: Path, mount: Mount) -> None:
    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        scope["route"] = scope["servicelink"].link

    write(mount, root / "api")
    headers = [(b"x-service-auth", KEY.text.encode())]
    scope = {"type": "http", "method": "GET", "path": "/v1/x", "raw_path": b"/v1/x", "headers": headers}
    await LinkMiddleware(app)(scope, _nothing, _nothing)

    assert (scope["route"], scope["headers"]) == ("shop/web", [])
    assert servicelink.current_link() is None


async def _nothing(*_: Any) -> Any:
    return {}


async def test_paths_of_strangers_take_no_memory(root: Path, mount: Mount) -> None:
    write(mount, root / "api")
    middleware = LinkMiddleware(App())
    tracemalloc.start()
    # A quarter of as many as are kept, each as long as one may be that is.
    for number in range(3000, 4000):
        path = "".join(f"/{number}{place}" for place in range(38))
        await connection(middleware, "http", method="GET", path=path, raw_path=path.encode())
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert kept < 2 * 1024 * 1024


async def test_a_path_that_was_changed_before_us_is_denied(root: Path, mount: Mount) -> None:
    write(mount, root / "api")
    headers = [(b"x-service-auth", KEY.text.encode())]
    app = App()
    sent = await connection(
        LinkMiddleware(app), "http", method="GET", path="/admin", raw_path=b"/v1/x", headers=headers
    )

    assert (sent[0]["status"], app.scopes) == (403, [])


@pytest.mark.parametrize(
    "header", ["x-http-method-override", "X_HTTP_Method", "x-method-override", "x-original-url", "x-rewrite-url"]
)
async def test_a_header_that_names_another_method_or_path_is_denied(
    root: Path, mount: Mount, serve: Serve, header: str
) -> None:
    write(mount, root / "api")
    app = App()
    middleware = LinkMiddleware(app)
    address = await serve(middleware)
    denied = await get(address, "/v1/x", {**WITH_KEY, header: "GET"})
    # An open path leads to another by the same means.
    strange = await get(address, "/healthz", {header: "/v1/x"})
    codes = [answer.json()["error"]["code"] for answer in (denied, strange)]

    assert (codes, app.scopes) == (["PERMISSION_DENIED", "INVALID_SERVICE_AUTH"], [])
    assert sum(middleware.counts().refused.values()) == 2


async def test_the_log_says_which_call_was_refused_and_why(
    root: Path, mount: Mount, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "servicelink")
    write(mount, root / "api")
    ids = {"x-correlation-id": "order-7", "x-request-id": "r-1"}
    await get(await serve(LinkMiddleware(App())), "/v2/a%20b?token=hidden", {**WITH_KEY, **ids}, "POST")

    [record] = [one for one in caplog.records if one.name == "servicelink"]
    assert record.levelname == "INFO"
    assert record.getMessage() == (
        "refused 'POST /v2/a%20b' of shop/web: the link's rules do not allow it (correlation order-7, request r-1)"
    )
    fields = {"link", "operation", "code", "correlation_id", "request_id"}
    assert {name: value for name, value in vars(record).items() if name in fields} == {
        "link": "shop/web",
        "operation": "POST /v2/a%20b",
        "code": "PERMISSION_DENIED",
        "correlation_id": "order-7",
        "request_id": "r-1",
    }


async def test_no_stranger_writes_lines_of_their_own_into_the_log(
    root: Path, mount: Mount, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "servicelink")
    write(mount, root / "api")
    path = "/a\nrefused 'GET /' of shop/admin: \x1b[2J\xe4" + "x" * 8000
    headers = [(b"x-correlation-id", b"c\nforged")]
    await connection(LinkMiddleware(App()), "http", method="GET", path=path, raw_path=path.encode(), headers=headers)

    [said] = [one.getMessage() for one in caplog.records if one.name == "servicelink"]
    assert said.isascii()
    assert said.isprintable()
    assert said.startswith('refused "GET /a\\nrefused')
    assert said.endswith("(correlation None, request None)")
    assert len(said) < 500


async def test_what_came_in_is_read_when_somebody_asks(root: Path, mount: Mount, serve: Serve) -> None:
    write(mount, root / "api")
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((servicelink.current_correlation_id(), context.incoming.get().traceparent))
        await App()(scope, receive, send)

    ids = {"X-Correlation-ID": "order-7", "x-request-id": "no good", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    await get(await serve(LinkMiddleware(app)), "/v1/x", {**WITH_KEY, **ids})

    assert seen == [("order-7", ids["traceparent"])]


async def test_only_who_is_verified_sets_a_time_limit(root: Path, mount: Mount, serve: Serve) -> None:
    write(mount, root / "api")
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        came = context.incoming.get()
        seen.append((came.correlation_id, came.deadline < math.inf))
        await App()(scope, receive, send)

    address = await serve(LinkMiddleware(app))
    said = {"x-correlation-id": "order-7", "x-request-timeout-ms": "1"}
    await get(address, "/healthz", said)
    await get(address, "/healthz", {**WITH_KEY, **said})
    await get(address, "/v1/x", {**WITH_KEY, **said})

    assert seen == [("order-7", False), ("order-7", False), ("order-7", True)]


@pytest.mark.parametrize("is_read", [False, True])
async def test_what_outlives_the_answer_has_no_time_limit_and_keeps_the_ids(
    root: Path, mount: Mount, *, is_read: bool
) -> None:
    write(mount, root / "api")
    limited: list[bool] = []
    workers: list[asyncio.Task[tuple[float, str | None]]] = []

    def note() -> None:
        limited.append(math.isfinite(context.deadline_of_incoming()))

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        workers.append(asyncio.create_task(outlive()))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        if is_read:
            note()
        await send({"type": "http.response.body", "body": b"b"})
        note()

    async def outlive() -> tuple[float, str | None]:
        await served.wait()
        return context.deadline_of_incoming(), servicelink.current_correlation_id()

    served = asyncio.Event()
    headers = {**WITH_KEY, "x-request-timeout-ms": "60000", "x-request-id": "r-1"}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await connection(LinkMiddleware(app), "http", path="/v1/x", method="GET", headers=raw)
    served.set()

    assert limited == [*([True] if is_read else []), False]
    assert await workers[0] == (math.inf, "r-1")
