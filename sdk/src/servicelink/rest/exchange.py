"""One REST call: where it goes, what it says, and what its answer means. Free of I/O.

Encoded URLs stay as they are. A URL of another origin than the link's is an error, since the credential is the link's.
"""

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import httpx

from servicelink.binding import LAST_PORT, Binding, refuse_address
from servicelink.calls.call import Call, Metadata, Outcome, Result
from servicelink.calls.failures import remote_error, wants_failure, where
from servicelink.calls.options import CallOptions
from servicelink.calls.retry import parse_retry_after
from servicelink.context import CORRELATION_ID_HEADER, REQUEST_ID_HEADER, Incoming, fresh_id, incoming
from servicelink.errors import LinkNotFound, ServiceError
from servicelink.rest.fields import DEFAULTS, OF_BODY, TOKEN, Headers, frame, require_field, with_defaults
from servicelink.rest.values import find_unsendable, tell_unsendable
from servicelink.verify import Code
from servicelink_contract.rules import Protocol

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_PORTS = {"http": 80, "https": 443}
_FORBIDDEN = 403
FIRST_ERROR = 400
# Bytes. An error's body is read for its code also where the answer is a stream; a longer one is the caller's to read.
ERROR_BODY = 65536
_FIRST_SERVER_ERROR = 500
_NEVER = 501
_RESULTS = {
    429: Result.THROTTLED,
    502: Result.AWAY,
    503: Result.AWAY,
    504: Result.AWAY,
}
# What of an answer's code an error may repeat, whose text goes into logs.
_CODE = re.compile(r"[_.0-9A-Za-z-]{1,64}", re.ASCII)
_REFUSALS = {Code.INVALID_SERVICE_AUTH.value: Result.REFUSED, Code.PERMISSION_DENIED.value: Result.DENIED}


class RestExchange:
    """A call as its caller asks for it; `content` is what httpx.Request takes: params, content, data, files, json."""

    __slots__ = ("_content", "_headers", "_raises", "_streamed", "_url", "method", "options")

    def __init__(
        self,
        method: str,
        url: str | httpx.URL,
        options: CallOptions,
        *,
        headers: Headers | None = None,
        content: Mapping[str, Any],
        raise_for_status: bool = False,
        streamed: bool = False,
    ) -> None:
        self.method = method.upper()
        self.options = options
        self._url = url
        self._headers = headers
        self._content = content
        self._raises = raise_for_status
        self._streamed = streamed

    @property
    def is_replayable(self) -> bool:
        """Whether the body can be sent again: an iterator is used up."""
        content = self._content.get("content")
        if content is not None and not isinstance(content, str | bytes):
            return False
        return all(_is_rewindable(file) for file in _files(self._content.get("files")))

    def open(self, binding: Binding, deadline: float, timeout: float) -> Call:
        """Address the call; raises ServiceError for a URL that leads elsewhere and for what cannot be sent."""
        came = incoming.get()
        call = Call(
            protocol=Protocol.REST,
            link=binding.link,
            server=binding.server,
            operation="",
            message=None,
            metadata={},
            request_id=came.request_id or fresh_id(),
            correlation_id="",
            deadline=deadline,
            timeout=timeout,
            idempotent=self.method in IDEMPOTENT if self.options.idempotent is None else self.options.idempotent,
            streamed=self._streamed,
            kid=binding.kid,
            origin=binding.origin,
        )
        if not TOKEN.fullmatch(self.method):
            problem = f"{self.method!r} is no name that a method can have (RFC 9110)"
            raise ServiceError(problem, **where(call, "Pass a method such as GET"))
        call.operation = self.method
        given: httpx.Headers | dict[str, str] = (
            DEFAULTS if self._headers is None else with_defaults(self._headers, call)
        )
        call.request_id = given.get(REQUEST_ID_HEADER) or call.request_id
        call.correlation_id = given.get(CORRELATION_ID_HEADER) or came.correlation_id or call.request_id
        call.metadata = _metadata(call, came, given)
        target = _join(binding, self._url, call)
        # Encoded: a decoded path may hold line breaks, with which whoever names it would write log lines of his own.
        call.operation = f"{self.method} {target.raw_path.partition(b'?')[0].decode('ascii')}"
        try:
            request = self._build(target, given)
        except (TypeError, ValueError, RecursionError, httpx.InvalidURL):
            unsendable = find_unsendable(self._content)
            if unsendable is None:
                raise
            raise ServiceError(unsendable[0], **where(call, unsendable[1])) from None
        if given is not DEFAULTS:
            frame(request, call)
        # Ours alone: an application that sets it would send one credential and report another.
        if binding.credential is not None:
            request.headers.pop(binding.credential.header, None)
        call.message = request
        return call

    def _build(self, target: httpx.URL, headers: httpx.Headers | dict[str, str]) -> httpx.Request:
        return httpx.Request(self.method, target, headers=headers, **self._content)

    def complete(self, outcome: Outcome) -> Outcome:
        """Answer the outcome as it is."""
        return outcome

    def conclude(self, call: Call, outcome: Outcome) -> httpx.Response:
        """Answer the response, or raise a ServiceError."""
        failure = wants_failure(call, outcome)
        if failure is not None:
            raise failure
        response: httpx.Response = outcome.response
        if self._raises and response.status_code >= FIRST_ERROR:
            raise remote_error(call, response.status_code, outcome.code, text_of(response))
        return response


