"""Turning a process to a sandbox for as long as a test lasts: what `link_sandbox` of the pytest plugin does."""

from pathlib import Path
from weakref import WeakKeyDictionary

import pytest

from servicelink.binding import FoundSource, Source
from servicelink.sandbox import LinkSandbox


def open_sandbox(folder: Path, monkeypatch: pytest.MonkeyPatch) -> LinkSandbox:
    """Answer a sandbox to which this process's clients and servers turn until the test ends.

    They look at every call, not every 50 ms, so that a test need not wait for what it has changed. Clients that found
    their link before, in an earlier test, look for it anew.
    """
    sandbox = LinkSandbox(folder)
    found: WeakKeyDictionary[FoundSource, Source] = WeakKeyDictionary()

    def find(source: FoundSource) -> Source:
        if source not in found:
            found[source] = source.find()
        return found[source]

    for name, value in sandbox.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("servicelink.folder.CHECK_EVERY", 0.0)
    # Not what `mock_link` takes over, so that a test may have both, in either order.
    monkeypatch.setattr(FoundSource, "found", find)
    return sandbox
