"""The examples in public docstrings run as they stand, but for addresses that are free on this machine."""

import asyncio
import inspect
import signal
import socket
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import httpx
import pytest
from grpc_servers import serving as serving_grpc
from pages import run, serving
from sdk_public import PUBLIC, methods
from sdk_servers import VERIFIER, swap, write_verifier
from sdk_worlds import in_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from users_service import FULL_NAME, PACKAGE, PROTO, generated

import servicelink
from servicelink.authority import Authority

HARNESS = Path(__file__).parents[2] / "harness"


def examples() -> Iterator[Any]:
    """Answer the indented lines of public docstrings, which are code, each once."""
    told: dict[str, str] = {}
    for name, one in PUBLIC.items():
        for more, function in [("", one), *methods(one)]:
            blocks = inspect.cleandoc(function.__doc__ or "").split("\n\n")
            for number, block in enumerate(blocks):
                if block.startswith("    "):
                    told.setdefault(textwrap.dedent(block), f"{name}{more}-{number}")
    return (pytest.param(text, id=name) for text, name in told.items())


ALL = list(examples())
SERVE = [one for one in ALL if ".serve()" in one.values[0] or ".run()" in one.values[0]]
ASK = [one for one in ALL if one not in SERVE]


@pytest.fixture
def certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's certificate and verifier, and a client's for the link `payments`."""
    authority = Authority("one")
    server, client = authority.server("localhost"), authority.client("spiffe://cluster.local/ns/shop/link/web")
    swap(tmp_path / "tls" / "api", {"tls.crt": server.certificate, "tls.key": server.private_key})
    write_verifier(tmp_path / "verifier" / "api", VERIFIER)
    files = {"tls.crt": client.certificate, "tls.key": client.private_key, "ca.crt": authority.trust}
    swap(tmp_path / "payments", {**files, "uri": "https://localhost:8443", "protocol": "rest"})
    monkeypatch.setenv("SERVICELINK_VERIFIER_DIR", str(tmp_path / "verifier"))
    monkeypatch.setenv("PAYMENTS_TLS_DIR", str(tmp_path / "payments"))


async def answer(request: Request) -> Response:
    """Answer a charge, and what a query of the examples asks."""
    if request.url.path == "/graphql":
        return JSONResponse({"data": {"user": {"email": "ada@example.com"}, "products": []}})
    return JSONResponse({"amount": 100})


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key for both ends, and the proto file."""
    monkeypatch.setenv("INTERNAL_API_KEY", "a-shared-key-0123456789")
    (tmp_path / "users.proto").write_text(PROTO.read_text())
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def rest() -> Iterator[str]:
    """The address of a server for what examples call, but for gRPC."""
    with serving(Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])) as address:
        yield address


@pytest.fixture
async def names(shared: None, rest: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[dict[str, Any]]:
    """What examples use that is not theirs, with servers for what they call."""
    async with AsyncExitStack() as stack:
        users = await stack.enter_async_context(serving_grpc("aio", exempt=(f"{FULL_NAME}/*",)))
        for name, address in {"PAYMENTS": rest, "CATALOG": rest, "USERS": f"grpc://{users.address}"}.items():
            monkeypatch.setenv(f"{name}_SERVICE_URL", address)
        by_name = servicelink.connect_grpc("users", proto="users.proto", package=PACKAGE, service="UserService")
        stack.push_async_callback(by_name.aclose)
        yield {
            "servicelink": servicelink,
            "httpx": httpx,
            "aiohttp": aiohttp,
            **{name: getattr(servicelink, name) for name in ("ServiceClient", "GrpcClient", "GraphQLClient")},
            "GetUserRequest": generated()[0].GetUserRequest,
            "UserServiceStub": generated()[1].UserServiceStub,
            "users": by_name,
            "server": grpc.aio.server(),
            "rest": rest,
            "grpc_address": users.address,
        }


@pytest.mark.parametrize("example", ASK)
async def test_an_example_that_calls_runs(example: str, names: dict[str, Any], request: pytest.FixtureRequest) -> None:
    if "grpc_server_credentials" in example or "ssl_context" in example:
        request.getfixturevalue("certified")
    text = adapt(example, {"http://localhost:8080": names["rest"], "localhost:50051": names["grpc_address"]})
    before = dict(names)
    if "servicelink.sync." in text:
        await in_thread(exec, text, names)
    else:
        await run(text, "docstring", names)
    made = {name: one for name, one in names.items() if before.get(name) is not one}
    for one in made.values():
        await close(one)

    assert made.get("charge", {"amount": 100}) == {"amount": 100}
    assert not {"user", "data", "answer", "choice"} & made.keys() or any(made.values())


def adapt(example: str, places: dict[str, str]) -> str:
    """Put addresses that are free into an example, and the package of the service that is there."""
    for shown, here in {**places, "[::]:50051": "127.0.0.1:0", "shop.v1": PACKAGE}.items():
        example = example.replace(shown, here)
    return example


async def close(one: Any) -> None:
    """Close a client of either world that an example opened."""
    if hasattr(one, "aclose"):
        await one.aclose()
    elif isinstance(one, httpx.Client | aiohttp.ClientSession) or hasattr(one, "breaker"):
        ending = one.close()
        if inspect.isawaitable(ending):
            await ending


_PRELUDE = """
import asyncio, sys
sys.path.insert(0, {harness!r})
import servicelink, servicelink.sync, uvicorn
from grpc_servers import AioUsers, ThreadUsers
from pages import run
from users_service import generated
async def app(scope, receive, send):
    raise AssertionError("nobody calls it")
names = dict(servicelink=servicelink, uvicorn=uvicorn, app=app, Users={users},
             add_UserServiceServicer_to_server=generated()[1].add_UserServiceServicer_to_server)
"""


@pytest.mark.usefixtures("certified")
@pytest.mark.parametrize("example", SERVE)
async def test_an_example_that_serves_does_and_ends_when_told(example: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    here = f'host="127.0.0.1", port={port}'
    text = adapt(example, {"Users()}": f"Users()}}, {here}", 'host="0.0.0.0", port=8443': f'{here}, lifespan="off"'})
    waits = "await " in text
    runs = f"asyncio.run(run({text!r}, 'docstring', names))" if waits else f"exec({text!r}, names)"
    prelude = _PRELUDE.format(harness=str(HARNESS), users="AioUsers" if waits else "ThreadUsers")
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", prelude + runs)
    try:
        await wait_until_open(port, process)
        process.terminate()
        code = await asyncio.wait_for(process.wait(), 20)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    # uvicorn ends itself once more with the signal that it got, after it has shut down.
    assert code in {0, -signal.SIGTERM}


async def wait_until_open(port: int, process: asyncio.subprocess.Process) -> None:
    """Wait until a server listens; raises AssertionError for one that ended."""
    async with asyncio.timeout(30):
        while True:
            assert process.returncode is None
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


def test_there_are_examples_of_both_kinds() -> None:
    assert (len(ASK) > 10, len(SERVE) >= 3) == (True, True)
