"""The library that reads GraphQL takes long to load: only where a GraphQL link may call, and while no call waits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Notes which threads load the library. Guarded servers are made in a folder whose verifier is swapped.
PREPARED = """
import asyncio, io, json, sys, threading
from dataclasses import replace
from pathlib import Path
from sdk_servers import GRAPHQL_KEY, KEY, LINK, VERIFIER, AsgiApp, write_verifier
import servicelink
from servicelink import sync

threads = []

def note(event, arguments):
    if event == "import" and arguments[0] == "graphql":
        threads.append(threading.current_thread().name)

sys.addaudithook(note)
folder = Path(sys.argv[1]) / "api"
folder.mkdir()
PLAIN = replace(VERIFIER, links=(LINK,))

def make():
    if sys.argv[2] == "synchronous":
        return sync.LinkMiddleware(lambda environ, start: start("200 OK", []) or [])
    return servicelink.LinkMiddleware(AsgiApp())

def ask(server, key=GRAPHQL_KEY, body=b'{"query": "{ order }"}'):
    said = []

    async def receive():
        return {"type": "http.request", "body": body}

    async def send(message):
        said.append(message.get("status"))

    if sys.argv[2] == "synchronous":
        environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/graphql", "HTTP_X_SERVICE_AUTH": key.text}
        content = {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}
        list(server(environ | content, lambda status, _: said.append(int(status[:3]))))
    else:
        headers = [(b"x-service-auth", key.text.encode()), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/graphql", "raw_path": b"/graphql", "headers": headers}
        asyncio.run(server(scope, receive, send))
    return said[0]
"""


def threads_that_load(script: str, tmp_path: Path, world: str) -> list[str]:
    """Run a script in a process of its own, and answer which threads loaded the library."""
    environ = {**os.environ, "SERVICELINK_VERIFIER_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", f"{PREPARED}\n{script}\nprint(json.dumps(threads))", str(tmp_path), world]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ, timeout=60)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


BOTH = pytest.mark.parametrize("world", ["asynchronous", "synchronous"])


@BOTH
def test_with_a_graphql_link_it_is_loaded_as_the_server_starts(tmp_path: Path, world: str) -> None:
    script = "write_verifier(folder, VERIFIER); make(); assert threads; assert ask(make()) == 200"

    assert threads_that_load(script, tmp_path, world) == ["MainThread"]


@BOTH
@pytest.mark.parametrize("before", ["write_verifier(folder, PLAIN)", ""])
def test_for_a_link_that_comes_later_it_is_loaded_beside_the_calls(tmp_path: Path, world: str, before: str) -> None:
    script = f"""
{before}
server = make()
assert (ask(server), threads) == (403, [])
write_verifier(folder, VERIFIER)
while ask(server) == 403:
    pass
assert ask(server) == 200
"""

    assert threads_that_load(script, tmp_path, world) == ["servicelink-reload"]


@BOTH
def test_without_one_it_is_not_loaded(tmp_path: Path, world: str) -> None:
    script = "write_verifier(folder, PLAIN); server = make(); ask(server, KEY); ask(server)"

    assert threads_that_load(script, tmp_path, world) == []


@BOTH
def test_a_library_that_is_broken_harms_no_other_link(tmp_path: Path, world: str) -> None:
    script = """
broken = Path(sys.argv[1]) / ".broken" / "graphql"
broken.mkdir(parents=True)
(broken / "__init__.py").write_text("raise RuntimeError")
sys.path.insert(0, str(broken.parent))
write_verifier(folder, VERIFIER)
server = make()
ask(server, KEY)
assert [row.link for row in server.counts().refused] == ["shop/web"]
"""

    assert threads_that_load(script, tmp_path, world) == ["MainThread"]


def test_a_grpc_server_never_needs_it(tmp_path: Path) -> None:
    script = """
write_verifier(folder, VERIFIER)
from servicelink.grpc.server_door import GrpcDoor
GrpcDoor(None, exempt=(), rate_limit=None)
"""

    assert threads_that_load(script, tmp_path, "synchronous") == []
