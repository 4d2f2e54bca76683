"""Argo CD's health of our kinds, in the Lua that Argo CD runs (5.1)."""

from pathlib import Path
from typing import Any

import pytest
from lupa.lua51 import LuaRuntime  # type: ignore[import-untyped]  # it brings no types

SCRIPT = (Path(__file__).parents[2] / "argocd" / "health.lua").read_text()


def condition(type_: str, status: str, message: str = "") -> dict[str, str]:
    return {"type": type_, "status": status, "reason": "Some", "message": message}


def health(status: dict[str, Any] | None, generation: int = 2) -> tuple[str, str]:
    """Answer what Argo CD would show: health and message."""
    lua = LuaRuntime(unpack_returned_tuples=True)
    body: dict[str, Any] = {"metadata": {"name": "web-to-catalog", "generation": generation}}
    lua.globals().obj = lua.table_from(body if status is None else {**body, "status": status}, recursive=True)
    answer = lua.execute(SCRIPT)
    return answer["status"], answer["message"]


READY = condition("Ready", "True", "the binding stands")
WAITING = condition("Ready", "Unknown", "waiting for the server")
BROKEN = condition("Ready", "False", "there is no Service payments; create it")
STALLED = condition("Stalled", "True", "of Stalled")
UNSEEN = "ServiceLink's operator has not looked at this version yet"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param(None, ("Progressing", UNSEEN), id="no status yet is progressing"),
        pytest.param(
            {"observedGeneration": -1}, ("Progressing", UNSEEN), id="the status of a new object is progressing"
        ),
        pytest.param(
            {"observedGeneration": 1, "conditions": [READY]},
            ("Progressing", UNSEEN),
            id="ready for an older version is progressing",
        ),
        pytest.param(
            {"observedGeneration": 1, "conditions": [BROKEN, STALLED]},
            ("Progressing", UNSEEN),
            id="stalled in an older version is progressing",
        ),
        pytest.param(
            {"observedGeneration": 2, "conditions": [condition("Healthy", "False"), READY]},
            ("Healthy", "the binding stands"),
            id="ready is healthy whatever the server's own health",
        ),
        pytest.param(
            {"observedGeneration": 2, "conditions": [WAITING, condition("Reconciling", "True", "of Reconciling")]},
            ("Progressing", "waiting for the server"),
            id="reconciling is progressing with the message of ready",
        ),
        pytest.param(
            {"observedGeneration": 2, "conditions": [BROKEN]},
            ("Progressing", "there is no Service payments; create it"),
            id="not ready without stalled is progressing",
        ),
        pytest.param(
            {"observedGeneration": 2, "conditions": [STALLED, BROKEN]},
            ("Degraded", "there is no Service payments; create it"),
            id="stalled is degraded with the message of ready",
        ),
        pytest.param(
            {"observedGeneration": 2, "conditions": [condition("Stalled", "False"), WAITING]},
            ("Progressing", "waiting for the server"),
            id="stalled that is false is not degraded",
        ),
        pytest.param(
            {"observedGeneration": 2}, ("Progressing", "Ready is not known yet"), id="no conditions are progressing"
        ),
    ],
)
def test_health(status: dict[str, Any] | None, expected: tuple[str, str]) -> None:
    assert health(status) == expected


def test_a_condition_without_a_message_shows_its_reason() -> None:
    bare = {"type": "Ready", "status": "True", "reason": "Active"}

    assert health({"observedGeneration": 2, "conditions": [bare]}) == ("Healthy", "Active")
