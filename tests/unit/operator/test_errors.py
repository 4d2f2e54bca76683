"""Whatever is answered becomes an error that says what to do next, and quotes no Secret."""

import json
from typing import Any

import pytest

from servicelink_operator.cluster import errors
from servicelink_operator.cluster.errors import ApiError, parse_error, parse_retry_after


def status(reason: str = "", message: str = "said", **details: Any) -> bytes:
    return json.dumps({"kind": "Status", "reason": reason, "message": message, "details": details}).encode()


@pytest.mark.parametrize(
    ("code", "body", "expected"),
    [
        (400, status("BadRequest"), errors.InvalidError),
        (401, status("Unauthorized"), errors.ForbiddenError),
        (403, status("Forbidden"), errors.ForbiddenError),
        (404, status("NotFound"), errors.NotFoundError),
        (404, b"404 page not found\n", errors.NotServedError),
        (404, b"<html>from a proxy</html>", errors.NotServedError),
        (409, status("AlreadyExists"), errors.AlreadyExistsError),
        (409, status("Conflict"), errors.ConflictError),
        (410, status("Expired"), errors.GoneError),
        (413, status("RequestEntityTooLarge"), errors.InvalidError),
        (422, status("Invalid"), errors.InvalidError),
        (429, status("TooManyRequests"), errors.BusyError),
        (500, status("InternalError"), errors.BusyError),
        (503, b"", errors.BusyError),
        (504, b"[1, 2]", errors.BusyError),
        (302, b"", errors.InvalidError),
    ],
)
def test_each_answer_becomes_what_its_sender_should_do_next(code: int, body: bytes, expected: type[ApiError]) -> None:
    found = parse_error(code, body)

    assert type(found) is expected
    assert found.status == code


def test_how_long_to_wait_is_taken_from_the_header_before_the_body() -> None:
    body = status("TooManyRequests", retryAfterSeconds=7)

    assert parse_error(429, body, 3.0).retry_after == 3.0
    assert parse_error(429, body).retry_after == 7.0
    assert parse_error(429, status("TooManyRequests")).retry_after is None
    assert parse_retry_after("5") == 5.0
    assert [parse_retry_after(odd) for odd in ("", "nan", "-1", "Wed, 21 Oct 2026 07:28:00 GMT")] == [None] * 4


def test_causes_and_the_refusing_policy_are_told() -> None:
    said = "secrets \"a\" is forbidden: ValidatingAdmissionPolicy 'guard' with binding 'b' denied request: no"
    found = parse_error(403, status("Forbidden", said, causes=[{"reason": "NamespaceTerminating"}]))

    assert found.causes == ("NamespaceTerminating",)
    assert found.policy == "guard"


@pytest.mark.parametrize("body", [status("Invalid", 'Invalid value: "slk_x"'), b'cannot parse "slk_x"'])
def test_nothing_is_quoted_from_an_answer_about_a_secret(body: bytes) -> None:
    found = parse_error(422, body, kept_back="create secrets")

    assert "slk_" not in str(found)
    assert found.message == "create secrets: details are kept back"


def test_an_answer_that_says_it_is_about_a_secret_is_not_quoted_either() -> None:
    assert "slk_" not in str(parse_error(422, status("Invalid", 'Invalid value: "slk_x"', kind="Secret")))
