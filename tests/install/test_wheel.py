"""The built wheels in an empty environment: the README's quick start runs, and a key rotates under a loop of calls."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = os.environ.get("UV") or shutil.which("uv") or str(Path.home() / ".local" / "bin" / "uv")
OLD, NEW = "the-old-shared-key-0123456789", "the-new-shared-key-0123456789"

SYNC_LOOP = """
import sys, threading
from servicelink import sync
import servicelink

failed = answered = 0
with sync.connect("payments") as payments:
    payments.wait_until_ready()
    print("calling", flush=True)
    rounds = threading.Thread(target=sys.stdin.readline)
    rounds.start()
    while rounds.is_alive() or answered < 200:
        try:
            payments.post("/v1/charges", json={"amount": 1}, raise_for_status=True)
            answered += 1
        except servicelink.ServiceError as error:
            print(error, flush=True)
            failed += 1
print(f"{failed} failed", flush=True)
"""

LOOP = """
import asyncio, sys
import servicelink

async def main():
    failed = 0
    async with servicelink.connect("payments") as payments:
        await payments.wait_until_ready()
        print("calling", flush=True)
        rounds = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
        answered = 0
        while not rounds.done() or answered < 200:
            try:
                await payments.post("/v1/charges", json={"amount": 1}, raise_for_status=True)
                answered += 1
            except servicelink.ServiceError as error:
                print(error, flush=True)
                failed += 1
        print(f"{failed} failed", flush=True)

asyncio.run(main())
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """An environment with nothing but the wheels, what they ask for, and a server for ASGI applications."""

    folder: Path

    def environ(self, **more: str) -> dict[str, str]:
        """Answer the environment of its programs."""
        path = f"{self.folder / 'venv' / 'bin'}:{os.environ['PATH']}"
        return {"PATH": path, "HOME": str(self.folder), **more}

    def python(self, *words: str, **more: str) -> str:
        """Run its Python and answer what it said."""
        command = [str(self.folder / "venv" / "bin" / "python"), *words]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environ(**more), capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    for member in ("contract", "sdk"):
        _run(UV, "build", "--quiet", "--wheel", "--out-dir", str(folder / "dist"), str(ROOT / member))
    pins = folder / "pins.txt"
    pins.write_text(_run(UV, "export", "--quiet", "--frozen", "--all-packages", "--no-hashes", "--no-emit-workspace"))
    _run(UV, "venv", "--quiet", "--python", sys.executable, str(folder / "venv"))
    wheels = [str(wheel) for wheel in (folder / "dist").glob("*.whl")]
    python = str(folder / "venv" / "bin" / "python")
    more = ("--constraint", str(pins), *wheels, "starlette", "uvicorn")
    _run(UV, "pip", "install", "--quiet", "--python", python, *more)
    files = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", (ROOT / "sdk" / "README.md").read_text(), flags=re.DOTALL)
    for name, text in files:
        (folder / name).write_text(text)
    return Installed(folder)


def _run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_installed_package_is_light_and_it_is_typed(installed: Installed) -> None:
    show = (
        "import servicelink, sys; print(servicelink.__file__); print('httpx' in sys.modules, 'asyncio' in sys.modules)"
    )
    where, loaded = installed.python("-c", show).splitlines()

    assert Path(where).is_relative_to(installed.folder)
    assert loaded == "False False"
    assert (Path(where).parent / "py.typed").exists()


def test_every_public_name_is_there_or_says_what_to_install(installed: Installed) -> None:
    show = """
import servicelink
from servicelink import sync
for module in (servicelink, sync):
    for name in module.__all__:
        try:
            getattr(module, name)
        except ModuleNotFoundError as error:
            print(error)
"""
    said = installed.python("-c", show).splitlines()

    assert {"servicelink.connect_grpc", "servicelink.sync.connect_grpc"} <= {
        line.partition(" needs ")[0] for line in said
    }
    assert [line for line in said if not line.endswith(": pip install 'servicelink[grpc]'")] == []


def test_whoever_looks_at_all_names_sees_those_that_are_usable(installed: Installed) -> None:
    show = """
import inspect, pydoc, servicelink
from servicelink import sync
for module in (servicelink, sync):
    names = dict(inspect.getmembers(module))
    print("connect" in names, "connect_grpc" in names, "connect" in pydoc.render_doc(module))
"""

    assert installed.python("-c", show).splitlines() == ["True False True"] * 2


def test_the_wheels_bring_their_licence_and_say_what_they_are(installed: Installed) -> None:
    texts = {
        path.parent.name: path.read_text() for path in installed.folder.glob("venv/lib/*/site-packages/*/METADATA")
    }
    sdk = next(text for name, text in texts.items() if name.startswith("servicelink-"))
    licences = [path.read_text() for path in installed.folder.glob("venv/**/servicelink*/licenses/LICENSE")]

    assert (ROOT / "sdk" / "README.md").read_text() in sdk
    assert "Requires-Dist: servicelink-contract<0.2,>=0.1" in sdk
    assert licences == [(ROOT / "LICENSE").read_text()] * 2


def test_the_quick_start_runs_as_it_stands(installed: Installed) -> None:
    page = (ROOT / "sdk" / "README.md").read_text()
    start, by_hand = re.findall(r"```sh\n((?:export|curl).*?)```", page, flags=re.DOTALL)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    stranger = by_hand.replace("$INTERNAL_API_KEY", "another")
    lines = f"{start}{by_hand}{stranger}kill %1\nwait\n".replace("8080", port)
    done = subprocess.run(
        ["bash", "-c", f"set -m\n{lines}"],
        cwd=installed.folder,
        env=installed.environ(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert "{'charged': 100, 'by': 'shared key'}" in done.stdout, done.stderr
    assert '{"charged":100,"by":"shared key"}' in done.stdout
    assert '"INVALID_SERVICE_AUTH"' in done.stdout


@contextmanager
def serving(installed: Installed, keys: str) -> Iterator[str]:
    """Serve the quick start's server with these keys, and answer its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = ["uvicorn", "server:app", "--port", str(port), "--log-level", "error"]
    program = str(installed.folder / "venv" / "bin" / "uvicorn")
    environ = installed.environ(INTERNAL_API_KEY=keys)
    server = subprocess.Popen([program, *command[1:]], cwd=installed.folder, env=environ)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


@pytest.mark.parametrize("program", [LOOP, SYNC_LOOP], ids=["asynchronous", "synchronous"])
def test_no_call_fails_while_the_key_file_is_rotated(installed: Installed, program: str) -> None:
    key_file = installed.folder / "key"
    key_file.write_text(OLD)
    (installed.folder / "loop.py").write_text(program)
    with serving(installed, f"{OLD},{NEW}") as address:
        environ = installed.environ(PAYMENTS_URL=address, PAYMENTS_API_KEY_FILE=str(key_file))
        python = str(installed.folder / "venv" / "bin" / "python")
        loop = subprocess.Popen(
            [python, "loop.py"],
            cwd=installed.folder,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert loop.stdout is not None
        assert loop.stdout.readline() == "calling\n"
        for number in range(40):
            fresh = installed.folder / "fresh"
            fresh.write_text((OLD, NEW)[number % 2])
            fresh.rename(key_file)
        said, _ = loop.communicate("stop\n", timeout=60)

    assert said.splitlines() == ["0 failed"]
