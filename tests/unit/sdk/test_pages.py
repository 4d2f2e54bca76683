"""The Python of the pages runs, with a real server and the key in the environment as on a laptop."""

import asyncio
import os
import re
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from grpc_tools import protoc  # type: ignore[import-untyped] # it brings no types
from pages import blocks, files_of, run
from sdk_worlds import Peer, Request, staged
from starlette.applications import Starlette
from starlette.requests import Request as WebRequest
from starlette.responses import JSONResponse
from starlette.routing import Route

import servicelink
from servicelink import PrometheusCollector, errors
from servicelink.measures import CallTally
from servicelink.settings import ClientOptions, Settings, render_configuration
from servicelink_contract.key import render_key

pytest_plugins = ("pytester",)
ROOT = Path(__file__).parents[3]
PAGES = ROOT / "docs" / "sdk"
KEY = render_key("AAAAAAAA", b"a" * 32).text


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that answers everything, in a thread of its own, so that synchronous lines may wait for it."""
    addresses: list[str] = []
    started = threading.Event()
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def answer(peer: Peer, request: Request) -> None:
        await peer.reply(200, b'{"id": "ch_1"}', content_type="application/json")

    async def serve() -> None:
        async with staged(answer) as stage:
            addresses.append(stage.address)
            started.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    started.wait(10)
    monkeypatch.setenv("INTERNAL_API_KEY", KEY)
    for name in ("NOTIFICATION_SERVICE_URL", "PAYMENTS_URL"):
        monkeypatch.setenv(name, addresses[0])
    yield addresses[0]
    loop.call_soon_threadsafe(over.set)
    thread.join()
    loop.close()


@pytest.mark.parametrize("page", ["choosing.md", "errors.md", "migration.md", "rest.md"])
async def test_the_blocks_of_a_page_run_one_after_the_other(page: str, address: str) -> None:
    names: dict[str, Any] = {}
    for block in blocks(PAGES / page):
        await run(block, page, names)
    for client in names.values():
        if isinstance(client, servicelink.ServiceClient):
            await client.aclose()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def generate(page: Path, folder: Path) -> None:
    """Write the .proto file of a page, and what protoc makes of it."""
    [proto] = re.findall(r"```proto\n(.*?)```", page.read_text(), flags=re.DOTALL)
    (folder / "accounts.proto").write_text(proto)
    words = ["protoc", f"-I{folder}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    assert protoc.main([*words, str(folder / "accounts.proto")]) == 0


async def test_the_programs_of_the_page_about_grpc_call_each_other(tmp_path: Path) -> None:
    page, port = PAGES / "grpc.md", free_port()
    generate(page, tmp_path)
    files = files_of(page)
    # In place of 50051, which may be somebody's on this machine.
    own = files["server"].replace("Accounts()})", f"Accounts()}}, port={port})")
    assert own != files["server"]
    (tmp_path / "server.py").write_text(own)
    (tmp_path / "client.py").write_text(files["client"])
    environ = {**os.environ, "INTERNAL_API_KEY": KEY, "ACCOUNTS_URL": f"grpc://localhost:{port}"}
    server = await asyncio.create_subprocess_exec(sys.executable, str(tmp_path / "server.py"), env=environ)
    client = await asyncio.create_subprocess_exec(
        sys.executable, str(tmp_path / "client.py"), env=environ, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await client.communicate()
    server.terminate()

    assert await server.wait() == 0
    assert said.decode() == "account 7 has 100 cents\n"
    assert f"`{said.decode().strip()}`" in page.read_text()


async def test_the_blocks_of_the_page_about_grpc_run_over_the_file_that_it_shows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = PAGES / "grpc.md"
    generate(page, tmp_path)
    port = free_port()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("servicelink.grpc.server_parts.PORT", port)
    monkeypatch.setenv("ACCOUNTS_URL", f"grpc://127.0.0.1:{port}")
    monkeypatch.setenv("INTERNAL_API_KEY", KEY)
    names: dict[str, Any] = {}
    for block in blocks(page):
        # Programs of their own: the test below.
        if block not in files_of(page).values():
            await run(block, "grpc.md", names)
    # A stub has no end of its own, and lives as long as its process; this test does not.
    await names["accounts"].GetAccount._driver.wire.aclose()  # noqa: SLF001 - see above
    await names["client"].aclose()
    await names["server"].stop()
    await names["own"].stop(None)
    for name in ("accounts_pb2", "accounts_pb2_grpc"):
        sys.modules.pop(name)

    refused = names["server"].counts().refused
    # What a page defines refers to all of it; left to the interpreter's end it would be torn down in any order.
    names.clear()

    assert refused == {}
    assert f"port {50051}" in page.read_text()


def test_the_tests_of_the_page_about_testing_pass(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of(PAGES / "testing.md")
    pytester.makepyfile(**files)
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    done = pytester.runpytest_subprocess("-q")

    done.assert_outcomes(passed=sum(text.count("def test_") for text in files.values()))


async def test_what_the_readme_shows_of_both_ends_works(
    serve: Callable[[Any], Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    callers: list[str] = []

    async def take(request: WebRequest) -> JSONResponse:
        link = servicelink.current_link()
        assert link is not None
        callers.append(link.link)
        return JSONResponse(await request.json())

    app = Starlette(routes=[Route("/notifications", take, methods=["POST"])])
    monkeypatch.setenv("INTERNAL_API_KEY", KEY)
    monkeypatch.setenv("NOTIFICATION_URL", await serve(app))
    # The server's lines before the client's, as in any cluster.
    lines = sorted("".join(blocks(ROOT / "README.md")).splitlines(), key=lambda line: not line.startswith("app."))
    names: dict[str, Any] = {"servicelink": servicelink, "app": app}
    await run("\n".join(lines), "README.md", names)
    await names["notification"].aclose()

    assert callers == ["shared key"]


async def test_the_quick_start_answers_what_its_page_says(
    address: str, serve: Callable[[Any], Awaitable[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = ROOT / "sdk" / "README.md"
    files = files_of(page)
    names: dict[str, Any] = {}
    await run(files["server"], "server.py", names)
    url = await serve(names["app"])
    (tmp_path / "client.py").write_text(files["client"])
    environ = {**os.environ, "PAYMENTS_URL": url}
    client = await asyncio.create_subprocess_exec(
        sys.executable, str(tmp_path / "client.py"), env=environ, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await client.communicate()
    short = next(text for text in blocks(page) if text.startswith("from servicelink import sync"))
    names = {}
    await run(short, "sdk/README.md", names)
    names["payments"].close()

    assert said.decode().strip() in page.read_text()
    assert said.decode().strip() == "{'charged': 100, 'by': 'shared key'}"


def test_the_page_of_errors_shows_their_tree() -> None:
    tree = [line.removeprefix("    ") for line in (errors.__doc__ or "").splitlines() if line.startswith("    ")]

    assert "\n".join(tree) in (PAGES / "errors.md").read_text()
    for name in servicelink.__all__:
        kind = getattr(servicelink, name)
        if isinstance(kind, type) and issubclass(kind, servicelink.ServiceError) and name != "ServiceError":
            assert f"| `{name}` |" in (PAGES / "errors.md").read_text()


def test_the_table_of_settings_is_what_the_code_says() -> None:
    """`make reference` writes it."""
    assert render_configuration() in (PAGES / "configuration.md").read_text()


def test_the_page_names_all_that_is_measured() -> None:
    page = (PAGES / "rest.md").read_text()
    results = "".join(line.split("|")[1] for line in page.partition("| `result` |")[2].splitlines() if "|" in line)
    [calls, resends] = PrometheusCollector(CallTally()).collect()

    assert set(re.findall(r"`([a-z]+)`", results)) == {result.value for result in servicelink.Result}
    assert {f"`{calls.name}` (histogram)", f"`{resends.name}_total` (counter)"} <= set(
        re.findall(r"`\w+` \(\w+\)", page)
    )
    for shape in (servicelink.CallRow, servicelink.CallCount):
        assert f"`{shape.__name__}({', '.join(one.name for one in fields(shape))})`" in page
    assert page.count(f"| {', '.join(f'`{one.name}`' for one in fields(servicelink.CallRow))} |") == 2


def test_settings_and_their_types_are_the_same_names() -> None:
    assert set(ClientOptions.__annotations__) == set(Settings.__dataclass_fields__)


def test_every_page_is_in_the_readme_s_list() -> None:
    listed = (ROOT / "sdk" / "README.md").read_text()

    assert [page.name for page in PAGES.glob("*.md") if f"docs/sdk/{page.name}" not in listed] == []


def test_every_link_of_the_pages_leads_somewhere() -> None:
    for page in [*PAGES.glob("*.md"), ROOT / "sdk" / "README.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
