"""Log lines are events with fields, in one form for everybody's, and never hold a key."""

import base64
import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from servicelink_contract.key import render_key
from servicelink_operator import telemetry

KEY = render_key("k7Q2M4ZB", bytes(range(200, 232))).text


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave logging as it was found."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_with_event_fields_level_and_time() -> None:
    stream = io.StringIO()
    telemetry.configure_logging("auto", "info", stream)

    structlog.get_logger("servicelink.test").warning("thing_happened", link="shop/a", count=3)
    structlog.get_logger("servicelink.test").debug("not_shown")

    (line,) = lines(stream)
    assert line.pop("time").endswith("Z")
    assert line == {
        "event": "thing_happened",
        "link": "shop/a",
        "count": 3,
        "logger": "servicelink.test",
        "level": "warning",
    }


def test_a_terminal_gets_text() -> None:
    stream = Terminal()
    telemetry.configure_logging("auto", "info", stream)

    structlog.get_logger("servicelink.test").info("thing_happened", link="shop/a")

    assert "thing_happened" in stream.getvalue()
    with pytest.raises(json.JSONDecodeError):
        lines(stream)


def test_text_asked_for_has_no_colours_in_a_file() -> None:
    stream = io.StringIO()
    telemetry.configure_logging("text", "info", stream)

    structlog.get_logger("servicelink.test").info("thing_happened", link="shop/a")

    assert "link=shop/a" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_libraries_lines_and_warnings_come_in_the_same_form() -> None:
    stream = io.StringIO()
    telemetry.configure_logging("json", "info", stream)

    logging.getLogger("kopf.activities").info("Activity %r succeeded.", "login")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old habit", stacklevel=1)

    first, second = lines(stream)
    assert (first["logger"], first["event"]) == ("kopf.activities", "Activity 'login' succeeded.")
    assert (second["logger"], second["level"]) == ("py.warnings", "warning")


def test_the_audit_trail_has_a_logger_of_its_own() -> None:
    stream = io.StringIO()
    telemetry.configure_logging("json", "info", stream)

    telemetry.audit("credential_published", link="shop/a", kid="k7Q2M4ZB", reason="Interval")

    (line,) = lines(stream)
    fields = {name: line[name] for name in ("logger", "event", "link", "kid", "reason")}
    assert fields == {
        "logger": "servicelink.audit",
        "event": "credential_published",
        "link": "shop/a",
        "kid": "k7Q2M4ZB",
        "reason": "Interval",
    }


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_key_is_redacted_wherever_it_stands(form: str) -> None:
    stream = io.StringIO()
    telemetry.configure_logging(form, "info", stream)
    log = structlog.get_logger("servicelink.test")
    encoded = base64.b64encode(KEY.encode()).decode()

    log.info("as_field", key=KEY, nested={"data": {"api-key": encoded}})
    log.info(f"as event {KEY}")  # noqa: G004 (the mistake that is made up for)
    logging.getLogger("kopf").info("as argument %s", KEY)
    log.info("cut_off", key=KEY[:30])
    try:
        int(KEY)
    except ValueError:
        log.exception("as_exception")

    said = stream.getvalue()
    assert KEY[13:30] not in said
    assert encoded[:20] not in said
    assert said.count("slk_k7Q2M4ZB_…") >= 4
    assert "ValueError" in said


def test_a_traceback_shows_no_variables() -> None:
    # Not a literal, which the traceback's own source lines would show.
    words = ("hidden", "value")
    for form in ("json", "text"):
        stream = io.StringIO()
        telemetry.configure_logging(form, "info", stream)
        try:
            _fail("-".join(words))
        except ValueError:
            structlog.get_logger("servicelink.test").exception("failed")
        assert "ValueError" in stream.getvalue()
        assert "hidden-value" not in stream.getvalue()


def _fail(secret: str) -> None:
    raise ValueError(str(len(secret)))


def test_the_metrics_have_the_documented_names() -> None:
    telemetry.count_request("get", "Service", 200, 0.01)
    names = {sample.name for metric in telemetry.REGISTRY.collect() for sample in metric.samples}
    described = {metric.name for metric in telemetry.REGISTRY.collect()}

    assert {"servicelink_api_requests_total", "servicelink_api_request_seconds_count", "servicelink_leader"} <= names
    assert {
        "servicelink_reconcile",
        "servicelink_reconcile_seconds",
        "servicelink_queue_depth",
        "servicelink_links",
        "servicelink_informer_synced",
    } <= described
