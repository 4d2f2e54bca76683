"""What is generated is up to date, and reasons are whole."""

import re
import subprocess
import sys
from pathlib import Path

from servicelink_core.api.reasons import MEANINGS, REASONS, ConditionType, Reason

ROOT = Path(__file__).parents[2]
# metav1.Condition: the type and the reason of a condition.
REASON_FORM = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")


def test_every_condition_and_reason_has_its_sentence() -> None:
    assert set(MEANINGS) == set(ConditionType)
    assert set(REASONS) == set(Reason)
    assert all(meaning.sentence.endswith(".") for meaning in REASONS.values())
    assert all(meaning.mend.endswith(".") for meaning in REASONS.values() if meaning.mend)


def test_every_reason_has_the_form_that_kubernetes_admits() -> None:
    assert all(REASON_FORM.fullmatch(reason) and len(reason) <= 64 for reason in Reason)


def test_every_generated_file_is_as_it_would_be_written_now(tmp_path: Path) -> None:
    """`make reference` writes them."""
    subprocess.run([sys.executable, ROOT / "scripts" / "write_reference.py", tmp_path], check=True, capture_output=True)
    written = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}

    assert {path.name for path in written} >= {"reasons.md", "README.md", "install.yaml"}
    assert [path for path, text in written.items() if (ROOT / path).read_text() != text] == []
