"""A server starts with what it checks calls with, or says why it does not; there is never an open door."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from asgi_guarded import WITH_KEY, App, Mount, Serve, connection, get, write
from fastapi import FastAPI

import servicelink
from servicelink.asgi import LinkMiddleware


async def failed_start(middleware: LinkMiddleware) -> Any:
    """Answer the one message with which it fails a server's start."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(servicelink.LinkConfigurationError):
        await middleware({"type": "lifespan"}, receive, send)
    [message] = sent
    assert message["type"] == "lifespan.startup.failed"
    return message["message"]


@pytest.fixture
def nothing_to_check_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERVICELINK_VERIFIER_DIR", raising=False)
    monkeypatch.delenv("INTERNAL_API_KEY", raising=False)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SERVICELINK_VERIFIER_DIR", str(tmp_path))
    monkeypatch.delenv("INTERNAL_API_KEY", raising=False)
    return tmp_path


async def test_an_empty_folder_refuses_and_is_no_error(root: Path, serve: Serve) -> None:
    (root / "api").mkdir()

    assert (await get(await serve(LinkMiddleware(App())), "/v1/x", WITH_KEY)).status_code == 403


@pytest.mark.parametrize(
    ("services", "wanted", "problem"),
    [
        (["api", "shop"], None, "api, shop"),
        ([], None, "no folder"),
        (["api"], "other", "no verifier for other"),
    ],
)
async def test_a_folder_that_is_not_clear_fails_the_start(
    root: Path, services: list[str], wanted: str | None, problem: str
) -> None:
    for service in services:
        (root / service).mkdir()

    assert problem in await failed_start(LinkMiddleware(App(), service=wanted))


async def test_one_of_several_services_is_named(root: Path, mount: Mount, serve: Serve) -> None:
    write(mount, root / "api")
    (root / "shop").mkdir()

    assert (await get(await serve(LinkMiddleware(App(), service="api")), "/v1/x", WITH_KEY)).status_code == 204


@pytest.mark.parametrize("wrong", [{"exempt": ("/healthz;x",)}, {"protect": ("v1",)}])
async def test_a_pattern_that_is_none_fails_the_start_and_opens_nothing(
    root: Path, mount: Mount, wrong: dict[str, Any]
) -> None:
    write(mount, root / "api")
    app = App()
    middleware = LinkMiddleware(app, **wrong)
    message = await failed_start(middleware)
    with pytest.raises(servicelink.LinkConfigurationError):
        await connection(middleware, "http", method="GET", path="/healthz")

    assert "is no path pattern" in message
    assert app.scopes == []


async def test_a_shared_key_that_no_header_can_hold_fails_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERVICELINK_VERIFIER_DIR", raising=False)
    monkeypatch.setenv("INTERNAL_API_KEY", "k\udcff")

    assert "no UTF-8" in await failed_start(LinkMiddleware(App()))


@pytest.mark.parametrize("keys", [None, "", " , "])
async def test_neither_verifier_nor_key_is_an_error_and_never_an_open_door(
    monkeypatch: pytest.MonkeyPatch, nothing_to_check_with: None, keys: str | None
) -> None:
    if keys is not None:
        monkeypatch.setenv("INTERNAL_API_KEY", keys)
    app = App()
    middleware = LinkMiddleware(app)

    assert "no call could be checked" in await failed_start(middleware)
    with pytest.raises(servicelink.LinkConfigurationError):
        await connection(middleware, "http", method="GET", path="/healthz")
    assert app.scopes == []


def guarded() -> FastAPI:
    app = FastAPI()
    app.add_middleware(LinkMiddleware)
    return app


# It wants a successor of httpx's.
@pytest.mark.filterwarnings("ignore::starlette.exceptions.StarletteDeprecationWarning")
def test_a_test_of_an_application_that_cannot_start_is_told_why(nothing_to_check_with: None) -> None:
    from starlette.testclient import TestClient  # noqa: PLC0415 - it warns

    with pytest.raises(servicelink.LinkConfigurationError, match="neither SERVICELINK_VERIFIER_DIR nor"):
        TestClient(guarded()).__enter__()


def test_uvicorn_says_once_why_it_does_not_start_and_shows_no_traceback(
    nothing_to_check_with: None, tmp_path: Path
) -> None:
    program = "import servicelink\nasync def plain(*_): ...\napp = servicelink.LinkMiddleware(plain)\n"
    (tmp_path / "guarded.py").write_text(program)
    command = [sys.executable, "-m", "uvicorn", "guarded:app", "--port", "0", "--log-level", "error"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)

    why, end = done.stderr.splitlines()
    assert "neither SERVICELINK_VERIFIER_DIR nor INTERNAL_API_KEY is set" in why
    assert end.endswith("Application startup failed. Exiting.")
    assert done.returncode != 0


@pytest.mark.parametrize(("key", "status"), [("one", 204), ("two", 204), ("three", 403), ("", 403)])
async def test_shared_keys_are_enforced(monkeypatch: pytest.MonkeyPatch, serve: Serve, key: str, status: int) -> None:
    monkeypatch.delenv("SERVICELINK_VERIFIER_DIR", raising=False)
    monkeypatch.setenv("INTERNAL_API_KEY", "one, two")
    app = App()
    answer = await get(await serve(LinkMiddleware(app)), "/a%2Fb", {"x-service-auth": key})

    assert answer.status_code == status
    assert [link and link.link for link in app.links] == (["shared key"] if status == 204 else [])


async def test_lifespan_passes_and_an_unknown_connection_is_refused(root: Path) -> None:
    (root / "api").mkdir()
    app = App()
    middleware = LinkMiddleware(app)
    await connection(middleware, "lifespan")
    with pytest.raises(ValueError, match="cannot be checked"):
        await connection(middleware, "novel")

    assert [scope["type"] for scope in app.scopes] == ["lifespan"]
