"""The ASGI middleware: every call is checked before the application sees it.

A server whose set-up is wrong fails its start through the lifespan protocol, because an exception alone only means "no
lifespan" to servers, which then start all the same.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

from servicelink import context
from servicelink.calls.limits import RateLimit
from servicelink.context import Incoming
from servicelink.counts import Counts
from servicelink.door import Door
from servicelink.errors import LinkConfigurationError
from servicelink.graphql.asked import LARGEST_BODY, HttpRequest
from servicelink.headers import Heads
from servicelink.refusals import log_refusal, render_refusal
from servicelink.verify import Allowed, Decision, Known, Peer, Refused
from servicelink_contract.paths import MalformedPatternError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# RFC 6455, section 7.4.1: policy violation.
_POLICY_VIOLATION = 1008
# The latter is an extension for files, which come whole.
_LAST = frozenset({"http.response.body", "http.response.pathsend"})


class LinkMiddleware:
    """Let through what the links to this server allow: `LinkMiddleware(app)`, or `app.add_middleware(LinkMiddleware)`.

    `service` names the Service whose verifier to use, needed where several are mounted. `exempt` and `protect` are path
    patterns (`*` one segment, a final `**` any number): a call is checked if its path is protected and not exempt.
    `rate_limit` holds for each link. With nothing to check calls with, or a pattern that is none, the server's start
    fails, and any call raises LinkConfigurationError.

    The verified link is in `scope["servicelink"]` (`Allowed`, or None) and in `current_link()`.
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
        self._door: Door | LinkConfigurationError
        try:
            self._door = Door(service, exempt=exempt, protect=protect, rate_limit=rate_limit)
        except LinkConfigurationError as error:
            self._door = error
        except MalformedPatternError as error:
            self._door = LinkConfigurationError(str(error), next_step="Mend exempt= or protect= of LinkMiddleware")

    def counts(self) -> Counts:
        """Answer how many calls were accepted, refused, and would have been, by link, kid and code.

        Raises LinkConfigurationError.
        """
        if isinstance(self._door, LinkConfigurationError):
            raise self._door
        return self._door.counts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of the ASGI specification (3.0); raises ValueError for a type that is not known."""
        door, kind = self._door, scope["type"]
        if isinstance(door, LinkConfigurationError) or (kind != "http" and kind != "websocket"):  # noqa: PLR1714 - quicker
            await self._serve_other(scope, receive, send)
            return
        desk = door.guard.current()
        heads = desk.names.read(scope["headers"])
        # In place, for once: what stands outside and reports errors with their request must not send the credential on.
        scope["headers"] = heads.kept
        reading = door.read_path(scope.get("raw_path"), scope["path"])
        identity: Allowed | None = None
        # What moves a request elsewhere makes an open path lead to any other.
        if reading.is_checked or heads.overrides:
            extensions = scope.get("extensions")
            peer = _peer(extensions) if extensions else None
            method = scope["method"] if kind == "http" else "GET"
            found = door.decide(desk, heads, method, reading, peer=peer)
            if not isinstance(found, Decision):
                found, receive = await _judge_body(door, found, heads, scope=scope, receive=receive)
            verdict = found.verdict
            if isinstance(verdict, Allowed):
                identity = verdict
            elif found.enforced:
                log_refusal(verdict, f"{method} {reading.path}", heads.carried)
                await _refuse(verdict, scope, receive, send)
                return
        # In place as well: what stands outside reads there what frameworks note of the request, its route for one.
        scope["servicelink"] = identity
        came = context.defer_incoming(identity, heads.carried)
        token = context.incoming.set(came)
        if heads.carried:
            send = _until_answered(came, send)
        try:
            await self._app(scope, receive, send)
        finally:
            context.incoming.reset(token)
            context.end_deadline(came)

    async def _serve_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if isinstance(self._door, LinkConfigurationError):
            await _fail_start(self._door, scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        else:
            raise ValueError(f"a connection of type {scope['type']!r} cannot be checked, so it is refused")


def _until_answered(came: Incoming, send: Send) -> Send:
    """Answer a `send` that ends the time limit with the answer: what runs afterwards calls in its own time."""

    async def send_on(message: Message) -> None:
        await send(message)
        if message["type"] in _LAST and not message.get("more_body", False):
            context.end_deadline(came)

    return send_on


def _peer(extensions: Mapping[str, Any]) -> Peer | None:
    """Answer the client's certificate, where the server tells of it, as uvicorn does that `uvicorn_config` set up."""
    tls = extensions.get("tls")
    found = None if tls is None else tls.get("servicelink")
    return found if isinstance(found, Peer) else None


async def _judge_body(
    door: Door, known: Known, heads: Heads, *, scope: Scope, receive: Receive
) -> tuple[Decision, Receive]:
    """Decide by what is asked in the body; answers a `receive` that gives the body once more, then all that follows."""
    if scope["type"] == "websocket":
        return door.settle(known.refuse("what is asked over a WebSocket cannot be judged")), receive
    messages: list[Message] = []
    body = b""
    while len(body) <= LARGEST_BODY:
        message = await receive()
        messages.append(message)
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    request = HttpRequest(scope["method"], scope.get("query_string", b""), _lower(heads.kept), body)
    messages.reverse()

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return door.judge_body(known, request), replay


def _lower(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower(), value) for name, value in headers]


async def _refuse(refused: Refused, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        # Closed before it was accepted, it is answered by 403 (ASGI WebSocket specification, "Close").
        await receive()
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": refused.code.value})
        return
    status, headers, body = render_refusal(refused)
    raw = [(name.encode(), value.encode()) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


async def _fail_start(error: LinkConfigurationError, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": str(error)})
    # Also after the message, as Starlette does: servers have it by then, and Starlette's TestClient raises this.
    raise error
