"""What the API server, or the way to it, says no with; typed by what the caller should do next.

    ApiError
    ├─ NotFoundError          404, said by a Status   the object is not there: create it, or be done
    ├─ AlreadyExistsError     409 AlreadyExists       somebody was first: observe again
    ├─ ConflictError          409                     it changed meanwhile: observe again
    ├─ ForbiddenError         401, 403                a right is missing, or a policy refuses: tell, retry seldom
    ├─ InvalidError           400, 422, other 4xx     the same request will never pass: tell, wait for a change
    ├─ GoneError              410                     the version is too old: list again
    ├─ BusyError              408, 429, 5xx, 0        nothing is wrong with the request: retry, not before `retry_after`
    │  └─ NotServedError      404, not by a Status    the kind is not served (its CRD is gone): retry, revoke nothing
    ├─ FrozenError            0                       writes are switched off: do nothing
    └─ FencedError            0                       the Lease may be another's by now: do nothing, until it is renewed

Status 0 means that no answer came. A 404 about a kind and one about an object are told apart because the first must
never be read as "deleted". A message about a Secret is reduced to reason and refusing policy, since the API server and
admission webhooks may quote values.
"""

import re
from typing import Any

import orjson

_POLICY = re.compile(r"ValidatingAdmissionPolicy '([a-z0-9.-]{1,253})'")
_LONGEST = 1000
_SERVER_ERRORS = 500


class ApiError(Exception):
    """A request failed: HTTP status, the Status' reason, message and causes, seconds to wait (None: not said).

    `policy` names the ValidatingAdmissionPolicy that refused, None where none did.
    """

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        self.causes: tuple[str, ...] = ()
        self.policy: str | None = None


class NotFoundError(ApiError):
    """The object, or the namespace it should go into, does not exist."""


class AlreadyExistsError(ApiError):
    """An object of that name exists."""


class ConflictError(ApiError):
    """The object is not the one, or not in the version, that the request was made for."""


class ForbiddenError(ApiError):
    """Whoever we are may not do this; `policy` says if it was an admission policy rather than RBAC."""


class InvalidError(ApiError):
    """The request is refused for what it says."""


class GoneError(ApiError):
    """A list's continuation or a watch's resourceVersion is no longer known."""


class BusyError(ApiError):
    """The API server cannot answer now, or could not be reached."""


class NotServedError(BusyError):
    """The API server does not know the kind, or it was not the API server that answered."""


class FrozenError(ApiError):
    """The freeze switch refused a write before anything was sent."""

    def __init__(self, message: str) -> None:
        super().__init__(0, "Frozen", message)


class FencedError(ApiError):
    """The fence refused a write before anything was sent: another process may lead by now."""

    def __init__(self, message: str) -> None:
        super().__init__(0, "Fenced", message)


_BY_STATUS: dict[int, type[ApiError]] = {
    0: BusyError,
    401: ForbiddenError,
    403: ForbiddenError,
    404: NotFoundError,
    408: BusyError,
    409: ConflictError,
    410: GoneError,
    429: BusyError,
}


def parse_error(
    status: int, body: bytes, retry_after: float | None = None, *, kept_back: str | None = None
) -> ApiError:
    """Parse an answer that is no success.

    `kept_back` says what the request was ("patch secrets") where it was about a Secret: the message then says that and
    nothing from the answer but the policy that refused.

    The body should be a `v1.Status` (https://kubernetes.io/docs/reference/using-api/api-concepts/#error-responses);
    whatever else it is, an ApiError comes out.
    """
    found = _parse_status(body)
    details = _table(found.get("details"))
    message = str(found.get("message") or body[:200].decode(errors="replace"))
    reason = str(found.get("reason") or "")
    policy = _POLICY.search(message)
    if kept_back is None and details.get("kind") in ("Secret", "secrets"):
        kept_back = "secrets"
    if kept_back is not None:
        message = f"{kept_back}: " + (f"refused by {policy[0]}" if policy else "details are kept back")
    error = _class_of(status, reason, is_status=bool(found))(status, reason or "Unknown", message[:_LONGEST])
    error.retry_after = retry_after if retry_after is not None else _seconds(details.get("retryAfterSeconds"))
    error.causes = tuple(str(_table(cause).get("reason", "")) for cause in details.get("causes") or ())
    error.policy = policy[1] if policy else None
    return error


def parse_retry_after(header: str) -> float | None:
    """Parse a Retry-After header in seconds, as the API server sends it; None for whatever else."""
    return float(header) if re.fullmatch(r"[0-9]{1,6}", header) else None


def _class_of(status: int, reason: str, *, is_status: bool) -> type[ApiError]:
    if reason == "AlreadyExists":
        return AlreadyExistsError
    if status == 404 and not is_status:  # noqa: PLR2004 (as in the table above)
        return NotServedError
    return _BY_STATUS.get(status, BusyError if status >= _SERVER_ERRORS else InvalidError)


def _parse_status(body: bytes) -> dict[str, Any]:
    try:
        found = _table(orjson.loads(body))
    except orjson.JSONDecodeError:
        return {}
    return found if found.get("kind") == "Status" else {}


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and value > 0 else None
