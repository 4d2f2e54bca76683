"""Servers of tests in processes of their own: `sdk_apps.py`, or gunicorn over what it holds."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

APPS = Path(__file__).with_name("sdk_apps.py")


def free_port() -> int:
    """Answer a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def command_of(server: str, app: str, port: int) -> list[str]:
    """Answer the command that serves an application."""
    if not server.startswith("gunicorn"):
        return [sys.executable, str(APPS), server, app, str(port)]
    kind = ["--worker-class", "asgi"] if server == "gunicorn-asgi" else ["--threads", "4"]
    bound = ["--bind", f"127.0.0.1:{port}", "--workers", "2", "--no-control-socket"]
    return [sys.executable, "-m", "gunicorn", "--preload", *bound, *kind, f"sdk_apps:{app}()"]


@contextmanager
def serving_process(
    server: str, app: str, **environ: str
) -> Iterator[tuple[tuple[str, int], "subprocess.Popen[bytes]"]]:
    """Serve an application, and answer its address and the process."""
    address = ("127.0.0.1", free_port())
    env = {**os.environ, "PYTHONPATH": str(APPS.parent), **environ}
    process = subprocess.Popen(command_of(server, app, address[1]), env=env, stderr=subprocess.PIPE)
    try:
        _wait_for(address, process)
        yield address, process
    finally:
        process.terminate()
        process.communicate(timeout=20)


def _wait_for(address: tuple[str, int], process: "subprocess.Popen[bytes]") -> None:
    """Wait until it takes connections, for half a minute at most."""
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(address, timeout=1).close()
        except OSError:
            # What is waited for needs the processor more.
            time.sleep(0.01)
            continue
        return
    process.kill()
    raise AssertionError(process.communicate()[1].decode())
