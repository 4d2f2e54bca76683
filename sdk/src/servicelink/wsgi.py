"""The WSGI middleware: the same checks for Flask, Django and whatever else PEP 3333 serves.

WSGI hands paths on decoded, and `_` and `-` in headers' names as one. Where the server tells the undecoded path as well
(gunicorn, waitress, uWSGI) that is judged, and the two must agree; elsewhere it is the path that the application sees,
encoded anew.
"""

import io
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from servicelink import context
from servicelink.calls.limits import RateLimit
from servicelink.context import Incoming
from servicelink.counts import Counts
from servicelink.door import Door
from servicelink.graphql.asked import LARGEST_BODY, HttpRequest
from servicelink.headers import Heads, Pair
from servicelink.refusals import log_refusal, render_refusal
from servicelink.verify import Allowed, Decision, Known, Refused

Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Any]
App: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

_REASONS = {403: "403 Forbidden", 429: "429 Too Many Requests"}
_HEADER = "HTTP_"
_LENGTH = re.compile("[0-9]{1,18}", re.ASCII)
# The request target as it came, by the names that servers give it.
_RAW = ("RAW_URI", "REQUEST_URI")


class LinkMiddleware:
    """Let through what the links to this server allow: `app.wsgi_app = LinkMiddleware(app.wsgi_app)`.

    Arguments as of `servicelink.LinkMiddleware`. The verified link is in `environ["servicelink"]` (`Allowed`, or None)
    and in `current_link()`. Raises LinkConfigurationError with nothing to check calls with, and MalformedPatternError.
    """

    def __init__(
        self,
        app: App,
        service: str | None = None,
        exempt: Iterable[str] = ("/healthz", "/metrics"),
        protect: Iterable[str] = ("/**",),
        *,
        rate_limit: RateLimit | None = None,
    ) -> None:
        self._app = app
        self._door = Door(service, exempt=exempt, protect=protect, rate_limit=rate_limit)

    def counts(self) -> Counts:
        """Answer how many calls were accepted, refused, and would have been, by link, kid and code."""
        return self._door.counts()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        door = self._door
        desk = door.guard.current()
        heads = desk.names.read(_headers(environ))
        _strip(environ, heads)
        reading = door.read_path(_raw_path(environ), _path(environ))
        identity: Allowed | None = None
        # What moves a request elsewhere makes an open path lead to any other.
        if reading.is_checked or heads.overrides:
            found = door.decide(desk, heads, environ["REQUEST_METHOD"], reading)
            if not isinstance(found, Decision):
                found = _judge_body(door, found, heads, environ)
            if isinstance(found.verdict, Allowed):
                identity = found.verdict
            elif found.enforced:
                log_refusal(found.verdict, f"{environ['REQUEST_METHOD']} {reading.path}", heads.carried)
                return _refuse(found.verdict, environ, start_response)
        environ["servicelink"] = identity
        return _serve(self._app, environ, start_response, context.defer_incoming(identity, heads.carried))


def _headers(environ: Environ) -> Iterator[Pair]:
    for key, value in environ.items():
        if key.startswith(_HEADER):
            yield key[len(_HEADER) :].lower().replace("_", "-").encode("latin-1"), value.encode("latin-1")


def _strip(environ: Environ, heads: Heads) -> None:
    """Take the credential out, and what only we may say.

    In place, so that what stands outside and reports errors with their request does not send it on.
    """
    kept = {_HEADER + name.decode("latin-1").upper().replace("-", "_") for name, _ in heads.kept}
    for key in [key for key in environ if key.startswith(_HEADER) and key not in kept]:
        del environ[key]


def _path(environ: Environ) -> str:
    """Answer the path as the application reads it: bytes in Latin-1 (PEP 3333, "Unicode Issues"), in truth UTF-8."""
    path: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return path.encode("latin-1").decode("utf-8", "surrogateescape")


def _raw_path(environ: Environ) -> bytes | None:
    raw = next((environ[name] for name in _RAW if environ.get(name)), None)
    return None if raw is None else raw.encode("latin-1")


def _judge_body(door: Door, known: Known, heads: Heads, environ: Environ) -> Decision:
    """Decide by what is asked in the body, and leave it there to be read once more."""
    body = _read_body(environ)
    headers = [*heads.kept, *_content_headers(environ)]
    url_query = environ.get("QUERY_STRING", "").encode("latin-1")
    return door.judge_body(known, HttpRequest(environ["REQUEST_METHOD"], url_query, headers, body))


def _content_headers(environ: Environ) -> Iterator[Pair]:
    # CGI (RFC 3875) has these under names of their own.
    if environ.get("CONTENT_TYPE"):
        yield b"content-type", environ["CONTENT_TYPE"].encode("latin-1")


def _read_body(environ: Environ) -> bytes:
    length = environ.get("CONTENT_LENGTH") or ""
    # Not by isdigit() alone, nor at any length: int() refuses some of what that takes for digits, and long numbers.
    if _LENGTH.fullmatch(length):
        left = int(length)
    elif environ.get("wsgi.input_terminated"):
        # The server knows where it ends.
        left = sys.maxsize
    else:
        return b""
    whole = environ["wsgi.input"]
    body: bytes = whole.read(min(left, LARGEST_BODY + 1))
    environ["wsgi.input"] = io.BufferedReader(_Replayed(body, whole, left - len(body)))
    return body


class _Replayed(io.RawIOBase):
    """What was read already, then at most `left` bytes of the rest."""

    def __init__(self, begun: bytes, rest: Any, left: int) -> None:
        super().__init__()
        self._begun = io.BytesIO(begun)
        self._rest = rest
        self._left = left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._begun.read(len(buffer))
        if not piece and self._left > 0:
            piece = self._rest.read(min(len(buffer), self._left))
            self._left -= len(piece) or self._left
        buffer[: len(piece)] = piece
        return len(piece)


def _refuse(refused: Refused, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    status, headers, body = render_refusal(refused)
    start_response(_REASONS[status], headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def _serve(app: App, environ: Environ, start_response: StartResponse, came: Incoming) -> Iterable[bytes]:
    """Run the application; what it answers may be made only while the server reads it."""
    before = context.incoming.get()
    context.incoming.set(came)
    try:
        body = app(environ, start_response)
    except BaseException:
        context.incoming.set(before)
        context.end_deadline(came)
        raise
    wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(body, list | tuple) or (isinstance(wrapper, type) and isinstance(body, wrapper)):
        # Servers send these in ways of their own, and no line of the application runs for it.
        context.incoming.set(before)
        context.end_deadline(came)
        return body
    return _Answer(body, came, before)


class _Answer:
    """An answer that is made while it is read: what came in is known until it is closed."""

    def __init__(self, body: Iterable[bytes], came: Incoming, before: Incoming) -> None:
        self._body = body
        self._came = came
        self._before = before

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        """End the request; what runs from now on calls in its own time."""
        context.end_deadline(self._came)
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            context.incoming.set(self._before)
