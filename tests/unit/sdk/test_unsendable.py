"""What an application gives and no request can hold is its own mistake: told with its name and the mend, never sent."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sdk_bound import Mount, World, bound_world
from sdk_worlds import WORLDS

import servicelink


@pytest.fixture(params=WORLDS)
async def world(  # noqa: PLR0917 - fixtures
    tmp_path: Path,
    mount: Mount,
    serve: Callable[[Any], Awaitable[str]],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> AsyncIterator[World]:
    async with bound_world(
        request.param, tmp_path / "bindings", mount=mount, serve=serve, monkeypatch=monkeypatch
    ) as bound:
        yield bound


def nested(depth: int) -> list[Any]:
    """Answer lists within lists."""
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def ring() -> list[Any]:
    """Answer a list that holds itself."""
    found: list[Any] = []
    found.append(found)
    return found


class Card:
    """A type of the application's own, whose repr is nobody's business."""

    def __repr__(self) -> str:
        return "secret"


HALF = "secret\ud800"
MISTAKES = {
    "deep": ("json", nested(100_000), "nested too deep", "flatter"),
    "circular": ("json", ring(), "Circular", "what JSON has"),
    "an object": ("json", {"a": Card()}, "Card", "what JSON has"),
    "no number": ("json", [float("nan")], "no JSON", "what JSON has"),
    "half of a character": ("json", {"a": HALF}, "surrogate", "Replace"),
    "as a parameter": ("params", {"a": HALF}, "surrogate", "Replace"),
    "as a parameter's name": ("params", [(HALF, "1")], "surrogate", "Replace"),
    "in all parameters": ("params", f"a={HALF}", "surrogate", "Replace"),
    "a long parameter": ("params", {"a": "secret" * 20_000}, "too long", "body"),
    "in a form": ("data", {"a": HALF}, "surrogate", "Replace"),
    "as a file's name": ("files", {"a": (HALF, b"")}, "surrogate", "Replace"),
    "as a text": ("content", HALF, "surrogate", "Replace"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_an_argument_that_cannot_be_sent_is_named_with_its_mend(world: World, mistake: str) -> None:
    name, value, reason, mend = MISTAKES[mistake]
    world.bind()
    api = world.connect()
    for _ in range(6):
        with pytest.raises(servicelink.ServiceError, match=f"POST /v1: {name}= cannot be sent: .*{reason}") as told:
            await api.post("/v1", **{name: value})
        assert type(told.value) is servicelink.ServiceError
        assert mend in told.value.next_step
        assert "secret" not in str(told.value)

    assert (world.server.seen, api.client.breaker.state) == ([], servicelink.CircuitState.CLOSED)


async def test_half_of_a_character_in_a_path_is_told_as_such(world: World) -> None:
    world.bind()
    with pytest.raises(servicelink.ServiceError, match=r"the URL cannot be sent: .*surrogate") as told:
        await world.connect().get(f"/{HALF}")

    assert "Replace" in told.value.next_step
    assert "secret" not in str(told.value)


async def test_an_argument_of_a_wrong_type_is_pythons_error(world: World) -> None:
    world.bind()
    with pytest.raises(TypeError):
        await world.connect().post("/v1", files=7)
