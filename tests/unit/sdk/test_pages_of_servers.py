"""The blocks of the pages about servers and about GraphQL run, and do what the pages say of them."""

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from runpy import run_path
from typing import Any

import httpx
import pytest
import yaml
from graphql import graphql
from pages import blocks, files_of, run, serving
from sdk_servers import LINK, VERIFIER, swap, write_verifier
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import servicelink
from servicelink.authority import Authority
from servicelink.binding import TlsFiles
from servicelink.tls import client_context

ROOT = Path(__file__).parents[3]
PAGES = ROOT / "docs" / "sdk"
KEY = "a-shared-key-0123456789"
HEADERS = {"x-service-auth": KEY}
IDENTITY = "spiffe://cluster.local/ns/shop/link/web"


@pytest.fixture
def shared_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERNAL_API_KEY", KEY)


@pytest.fixture
def shown(shared_key: None) -> dict[str, Any]:
    """The names that the page about servers makes."""
    names: dict[str, Any] = {}
    for block in blocks(PAGES / "servers.md"):
        if not block.startswith("# serve.py"):
            asyncio.run(run(block, "servers.md", names))
    return names


def test_the_page_s_asgi_applications_are_guarded(shown: dict[str, Any]) -> None:
    with serving(shown["app"]) as address, httpx.Client(base_url=address, trust_env=False) as client:
        answers = [client.get("/v1/charges"), client.get("/v1/charges", headers=HEADERS), client.get("/healthz")]
    with serving(shown["wrapped"]) as address, httpx.Client(base_url=address, trust_env=False) as client:
        plain = [client.get("/").status_code, client.get("/", headers=HEADERS).status_code]

    assert [answer.status_code for answer in answers] == [403, 200, 200]
    assert answers[0].json()["error"]["code"] == "INVALID_SERVICE_AUTH"
    assert answers[1].json() == {"asked by": "shared key"}
    assert plain == [403, 204]


def test_the_page_s_flask_application_is_guarded(shown: dict[str, Any]) -> None:
    client = shown["flask_app"].test_client()

    assert client.get("/v1/charges").status_code == 403
    # Flask's client closes an answer, which ends the call, only where it buffers it.
    assert client.get("/v1/charges", headers=HEADERS, buffered=True).json == {"asked by": "shared key"}
    assert servicelink.current_link() is None


def test_the_page_s_log_lines_hold_the_correlation_id(shown: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    said = StringIO()
    shown["handler"].setStream(said)
    log = logging.getLogger("shop")
    monkeypatch.setattr(log, "handlers", [shown["handler"]])
    log.warning("outside")
    with servicelink.carry({"x-correlation-id": "order-7"}):
        log.warning("charged")

    assert said.getvalue() == "WARNING [None] outside\nWARNING [order-7] charged\n"


def test_the_page_shows_what_the_log_says_of_a_refusal(shown: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "servicelink")
    ids = {"x-correlation-id": "order-7", "x-request-id": "r-1"}
    shown["flask_app"].test_client().get("/v1/charges", headers=ids)

    [said] = [record.getMessage() for record in caplog.records if record.name == "servicelink"]
    assert f"```text\n{said}\n```" in (PAGES / "servers.md").read_text()


def test_the_page_s_counts_are_shown(shown: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    with serving(shown["wrapped"]) as address:
        httpx.get(address, trust_env=False)
    (block,) = [one for one in blocks(PAGES / "servers.md") if ".counts()" in one]
    asyncio.run(run(block, "servers.md", shown))

    assert capsys.readouterr().out == "None INVALID_SERVICE_AUTH 1\n"


@contextmanager
def running(folder: Path, port: int, **environment: str) -> Iterator[None]:
    """Run the page's program for TLS on that port of this machine."""
    for name, text in files_of(PAGES / "servers.md").items():
        text_here = text.replace("0.0.0.0", "localhost").replace("8443", str(port))  # noqa: S104 - the page's
        (folder / f"{name}.py").write_text(text_here)
    program = subprocess.Popen([sys.executable, "serve.py"], cwd=folder, env={**os.environ, **environment})
    try:
        yield
    finally:
        program.terminate()
        program.wait(10)


def test_the_page_s_program_for_tls_knows_its_client(tmp_path: Path) -> None:
    authority = Authority("one")
    leaf, own = authority.client(IDENTITY), authority.server("localhost")
    swap(tmp_path / "tls" / "api", {"tls.crt": own.certificate, "tls.key": own.private_key})
    links = (replace(LINK, keys=(), identity=IDENTITY),)
    write_verifier(tmp_path / "verifier" / "api", replace(VERIFIER, links=links, trust=authority.trust))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    contexts = [
        client_context(TlsFiles(leaf.certificate, leaf.private_key, authority.trust)),
        client_context(TlsFiles("", "", authority.trust)),
    ]

    with running(tmp_path, port, SERVICELINK_VERIFIER_DIR=str(tmp_path / "verifier")):
        answers = []
        for context in contexts:
            with servicelink.sync.ServiceClient(
                service_name="api", base_url=f"https://localhost:{port}", ssl_context=context
            ) as client:
                client.wait_until_ready(30, path="/healthz")
                try:
                    answers.append(client.get("/v1/charges").json())
                except servicelink.InvalidServiceAuth as error:
                    answers.append(type(error).__name__)

    assert answers == [{"asked by": "shop/web"}, "InvalidServiceAuth"]


@pytest.fixture
def catalog(shared_key: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The catalogue of the example, which here takes batches as well."""
    example = run_path(str(ROOT / "examples" / "04-graphql" / "products.py"))

    async def execute(one: dict[str, Any]) -> Any:
        found = await graphql(
            example["SCHEMA"], one["query"], root_value=example["CATALOG"], variable_values=one.get("variables")
        )
        return found.formatted

    async def answer(request: Request) -> JSONResponse:
        asked = await request.json()
        return JSONResponse([await execute(one) for one in asked] if isinstance(asked, list) else await execute(asked))

    app = Starlette(routes=[Route("/graphql", answer, methods=["POST"])])
    with serving(servicelink.LinkMiddleware(app)) as address:
        monkeypatch.setenv("CATALOG_URL", address)
        yield


async def test_the_blocks_of_the_page_about_graphql_run(catalog: None) -> None:
    names: dict[str, Any] = {}
    for block in blocks(PAGES / "graphql.md"):
        await run(block, "graphql.md", names)

    assert names["second"].error.path == ("product",)


def test_the_rules_on_the_page_about_graphql_are_those_of_a_link() -> None:
    page = (PAGES / "graphql.md").read_text()
    spec = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])["spec"]
    definition = yaml.safe_load((ROOT / "crds" / "servicelink.dev_servicelinks.yaml").read_text())
    (version,) = definition["spec"]["versions"]
    fields = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    rule = fields["graphql"]["properties"]["allow"]["items"]["properties"]

    assert spec["protocol"] in fields["protocol"]["enum"]
    assert all(one.keys() <= rule.keys() and one["type"] in rule["type"]["enum"] for one in spec["graphql"]["allow"])
