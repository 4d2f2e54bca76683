"""The figures of a proof: the newest of each test, with those of other tests that an earlier run kept."""

import json
from pathlib import Path

from figures import Figures


def test_the_newest_figure_of_each_test_is_kept(tmp_path: Path) -> None:
    first, second = Figures(), Figures()
    first.add("keys", "REST", changes=10, calls=100, failed=0, seconds=2.0)
    first.add("bundles", "REST", changes=1, calls=3, failed=0, seconds=0.0)
    first.write("page", tmp_path)
    second.add("keys", "REST", changes=1000, calls=7000, failed=1, seconds=14.04)
    second.write("page", tmp_path)
    page = (tmp_path / "page.md").read_text()

    assert [row["changes"] for row in json.loads((tmp_path / "page.json").read_text())] == [1, 1000]
    assert "| keys | REST | 1,000 | 7,000 | 1 | 499/s |" in page
    assert "| bundles | REST | 1 | 3 | 0 | 0/s |" in page
