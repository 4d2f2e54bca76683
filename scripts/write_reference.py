"""Write the reference pages that are generated from code."""

from pathlib import Path

from servicelink_core.api.reasons import render_reference

ROOT = Path(__file__).parents[1]

(ROOT / "docs" / "reference" / "reasons.md").write_text(render_reference())
