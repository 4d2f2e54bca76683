"""What a host must be and have."""

import platform

import pytest

from devcluster import host
from devcluster.errors import DevclusterError


def test_a_node_elsewhere_than_on_linux_is_refused_with_the_other_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")

    with pytest.raises(DevclusterError, match="needs Linux, and this is Darwin") as refused:
        host.require_linux_root("a node")

    assert "--provider kind" in refused.value.mend


def test_all_missing_programs_are_named_together_with_one_command() -> None:
    with pytest.raises(DevclusterError, match="missing: no-such-a, no-such-b") as refused:
        host.require_programs({"no-such-a": "b-package", "no-such-b": "a-package", "sh": "dash"}, "a test")

    assert refused.value.mend.endswith("a-package b-package")


def test_a_program_that_fails_is_shown_with_what_it_said() -> None:
    with pytest.raises(DevclusterError, match="`sh -c echo why >&2; exit 3` failed") as refused:
        host.run(["sh", "-c", "echo why >&2; exit 3"])

    assert refused.value.evidence == "why"