def require_sendable(binding: Binding, call: Call) -> None:
    """Raise ServiceError unless a request can be sent, and to the link's own origin, whatever interceptors made of it.

    An engine that refuses to send it would seem to be a server that fails.
    """
    address = _address(binding.uri)
    if address is None or _origin(call.message.url) != address.origin:
        raise _elsewhere(call)
    for raw, value in call.message.headers.raw:
        require_field(raw.decode("latin-1"), value, call)
    for name, said in call.metadata.items():
        require_field(name, said, call)
        if name.lower() in OF_BODY:
            raise ServiceError(
                f"the header {name!r} follows from the body", **where(call, "Leave it out of call.metadata")
            )


def _elsewhere(call: Call) -> ServiceError:
    return ServiceError(
        "the URL leads elsewhere, where this link's credential must not go",
        **where(call, "Pass a path, or call other hosts with a client of their own"),
    )


def settle(response: httpx.Response, wall: float, seconds: float) -> Outcome:
    """Answer what a response means that took `seconds`; `wall` is the time in seconds since 1970."""
    response.elapsed = dt.timedelta(seconds=seconds)
    status = response.status_code
    if status < FIRST_ERROR:
        return Outcome(Result.ANSWERED, status, None, response.headers, response)
    code = _code(response)
    result = _RESULTS.get(status, Result.BROKEN if speaks_of_need(status) else Result.ANSWERED)
    if status == _FORBIDDEN and code is not None:
        result = _REFUSALS.get(code, result)
    after = parse_retry_after(response.headers.get("retry-after"), wall)
    return Outcome(result, status, code, response.headers, response, retry_after=after)


def speaks_of_need(status: int) -> bool:
    """Say whether a status tells that the server is in need: 5xx, but for 501, by which it says that it never will."""
    return status >= _FIRST_SERVER_ERROR and status != _NEVER


def _metadata(call: Call, came: Incoming, given: Mapping[str, str]) -> Metadata:
    """Answer the IDs of a call, and what goes along of the incoming one."""
    metadata: Metadata = {REQUEST_ID_HEADER: call.request_id, CORRELATION_ID_HEADER: call.correlation_id}
    if came.traceparent is not None and "traceparent" not in given:
        metadata["traceparent"] = came.traceparent
        if came.tracestate is not None:
            metadata["tracestate"] = came.tracestate
    return metadata


@dataclass(frozen=True, slots=True)
class _Address:
    """A link's address without its final slash, its origin, and what its path leads through."""

    prefix: str
    origin: tuple[str, str, int | None]
    steps: tuple[str, ...]


@lru_cache(maxsize=256)
def _address(uri: str) -> _Address | None:
    """Answer a link's address, None for what is no http or https URL of a host that can be."""
    try:
        url = httpx.URL(uri)
    except httpx.InvalidURL:
        return None
    if url.scheme not in _PORTS or not url.host or url.userinfo or url.query or url.fragment:
        return None
    # A higher one would be taken modulo 65536, and the credential go to whoever listens there.
    if (url.port or 0) > LAST_PORT or not _is_resolvable(url.raw_host.decode("ascii")):
        return None
    return _Address(str(url).rstrip("/"), _origin(url), _steps(url))


