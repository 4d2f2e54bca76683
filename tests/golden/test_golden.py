"""Each case is a folder named by a sentence: what is in the cluster in `in.yaml`, what the core answers in `out.yaml`.

`pytest tests/golden --rewrite` writes the answers anew; the reviewer reads the difference.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml
from yamls import parse_yaml

from servicelink_core.api.reasons import REASONS, ConditionType, Reason
from stage import Stage

CASES = sorted((Path(__file__).parent / "cases").iterdir())
# Named now, so that no release renames them; set by steps to come: rotation, probing, registry, mTLS.
LATER = {
    *(Reason.AUTHORITY_NOT_READY, Reason.ROTATING, Reason.ROLLED_BACK, Reason.UP_TO_DATE),
    *(Reason.ENFORCED, Reason.NO_ENFORCER, Reason.ENFORCER_ERROR, Reason.ROTATION_OVERDUE, Reason.ROTATION_FAILED),
    *(Reason.SERVING, Reason.NO_TRAFFIC, Reason.DNS_FAILED, Reason.CONNECT_REFUSED, Reason.TIMEOUT),
    *(Reason.TLS_UNTRUSTED, Reason.CREDENTIAL_REJECTED, Reason.NOT_AUTHORIZED, Reason.SERVER_ERROR),
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_core_answers_as_written_down(case: Path, request: pytest.FixtureRequest) -> None:
    answer = Stage((case / "in.yaml").read_text()).answer()

    written = case / "out.yaml"
    if request.config.getoption("--rewrite"):
        written.write_text(yaml.safe_dump(answer, sort_keys=True, width=120))
    assert parse_yaml(written.read_text()) == answer


def conditions() -> set[tuple[str, str]]:
    found = set()
    for case in CASES:
        answer = parse_yaml((case / "out.yaml").read_text())
        for status in (*(link["status"] for link in answer["links"].values()), *answer["policies"].values()):
            found |= {(one["type"], one["reason"]) for one in status["conditions"]}
    return found


def test_every_reason_is_given_in_every_condition_that_can_have_it() -> None:
    expected = {
        (str(kind), str(reason))
        for reason, meaning in REASONS.items()
        if reason not in LATER
        for kind in meaning.conditions
    }

    assert expected - conditions() == set()


def test_every_condition_is_told() -> None:
    assert {kind for kind, _ in conditions()} == {str(kind) for kind in ConditionType}


def test_every_kstatus_is_met() -> None:
    answers = [parse_yaml((case / "out.yaml").read_text()) for case in CASES]
    met = {link["kstatus"] for answer in answers for link in answer["links"].values()}

    assert met == {"Current", "InProgress", "Failed"}


def told(case: str) -> dict[str, Any]:
    answer = parse_yaml((CASES[0].parent / case / "out.yaml").read_text())
    links: dict[str, Any] = answer["links"]
    return links


def test_a_closed_service_and_one_that_does_not_exist_look_the_same() -> None:
    closed = told("a Service of another namespace is closed without a policy")

    assert closed == told("a Service of another namespace that does not exist is as closed")
    assert closed["shop/checkout-to-payments"]["status"].keys() == {
        *("observedGeneration", "client", "server", "conditions"),
    }


def test_what_is_ready_is_not_written_again() -> None:
    name = "a link that is ready stays as it is when everything is looked at again"
    objects = parse_yaml((CASES[0].parent / name / "in.yaml").read_text())["objects"]

    (stored,) = [one["status"] for one in objects if one["kind"] == "ServiceLink"]

    assert told(name)["shop/checkout-to-notification"]["status"] == stored
