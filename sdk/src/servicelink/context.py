"""What an incoming call tells those who serve it, and the outgoing calls made on its behalf."""

import re
import uuid
from contextvars import ContextVar

from servicelink.verify import Allowed

REQUEST_ID_HEADER = "x-request-id"
# Longer ones, or with other characters, would end in log lines and headers of others.
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}", re.ASCII)

link: ContextVar[Allowed | None] = ContextVar("servicelink_link", default=None)
request_id: ContextVar[str | None] = ContextVar("servicelink_request_id", default=None)


def current_link() -> Allowed | None:
    """Answer who calls, inside of a call that `LinkMiddleware` let through as verified; None everywhere else."""
    return link.get()


def wants_request_id(text: str | None) -> str | None:
    """Answer a request ID as it came, None for one that is absent or not 1 to 128 of letters, digits, `_`, `.`, `-`."""
    return text if text is not None and _REQUEST_ID.fullmatch(text) else None


def outgoing_request_id() -> str:
    """Answer the ID of the incoming call that is being served, or a new one (32 hexadecimal digits)."""
    return request_id.get() or uuid.uuid4().hex
