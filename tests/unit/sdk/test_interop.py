"""Programs that know nothing of this SDK call its servers: curl, a Go program that reads bound files, plain httpx."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sdk_apps import kid_app
from sdk_serving import serving_process
from sdk_worlds import WORLDS, in_thread
from tls_servers import running

import servicelink
from servicelink import sync
from servicelink.testing import LinkSandbox, SandboxLink

SHARED = ("the-old-shared-key", "the-new-shared-key")
QUERY = json.dumps({"query": "{ kid }"})


async def curl(url: str, *words: str) -> tuple[int, str]:
    """Answer status and body as curl sees them; status 0 where there was no answer."""
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    command = ["curl", "--silent", "--max-time", "10", "--write-out", "\n%{http_code}", *words, url]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    body, _, status = said.decode().rpartition("\n")
    return int(status), body


def code_of(answer: tuple[int, str]) -> str:
    """Answer the code of a refusal, the status of any other answer."""
    status, body = answer
    return json.loads(body)["error"]["code"] if status == 403 else str(status)


@pytest.fixture(scope="module", params=[("uvicorn-httptools", "starlette_app"), ("gunicorn", "flask_app")])
def shared(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server, ASGI or WSGI, that has only shared keys."""
    environ = {"INTERNAL_API_KEY": ", ".join(SHARED), "SERVICELINK_VERIFIER_DIR": ""}
    with serving_process(*request.param, **environ) as ((host, port), _):
        yield f"http://{host}:{port}"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (SHARED[0], "200"),
        (SHARED[1], "200"),
        ("another", "INVALID_SERVICE_AUTH"),
        (", ".join(SHARED), "INVALID_SERVICE_AUTH"),
        (SHARED[0].upper(), "INVALID_SERVICE_AUTH"),
        (SHARED[0][:-1], "INVALID_SERVICE_AUTH"),
        ("", "INVALID_SERVICE_AUTH"),
        (None, "INVALID_SERVICE_AUTH"),
    ],
)
@pytest.mark.parametrize("asked", ["rest", "graphql"])
async def test_curl_calls_a_server_that_has_only_shared_keys(
    shared: str, sent: str | None, expected: str, asked: str
) -> None:
    words = [] if sent is None else ["--header", f"x-service-auth: {sent}" if sent else "x-service-auth;"]
    if asked == "graphql":
        words += ["--header", "content-type: application/json", "--data", QUERY]
    answer = await curl(f"{shared}/graphql" if asked == "graphql" else f"{shared}/v1/items", *words)

    assert code_of(answer) == expected
    if expected == "200":
        seen = json.loads(answer[1])
        assert seen["link"] == "shared key"
        assert "x-service-auth" not in seen["headers"]


async def test_curl_is_let_to_exempt_paths_without_a_key(shared: str) -> None:
    assert code_of(await curl(f"{shared}/healthz")) == "200"
    assert code_of(await curl(f"{shared}/healthz/..", "--path-as-is")) == "INVALID_SERVICE_AUTH"


@asynccontextmanager
async def calling(kind: str) -> AsyncIterator[Any]:
    """Answer httpx's own client over the link, as a function that makes a GET."""
    if kind == "asynchronous":
        async with httpx.AsyncClient(
            transport=servicelink.httpx_transport("api"), base_url="http://api", trust_env=False
        ) as client:
            yield client.get
        return
    own = httpx.Client(transport=sync.httpx_transport("api"), base_url="http://api", trust_env=False)
    with own as plain:

        async def get(url: str) -> httpx.Response:
            return await in_thread(plain.get, url)

        yield get


@pytest.mark.parametrize("kind", WORLDS)
async def test_plain_httpx_survives_a_rotation(link_sandbox: LinkSandbox, kind: str) -> None:
    api = link_sandbox.link("api")
    with api.served():
        async with calling(kind) as get:
            statuses = []
            for change in (api.rotate, api.retire, api.prepare, api.publish, api.retire):
                change()
                statuses.append((await get("/v1/items")).status_code)
            api.withdraw()
            with pytest.raises(servicelink.InvalidServiceAuth):
                await get("/v1/items")

    assert statuses == [200] * 5


@pytest.fixture(params=[False, True], ids=["key", "certificate"])
async def served(link_sandbox: LinkSandbox, request: pytest.FixtureRequest) -> AsyncIterator[SandboxLink]:
    """A link of either kind, and a server over TLS."""
    api = link_sandbox.link("api", "https://localhost", certificate=request.param)
    async with running(kid_app(), log_level="critical") as (_, port):
        api.lead_to(f"https://localhost:{port}")
        yield api


async def test_curl_reads_the_bound_files(link_sandbox: LinkSandbox, served: SandboxLink) -> None:
    folder = link_sandbox.folder / "bindings" / "api"
    url = f"{(folder / 'uri').read_text()}/v1/items"
    roots = ["--cacert", str(folder / "ca.crt")]

    def credential() -> list[str]:
        if served.has_certificate:
            return ["--cert", str(folder / "tls.crt"), "--key", str(folder / "tls.key")]
        return ["--header", f"{(folder / 'header').read_text()}: {(folder / 'api-key').read_text()}"]

    codes = [code_of(await curl(url, *roots, *credential()))]
    served.rotate()
    served.retire()
    codes += [code_of(await curl(url, *roots, *credential())), code_of(await curl(url, *roots))]
    strange = await curl(url, *credential())

    assert codes == ["200", "200", "INVALID_SERVICE_AUTH"]
    assert strange == (0, "")


@pytest.fixture(scope="session")
def go_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go program, built."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("there is no go")
    source, made = Path(__file__).parents[2] / "harness" / "go_client", tmp_path_factory.mktemp("go") / "client"
    env = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
    subprocess.run([go, "build", "-o", made, "."], cwd=source, env=env, check=True)
    return made


async def test_a_go_program_reads_the_bound_files_and_survives_rotations(
    link_sandbox: LinkSandbox, served: SandboxLink, go_client: Path
) -> None:
    process = await asyncio.create_subprocess_exec(
        go_client,
        link_sandbox.folder / "bindings" / "api",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    changes = (
        served.rotate,
        served.retire,
        link_sandbox.prepare_authority,
        link_sandbox.activate_authority,
        link_sandbox.revoke_authority,
        served.withdraw,
    )
    said = []
    for change in changes:
        change()
        process.stdin.write(b"/v1/items\n")
        said.append((await process.stdout.readline()).decode())
    process.stdin.close()
    await process.wait()

    assert [one[:3] for one in said] == ["200"] * 5 + ["403"]
    assert len({json.loads(one[4:])["data"]["kid"] for one in said[:5]}) == 2
