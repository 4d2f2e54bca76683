"""A forked child counts its own calls, so that a sum over processes counts each call once."""

import io
import os
from collections.abc import Callable
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from sdk_servers import KEY, write_verifier

import servicelink
from servicelink import CallRow, Protocol, sync


def in_child(count: Callable[[], int]) -> int:
    """Answer what a forked child counts."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(count())
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def answer(_: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return []


def test_a_server_that_forks_counts_each_call_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICELINK_VERIFIER_DIR", str(tmp_path))
    write_verifier(tmp_path / "api")
    middleware = sync.LinkMiddleware(answer)
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/v1/x",
        "QUERY_STRING": "",
        "wsgi.input": io.BytesIO(),
    }

    def call() -> int:
        for headers in ({"HTTP_X_SERVICE_AUTH": KEY.text}, {}):
            # Not closed, as a server would: so it has a context of its own.
            copy_context().run(middleware, environ | headers, lambda *_: None)
        counts = middleware.counts()
        return sum(counts.accepted.values()) * 10 + sum(counts.refused.values())

    before, forked, after = call(), in_child(call), call()

    assert (before, forked, after) == (11, 11, 22)


def test_a_client_that_forks_counts_each_call_in_one_process() -> None:
    api = sync.create_mock_service_client("forking")
    api.get.returns({})
    row = CallRow("forking", Protocol.REST, "answered")

    def call() -> int:
        api.get("/")
        return servicelink.metrics()[row].calls

    before, forked, after = call(), in_child(call), call()

    assert (before, forked, after) == (1, 1, 2)
