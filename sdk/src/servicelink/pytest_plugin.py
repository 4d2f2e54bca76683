"""The pytest plugin: `mock_link` and `link_sandbox`. It loads nothing but pytest until a test asks for it."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from servicelink.testing import LinkSandbox, MockLink


@pytest.fixture
def mock_link(monkeypatch: pytest.MonkeyPatch) -> "MockLink":
    """`mock_link(name)` mocks the server of every client of that link, however and whenever it was made.

    Its type is `servicelink.testing.MockLink`.

    def test_checkout(mock_link):
        mock_link("payments").post.returns({"id": "ch_1"})
        assert app.checkout() == "ch_1"
    """
    from servicelink.linkmock import MockedLinks  # noqa: PLC0415 - a test that does not ask pays nothing

    return MockedLinks(monkeypatch).mock


@pytest.fixture
def link_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "LinkSandbox":
    """A folder of real bindings and verifiers, whose issuer rotates when the test says so.

    Its type is `servicelink.testing.LinkSandbox`.

    def test_charging_survives_a_rotation(link_sandbox):
        payments = link_sandbox.link("payments")
        with payments.served():
            payments.rotate()
            assert app.charge(100)
    """
    from servicelink.sandbox_fixture import open_sandbox  # noqa: PLC0415 - as above

    return open_sandbox(tmp_path / "servicelink", monkeypatch)
