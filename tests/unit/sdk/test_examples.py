"""What of the examples needs no cluster: the walk on a laptop, and an application's own test of a service."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from runpy import run_path
from typing import Any

import httpx
import pytest
from pages import serving

import servicelink

FASTAPI = Path(__file__).parents[3] / "examples" / "06-fastapi"


@contextmanager
def free_ports(number: int) -> Iterator[list[str]]:
    """Answer ports that nobody listens on."""
    with ExitStack() as stack:
        yield [str(stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]) for _ in range(number)]


def test_the_fastapi_services_run_on_a_laptop_as_their_page_says() -> None:
    page = (FASTAPI / "README.md").read_text()
    script = next(text for text in re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL) if "localhost" in text)
    with free_ports(2) as ports:
        pass
    script = script.replace("8081", ports[0]).replace("8082", ports[1])
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", f"set -m\n{script}\nkill %1 %2\nwait\n"],
        cwd=FASTAPI,
        env={"PATH": path, "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert "20 of 20 taken" in done.stdout, done.stderr


@pytest.fixture
def orders() -> Any:
    """The module of the calling service."""
    return run_path(str(FASTAPI / "orders.py"))


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (None, 201),
        (409, 409),
        (servicelink.ServiceTimeout, 503),
        (servicelink.PermissionDenied, 503),
    ],
)
def test_a_shopper_is_told_what_becomes_of_an_order(orders: Any, answer: Any, status: int) -> None:
    inventory = servicelink.create_mock_service_client("inventory")
    if answer is None:
        inventory.post.returns({"left": 1}, status=201)
    elif isinstance(answer, int):
        inventory.post.returns({}, status=answer)
    else:
        inventory.post.raises(answer)
    app = orders["app"]
    app.dependency_overrides[orders["inventory"]] = lambda: inventory

    with serving(app) as address:
        told = httpx.post(f"{address}/orders", json={"item": "kettle"}, trust_env=False)

    assert told.status_code == status
    assert inventory.post.calls[0].json == {"item": "kettle", "pieces": 1}
