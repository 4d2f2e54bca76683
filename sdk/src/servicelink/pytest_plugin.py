"""The pytest plugin: `mock_link`. It loads nothing but pytest until a test asks for it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from servicelink.linkmock import MockedLink


@pytest.fixture
def mock_link(monkeypatch: pytest.MonkeyPatch) -> "Callable[[str], MockedLink]":
    """`mock_link(name)` mocks the server of every client of that link, however and whenever it was made.

    def test_checkout(mock_link):
        mock_link("payments").post.returns({"id": "ch_1"})
        assert app.checkout() == "ch_1"
    """
    from servicelink.linkmock import MockedLinks  # noqa: PLC0415 - a test that does not ask pays nothing

    links: Any = MockedLinks(monkeypatch)
    return links.mock  # type: ignore[no-any-return] # so that nothing is loaded for a type
