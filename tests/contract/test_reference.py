"""Reasons are whole, and their page says what the code says."""

import re
from pathlib import Path

from servicelink_core.api.reasons import MEANINGS, REASONS, ConditionType, Reason, render_reference

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


def test_the_page_is_what_the_code_says() -> None:
    """`make reference` writes it."""
    assert (ROOT / "docs" / "reference" / "reasons.md").read_text() == render_reference()