def _is_resolvable(host: str) -> bool:
    """Say whether a host can be looked up: the resolver raises for labels that are empty or longer than 63 letters."""
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    """Answer the origin (RFC 6454, section 4)."""
    return url.scheme, url.host, url.port or _PORTS.get(url.scheme)


def _join(binding: Binding, url: str | httpx.URL, call: Call) -> httpx.URL:
    """Answer the URL below the link's address; raises ServiceError for one of another origin."""
    address = _address(binding.uri)
    if address is None:
        raise no_address(binding)
    target = _parse(url, address, call)
    if _origin(target) != address.origin or target.userinfo:
        raise _elsewhere(call)
    return target


def no_address(binding: Binding) -> LinkNotFound:
    """Answer the error of a link whose address leads nowhere."""
    if "@" in binding.uri:
        step = "Leave user and password out: the link has a credential of its own"
    elif "?" in binding.uri or "#" in binding.uri:
        step = "Leave its query out"
    elif "://" not in binding.uri:
        step = "Begin it with http:// or https://"
    else:
        step = "Write it as in http://localhost:8080"
    return refuse_address(binding, "http or https URL of a host", step)


def _parse(url: str | httpx.URL, address: _Address, call: Call) -> httpx.URL:
    try:
        if isinstance(url, str) and url.startswith("/") and not url.startswith("//"):
            return _below(address, url, call)
        given = httpx.URL(url)
        # Not `is_relative_url`, for which `//host/path` is relative as well.
        if given.scheme or given.host:
            return given
        return _below(address, f"/{str(given).removeprefix('/')}", call)
    except UnicodeError as error:
        reason, step = tell_unsendable(error)
        raise ServiceError(f"the URL cannot be sent: {reason}", **where(call, step)) from None
    except httpx.InvalidURL as error:
        raise ServiceError(f"the URL is malformed: {error}", **where(call, "Pass a path")) from None


def _below(address: _Address, path: str, call: Call) -> httpx.URL:
    """Answer the URL of a path; raises ServiceError for one that leaves the link's address.

    Such as an ID `../admin` that somebody else chose and the application put into a path: the server, or what stands
    before it, would take it for a path beside the link's. An address without a path is left by none.
    """
    target = httpx.URL(address.prefix + path)
    if address.steps and _steps(target)[: len(address.steps)] != address.steps:
        raise ServiceError(
            "the path leaves the link's address", **where(call, "Leave `..` out of what is put into a path")
        )
    return target


def _steps(url: httpx.URL) -> tuple[str, ...]:
    """Answer what a path leads through, as the server reads it that takes most for `..`: decoded, without `;`, `//`."""
    steps: list[str] = []
    for part in unquote(url.raw_path.partition(b"?")[0].decode("ascii")).replace("\\", "/").split("/"):
        step = part.partition(";")[0]
        if step == "..":
            del steps[-1:]
        elif step not in {"", "."}:
            steps.append(part)
    return tuple(steps)


def _files(files: Any) -> Iterable[Any]:
    """Answer the file objects of httpx's `files`: names with a file, or with a tuple of which it is the second."""
    if not files:
        return ()
    values = files.values() if isinstance(files, Mapping) else (value for _, value in files)
    return (value[1] if isinstance(value, tuple) else value for value in values)


def _is_rewindable(file: Any) -> bool:
    if isinstance(file, str | bytes):
        return True
    seekable = getattr(file, "seekable", None)
    return bool(seekable is not None and seekable())


def _code(response: httpx.Response) -> str | None:
    if not response.is_closed or "json" not in response.headers.get("content-type", ""):
        return None
    try:
        return code_of(response.json()["error"]["code"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def code_of(said: Any) -> str | None:
    """Answer the code that an application gives its error, None for what is none."""
    return said if isinstance(said, str) and _CODE.fullmatch(said) else None


def text_of(response: httpx.Response) -> str:
    """Answer a body as text, whatever charset it claims; "" for one that its caller reads."""
    if not response.is_closed:
        return ""
    try:
        return response.text
    except Exception:  # noqa: BLE001 - Python has codecs for what is no text (`hex`), which raise what they like
        return response.content.decode(errors="replace")
