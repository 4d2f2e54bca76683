"""What an incoming call tells those who serve it, and the outgoing calls made on its behalf.

One context variable holds it, so it follows threads and tasks as Python's contexts do. What came from outside is
bounded before it is kept: it ends in log lines and headers of others.
"""

import math
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from servicelink.verify import Allowed

REQUEST_ID_HEADER = "x-request-id"
CORRELATION_ID_HEADER = "x-correlation-id"
TIMEOUT_HEADER = "x-request-timeout-ms"
CARRIED = frozenset({REQUEST_ID_HEADER, CORRELATION_ID_HEADER, TIMEOUT_HEADER, "traceparent", "tracestate"})
_ID = re.compile(r"[\w.-]{1,128}", re.ASCII)
_MILLISECONDS = re.compile(r"[0-9]{1,10}", re.ASCII)
# W3C Trace Context, sections 3.2 and 3.3; a version ff is invalid, so are trace and parent of zeros only.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[\x21-\x7e]{1,64})?"
)
_TRACESTATE = re.compile(r"(?! )[\x20-\x7e]{1,512}(?<! )")


@dataclass(frozen=True, slots=True)
class Incoming:
    """What is carried on: IDs and trace as they came (None: absent, or not well-formed), and the time that is left.

    `deadline` is in seconds of the monotonic clock, infinite where the caller said nothing.
    """

    link: "Allowed | None" = None
    request_id: str | None = None
    correlation_id: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    deadline: float = math.inf


class _Unread(Incoming):
    """The same, read from its headers when somebody asks first: most calls that are served make none themselves."""

    __slots__ = ("_came_at", "_carried", "_left")

    def __getattr__(self, name: str) -> Any:
        if name not in _FIELDS:
            raise AttributeError(name)
        headers = {_text(name).lower(): _text(value) for name, value in self._carried}
        found = read_incoming(headers, self._came_at)
        if self.link is None:
            # A limit of nobody's: whoever is not known must not cut short the calls that this process makes.
            found = replace(found, deadline=math.inf)
        elif self._left is not None:
            found = replace(found, deadline=self._came_at + self._left)
        for field in _FIELDS:
            object.__setattr__(self, field, getattr(found, field))
        return getattr(self, name)


_FIELDS = tuple(field.name for field in fields(Incoming) if field.name != "link")
_SET_LINK, _SET_CARRIED, _SET_CAME_AT, _SET_LEFT = (
    getattr(_Unread, name).__set__ for name in ("link", "_carried", "_came_at", "_left")
)
_SET_DEADLINE = getattr(Incoming, "deadline").__set__  # noqa: B009 - of the slot, not of a number

NOTHING = Incoming()
incoming: ContextVar[Incoming] = ContextVar("servicelink_incoming", default=NOTHING)


def current_link() -> "Allowed | None":
    """Answer who calls, inside of a call that a middleware let through as verified; None everywhere else."""
    return incoming.get().link


def current_correlation_id() -> str | None:
    """Answer the correlation ID of the call that is being served, for log lines; None where none came."""
    return incoming.get().correlation_id


def current_request_id() -> str | None:
    """Answer the request ID of the call that is being served, for log lines; None where none came."""
    return incoming.get().request_id


@contextmanager
def carry(headers: Mapping[str, str]) -> Iterator[None]:
    """Have the calls made inside carry on what these headers of an incoming message say: IDs, trace, time left.

    For what no middleware serves: a consumer of a queue, a job. Names in any case. Leave out `x-request-timeout-ms` of
    callers whose time limits are not to be kept.
    """
    found = read_incoming({name.lower(): value for name, value in headers.items()}, time.monotonic())
    token = incoming.set(replace(found, link=incoming.get().link))
    try:
        yield
    finally:
        incoming.reset(token)


def _text(raw: str | bytes) -> str:
    return raw if isinstance(raw, str) else raw.decode("latin-1")


def defer_incoming(
    link: "Allowed | None",
    carried: Iterable[tuple[str | bytes, str | bytes]],
    seconds_left: float | None = None,
) -> Incoming:
    """Answer what a call carries on that came now; its headers are read once somebody asks.

    `link` is who calls; a call of nobody verified carries on no time limit. `seconds_left` says how much time it has,
    where its protocol says that by other means than a header.
    """
    found = _Unread.__new__(_Unread)
    # By their slots, since the class is frozen.
    _SET_LINK(found, link)
    _SET_CARRIED(found, carried)
    _SET_LEFT(found, seconds_left)
    _SET_CAME_AT(found, time.monotonic())
    return found


def end_deadline(came: Incoming) -> None:
    """Take the time limit off what `defer_incoming` answered: whatever still runs for that call outlives its answer."""
    # Both: its headers may be read by now, or later.
    _SET_LEFT(came, math.inf)
    _SET_DEADLINE(came, math.inf)


def read_incoming(headers: Mapping[str, str], now: float) -> Incoming:
    """Read what is carried on from headers (names in lower case); what is not well-formed counts as absent."""
    traceparent = _fitting(_TRACEPARENT, headers.get("traceparent"))
    left = _fitting(_MILLISECONDS, headers.get(TIMEOUT_HEADER))
    request_id = _fitting(_ID, headers.get(REQUEST_ID_HEADER))
    return Incoming(
        request_id=request_id,
        correlation_id=_fitting(_ID, headers.get(CORRELATION_ID_HEADER)) or request_id,
        traceparent=traceparent,
        # Without its parent it says nothing (section 3.3.1.1).
        tracestate=_fitting(_TRACESTATE, headers.get("tracestate")) if traceparent else None,
        deadline=math.inf if left is None else now + int(left) / 1000,
    )


def _fitting(form: re.Pattern[str], text: str | None) -> str | None:
    return text if text is not None and form.fullmatch(text) else None


def fresh_id() -> str:
    """Answer a new ID, 32 hexadecimal digits."""
    return uuid.uuid4().hex


def wants_id(text: str) -> str | None:
    """Answer an ID that an application gave, None where it is no 1 to 128 of letters, digits, `_`, `.`, `-`."""
    return _fitting(_ID, text)


def deadline_of_incoming() -> float:
    """Answer until when the call that is being served is worth an answer, infinite where nobody said."""
    return incoming.get().deadline
