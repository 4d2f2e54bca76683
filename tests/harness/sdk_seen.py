"""A server that answers by the path, and clients of either world that may be watched."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from sdk_worlds import Caller, Hands, Peer, Request, Stage, open_caller

from servicelink_contract.key import render_key

KEY = render_key("AAAAAAAA", b"a" * 32).text
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass(slots=True)
class World:
    """A server that answers by the path, and clients of one kind."""

    kind: str
    stage: Stage
    stack: AsyncExitStack

    def connect(self, hands: Hands | None = None, **options: Any) -> Caller:
        """Answer a client, closed at the test's end."""
        given: dict[str, Any] = {"service_name": "api", "base_url": self.stage.address, "api_key": KEY}
        caller = open_caller(self.kind, hands, **{**given, **options})
        self.stack.push_async_callback(caller.close)
        return caller

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the last request."""
        return self.stage.requests[-1].headers


async def play(peer: Peer, request: Request) -> None:
    path = request.line.split()[1].partition("?")[0]
    if path == "/drop":
        raise EOFError
    if path == "/silent":
        await peer.until_gone()
        raise EOFError
    refusals = {"/refused": "INVALID_SERVICE_AUTH", "/denied": "PERMISSION_DENIED"}
    if path in refusals:
        await peer.reply(403, f'{{"error": {{"code": "{refusals[path]}"}}}}'.encode(), content_type="application/json")
    elif path == "/echo":
        # A server that repeats what it was sent.
        await peer.reply(500, repr(request.headers).encode())
    else:
        await peer.reply(int(path[1:4] or "200"), b"{}")
