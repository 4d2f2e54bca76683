"""What the operator says about itself: log lines, the audit trail of credentials, metrics.

Every line is an event with a constant name and fields, so that lines can be counted and searched; libraries' lines go
through the same renderer. No key should ever come near a log line; should one do so by mistake, the last step, which
sees the finished line, leaves only its kid.
"""

import logging
import os
import re
import sys
from collections.abc import Callable, MutableMapping
from functools import partial
from typing import Any, TextIO

import orjson
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from structlog.typing import Processor

REGISTRY = CollectorRegistry()
API_REQUESTS = Counter(
    "servicelink_api_requests_total",
    "Requests to the API server; code 0 is no answer.",
    ("verb", "kind", "code"),
    registry=REGISTRY,
)
API_SECONDS = Histogram(
    "servicelink_api_request_seconds",
    "How long the API server took until it began to answer.",
    registry=REGISTRY,
)
RECONCILES = Counter(
    "servicelink_reconcile_total",
    "Keys that were reconciled, by the kind of key and how it went.",
    ("key", "outcome"),
    registry=REGISTRY,
)
RECONCILE_SECONDS = Histogram(
    "servicelink_reconcile_seconds", "How long reconciling a key took.", ("key",), registry=REGISTRY
)
QUEUE_DEPTH = Gauge("servicelink_queue_depth", "Keys that wait to be reconciled.", registry=REGISTRY)
LINKS = Gauge("servicelink_links", "Links by the status of their condition Ready.", ("ready",), registry=REGISTRY)
HELD = Gauge(
    "servicelink_held_entries",
    "Entries of verifiers that stay although their links vanished, since too many did at once.",
    registry=REGISTRY,
)
LEADER = Gauge("servicelink_leader", "1 while this process holds the Lease.", registry=REGISTRY)
INFORMER_SYNCED = Gauge(
    "servicelink_informer_synced", "1 once the cache of a kind holds all of it.", ("kind",), registry=REGISTRY
)

# An API key, also one that was cut off, and one as a Secret's data has it (base64 of `slk_…`).
_KEY = re.compile(r"slk_([A-Za-z0-9]{8})_[A-Za-z0-9_-]+")
_ENCODED_KEY = re.compile(r"c2xrX[A-Za-z0-9+/_-]{3,}=*")


def count_request(verb: str, kind: str, code: int, seconds: float) -> None:
    """Count one request to the API server; code 0: no answer came."""
    API_REQUESTS.labels(verb, kind, str(code)).inc()
    API_SECONDS.observe(seconds)


def watch_links(count: Callable[[str], int]) -> None:
    """Have links counted whenever metrics are asked for; `count` answers for a status of the condition Ready."""
    for status in ("True", "False", "Unknown"):
        LINKS.labels(status).set_function(partial(count, status))


def watch_held(count: Callable[[], int]) -> None:
    """Have held entries counted whenever metrics are asked for."""
    HELD.set_function(count)


def audit(event: str, *, link: str, kid: str, reason: str) -> None:
    """Write down a step in a credential's life: `link` as namespace/name, `reason` why it was taken."""
    structlog.get_logger("servicelink.audit").info(event, link=link, kid=kid, reason=reason)


def redact(text: str) -> str:
    """Replace whatever looks like an API key by `slk_<kid>_…`."""
    return _ENCODED_KEY.sub("c2xrX…", _KEY.sub(r"slk_\1_…", text))


def configure_logging(log_format: str, level: str, stream: TextIO | None = None) -> None:
    """Send every log line of this process to `stream` (standard error).

    `log_format` is json, text or auto (text on a terminal); `level` debug, info, warning or error.
    """
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    as_text = log_format == "text" or (log_format == "auto" and stream.isatty())
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *(_text_renderer(stream) if as_text else _json_renderer()),
            _redact_line,
        ],
    )
    _route(formatter, stream, level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def _route(formatter: logging.Formatter, stream: TextIO, level: str) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    logging.captureWarnings(capture=True)


def _json_renderer() -> tuple[Processor, ...]:
    # Tracebacks without local variables, which may be keys.
    return structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_dump)


def _text_renderer(stream: TextIO) -> tuple[Processor, ...]:
    colors = stream.isatty() and not os.environ.get("NO_COLOR")
    return (
        structlog.dev.ConsoleRenderer(
            colors=colors, timestamp_key="time", exception_formatter=structlog.dev.plain_traceback
        ),
    )


def _dump(fields: MutableMapping[str, Any], **options: Any) -> str:
    return orjson.dumps(fields, option=orjson.OPT_NON_STR_KEYS, **options).decode()


def _redact_line(logger: Any, method: str, line: Any) -> str:
    return redact(str(line))
