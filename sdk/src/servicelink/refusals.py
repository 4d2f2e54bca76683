"""What a caller is told of a refusal, and what the server's log says of it."""

import json
import logging
import math
from collections.abc import Iterable

from servicelink import context
from servicelink.verify import Code, Refused

_STATUS = {Code.INVALID_SERVICE_AUTH: 403, Code.PERMISSION_DENIED: 403, Code.RATE_LIMITED: 429}
MESSAGES = {
    Code.INVALID_SERVICE_AUTH: "no valid service credential came with this call",
    Code.PERMISSION_DENIED: "this link is not allowed to make this call",
    Code.RATE_LIMITED: "this link calls too often",
}
_LONGEST_OPERATION = 256
_log = logging.getLogger("servicelink")


def log_refusal(refused: Refused, operation: str, carried: Iterable[tuple[str | bytes, str | bytes]]) -> None:
    """Tell the server's log which call was refused, and why; `carried` are its headers as of `defer_incoming`.

    At info: anybody may have calls refused, as many as they like. What they chose is escaped, and bounded.
    """
    if not _log.isEnabledFor(logging.INFO):
        return
    came = context.defer_incoming(None, carried)
    shown = ascii(operation[:_LONGEST_OPERATION])
    fields = {
        "link": refused.link,
        "operation": shown[1:-1],
        "request_id": came.request_id,
        "correlation_id": came.correlation_id,
        "code": refused.code.value,
    }
    text = "refused %s of %s: %s (correlation %s, request %s)"
    words = shown, refused.link or "nobody known", refused.reason, came.correlation_id, came.request_id
    _log.info(text, *words, extra=fields)


def render_refusal(refused: Refused) -> tuple[int, list[tuple[str, str]], bytes]:
    """Answer status, headers and body of the answer."""
    body = json.dumps({"error": {"code": refused.code, "message": MESSAGES[refused.code]}}).encode()
    headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
    if refused.retry_after > 0:
        headers.append(("retry-after", str(math.ceil(refused.retry_after))))
    return _STATUS[refused.code], headers, body
