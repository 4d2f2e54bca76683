"""The middleware under the servers and frameworks that people use, each in a process of its own."""

import os
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from sdk_servers import KEY, VERIFIER, make_key, with_keys, write_verifier
from sdk_serving import APPS, command_of, free_port, serving_process

pytestmark = pytest.mark.traffic

NEW = make_key(11)


@pytest.mark.parametrize(
    ("server", "app"),
    [
        ("uvicorn-httptools", "starlette_app"),
        ("uvicorn-h11", "fastapi_app"),
        ("uvicorn-httptools", "django_asgi"),
        ("hypercorn", "starlette_app"),
        ("gunicorn-asgi", "starlette_app"),
        ("gunicorn", "flask_app"),
        ("gunicorn", "django_wsgi"),
        ("waitress", "flask_app"),
        ("waitress", "django_wsgi"),
        ("wsgiref", "flask_app"),
    ],
)
def test_links_are_checked_and_keys_rotate_under(server: str, app: str, tmp_path: Path) -> None:
    write_verifier(tmp_path / "api")
    with (
        serving_process(server, app, SERVICELINK_VERIFIER_DIR=str(tmp_path), INTERNAL_API_KEY="") as ((host, port), _),
        httpx.Client(base_url=f"http://{host}:{port}", trust_env=False) as client,
    ):
        with_key = {"x-service-auth": KEY.text, "x-servicelink-uid": "forged", "x-other": "stays"}
        accepted = client.get("/v1/a b", headers=with_key)
        refused = [
            client.get("/v1/x"),
            client.get("/v1/x", headers={"x-service-auth": KEY.text[:-1]}),
            client.post("/v1/x", headers=with_key),
            client.get("/v1/%2e%2e/admin", headers=with_key),
            client.get("//v1/x", headers=with_key),
            client.get("/v1/x", headers=[*with_key.items(), ("x-service-auth", KEY.text)]),
        ]
        exempt = client.get("/healthz")
        write_verifier(tmp_path / "api", with_keys(VERIFIER, NEW))
        rotated = until_all_take(client, NEW.text)
        old = client.get("/v1/x", headers=with_key)

    assert (accepted.status_code, accepted.json()["link"]) == (200, "shop/web")
    assert "x-other" in accepted.json()["headers"]
    assert not {"x-service-auth", "x-servicelink-uid"} & set(accepted.json()["headers"])
    assert [answer.status_code for answer in refused] == [403] * 6
    assert {answer.json()["error"]["code"] for answer in refused[:2]} == {"INVALID_SERVICE_AUTH"}
    assert (exempt.status_code, exempt.json()["link"]) == (200, None)
    assert (rotated, old.status_code) == (True, 403)


def until_all_take(client: httpx.Client, key: str) -> bool:
    """Say whether every process of a server takes a key, within ten seconds: twenty answers in a row."""
    deadline, in_a_row = time.monotonic() + 10, 0
    while in_a_row < 20 and time.monotonic() < deadline:
        answer = client.get("/v1/x", headers={"x-service-auth": key, "connection": "close"})
        in_a_row = in_a_row + 1 if answer.status_code == 200 else 0
    return in_a_row == 20


@pytest.mark.parametrize(
    ("server", "app"),
    [
        ("uvicorn-httptools", "starlette_app"),
        ("hypercorn", "starlette_app"),
        ("gunicorn", "flask_app"),
        ("gunicorn-asgi", "starlette_app"),
        ("waitress", "flask_app"),
    ],
)
def test_with_nothing_to_check_calls_with_no_server_starts(server: str, app: str) -> None:
    port = free_port()
    env = {**os.environ, "PYTHONPATH": str(APPS.parent), "INTERNAL_API_KEY": ""}
    env.pop("SERVICELINK_VERIFIER_DIR", None)
    done = subprocess.run(command_of(server, app, port), env=env, capture_output=True, timeout=60, check=False)

    assert done.returncode != 0
    assert b"no call could be checked" in done.stderr + done.stdout
