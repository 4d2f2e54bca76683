"""What a caller is told of a refusal, and what the server's log says of it."""

import json
import logging
import math

from servicelink.verify import Code, Refused

_STATUS = {Code.INVALID_SERVICE_AUTH: 403, Code.PERMISSION_DENIED: 403, Code.RATE_LIMITED: 429}
MESSAGES = {
    Code.INVALID_SERVICE_AUTH: "no valid service credential came with this call",
    Code.PERMISSION_DENIED: "this link is not allowed to make this call",
    Code.RATE_LIMITED: "this link calls too often",
}
_log = logging.getLogger("servicelink")


def log_refusal(refused: Refused) -> None:
    """Tell the server's log why a call was refused."""
    _log.info("refused a call of %s: %s", refused.link or "nobody known", refused.reason)


def render_refusal(refused: Refused) -> tuple[int, list[tuple[str, str]], bytes]:
    """Answer status, headers and body of the answer."""
    body = json.dumps({"error": {"code": refused.code, "message": MESSAGES[refused.code]}}).encode()
    headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
    if refused.retry_after > 0:
        headers.append(("retry-after", str(math.ceil(refused.retry_after))))
    return _STATUS[refused.code], headers, body
