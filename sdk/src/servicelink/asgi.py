"""The ASGI middleware: every call is checked before the application sees it.

Paths are judged undecoded (`raw_path`), since decoding loses what tells two readings apart; the application routes by
the decoded `path`, so the two must agree. A server whose set-up is wrong fails its start through the lifespan protocol,
because an exception there only means "no lifespan" to servers, which then start all the same.
"""

import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from servicelink import context
from servicelink.counts import Counts, Tally
from servicelink.errors import LinkConfigurationError
from servicelink.guard import observe_guard
from servicelink.verify import Allowed, Code, Decision, Guard, Refused, RestCall, normalise_header
from servicelink_contract.paths import PathPattern, RefusedPathError, matches, parse_path, parse_pattern

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_OWN_PREFIX = "x-servicelink-"
_PATH_CHARACTERS = "/:@!$&'()*+,;=~"
# RFC 6455, section 7.4.1: policy violation.
_POLICY_VIOLATION = 1008
_MESSAGES = {
    Code.INVALID_SERVICE_AUTH: "no valid service credential came with this call",
    Code.PERMISSION_DENIED: "this link is not allowed to make this call",
}
_log = logging.getLogger("servicelink")


class LinkMiddleware:
    """Let through what the links to this server allow: `LinkMiddleware(app)`, or `app.add_middleware(LinkMiddleware)`.

    `service` names the Service whose verifier to use, needed where several are mounted. `exempt` and `protect` are path
    patterns (`*` one segment, a final `**` any number): a call is checked if its path is protected and not exempt.
    With nothing to check calls with, the server's start fails, and any call raises LinkConfigurationError.

    The verified link is in `scope["servicelink"]` (`Allowed`, or None) and in `current_link()`. Raises
    MalformedPatternError.
    """

    def __init__(
        self,
        app: App,
        service: str | None = None,
        exempt: Iterable[str] = ("/healthz", "/metrics"),
        protect: Iterable[str] = ("/**",),
    ) -> None:
        self._app = app
        self._exempt = tuple(parse_pattern(text) for text in exempt)
        self._protect = tuple(parse_pattern(text) for text in protect)
        self._tally = Tally()
        self._guard: Guard | LinkConfigurationError
        try:
            self._guard = observe_guard(service, os.environ)
        except LinkConfigurationError as error:
            self._guard = error

    def counts(self) -> Counts:
        """Answer how many calls were accepted, refused, and would have been, by link, kid and code."""
        return self._tally.counts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of the ASGI specification (3.0); raises ValueError for a type that is not known."""
        if isinstance(self._guard, LinkConfigurationError):
            await _fail_start(self._guard, scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] in {"http", "websocket"}:
            await self._serve(self._guard, scope, receive, send)
        else:
            raise ValueError(f"a connection of type {scope['type']!r} cannot be checked, so it is refused")

    async def _serve(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        path = _raw_path(scope)
        if not self._wants_check(path, scope):
            await self._pass_on(_cleaned(scope, guard.header, None), receive, send)
            return
        decision = _decide(guard, scope, path)
        self._tally.add(decision)
        if decision.passes:
            await self._pass_on(_cleaned(scope, decision.header, decision.identity), receive, send)
            return
        assert isinstance(decision.verdict, Refused)
        _log.info("refused a call of %s: %s", decision.verdict.link or "nobody known", decision.verdict.reason)
        await _refuse(decision.verdict.code, scope, receive, send)

    def _wants_check(self, path: str, scope: Scope) -> bool:
        try:
            segments = parse_path(path)
        except RefusedPathError:
            # What cannot be read is nobody's exemption.
            return True
        if not _agrees(segments, scope):
            return True
        return _any(self._protect, segments) and not _any(self._exempt, segments)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = context.incoming.set(_incoming(scope))
        try:
            await self._app(scope, receive, send)
        finally:
            context.incoming.reset(token)


def _decide(guard: Guard, scope: Scope, path: str) -> Decision:
    method = scope["method"] if scope["type"] == "http" else "GET"
    decision = guard.decide(scope["headers"], RestCall(method, path))
    found = decision.verdict
    if isinstance(found, Refused) or not _has_two_readings(path, scope):
        return decision
    refused = Refused(Code.PERMISSION_DENIED, "the path has two readings", found.link, found.kid)
    return replace(decision, verdict=refused)


def _has_two_readings(path: str, scope: Scope) -> bool:
    try:
        return not _agrees(parse_path(path), scope)
    except RefusedPathError:
        # Allowed all the same: then there were no rules that a reading could pass.
        return False


def _agrees(segments: tuple[str, ...], scope: Scope) -> bool:
    """Answer whether the application routes by what is judged; something before us may have changed one of the two."""
    return bool(scope["path"] == "/" + "/".join(segments))


def _raw_path(scope: Scope) -> str:
    """Answer the path undecoded; `raw_path` is optional (ASGI HTTP specification, 2.4), `path` is decoded."""
    raw: bytes | None = scope.get("raw_path")
    if raw is None:
        return quote(scope["path"], safe=_PATH_CHARACTERS)
    # Some servers leave the query in.
    return raw.split(b"?", 1)[0].decode("latin-1")


def _any(patterns: tuple[PathPattern, ...], segments: tuple[str, ...]) -> bool:
    return any(matches(pattern, segments) for pattern in patterns)


def _cleaned(scope: Scope, header: str, identity: Allowed | None) -> Scope:
    """Answer the scope for the application: without the credential, without what only we may say."""
    credential = normalise_header(header)

    def stays(name: bytes) -> bool:
        normal = normalise_header(name.decode("latin-1"))
        return normal != credential and not normal.startswith(_OWN_PREFIX)

    headers = [(name, value) for name, value in scope["headers"] if stays(name)]
    return {**scope, "headers": headers, "servicelink": identity}


def _incoming(scope: Scope) -> context.Incoming:
    headers = {name: value.decode("latin-1") for raw, value in scope["headers"] if (name := _carried(raw))}
    return replace(context.read_incoming(headers, time.monotonic()), link=scope["servicelink"])


def _carried(raw: bytes) -> str | None:
    name = raw.decode("latin-1").lower()
    return name if name in context.CARRIED else None


async def _refuse(code: Code, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        # Closed before it was accepted, it is answered by 403 (ASGI WebSocket specification, "Close").
        await receive()
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": code.value})
        return
    body = json.dumps({"error": {"code": code, "message": _MESSAGES[code]}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _fail_start(error: LinkConfigurationError, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "lifespan":
        raise error
    await receive()
    await send({"type": "lifespan.startup.failed", "message": str(error)})
