"""How often a GraphQL link may ask, whatever comes of it: to read what it asks is what costs."""

import asyncio
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from sdk_servers import GRAPHQL_KEY, VERIFIER, AsgiApp, entry_of, make_key, write_verifier

import servicelink
from servicelink import sync
from servicelink.counts import Counted, Counts
from servicelink.verify import Code
from servicelink_contract.verifier import Mode, Verifier

ORDER = json.dumps({"query": "{ order }"}).encode()
SECRET = json.dumps({"query": "{ secret }"}).encode()
REMADE_KEY = make_key(3)


@dataclass(slots=True)
class Asked:
    """A guarded server in one of the two worlds, and which bodies were read."""

    middleware: Any
    read: list[bytes] = field(default_factory=list)

    def ask(self, body: bytes, key: str = GRAPHQL_KEY.text) -> int:
        """Ask once, and answer the status."""
        if isinstance(self.middleware, sync.LinkMiddleware):
            return self._ask_wsgi(body, key)
        return asyncio.run(self._ask_asgi(body, key))

    def counts(self) -> Counts:
        """Answer what was decided so far."""
        counts: Counts = self.middleware.counts()
        return counts

    async def _ask_asgi(self, body: bytes, key: str) -> int:
        sent: list[Any] = []

        async def receive() -> Any:
            self.read.append(body)
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"x-service-auth", key.encode()), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/graphql", "raw_path": b"/graphql", "headers": headers}
        await self.middleware(scope, receive, send)
        return int(sent[0]["status"])

    def _ask_wsgi(self, body: bytes, key: str) -> int:
        asked = self

        class Input(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                asked.read.append(body)
                return super().read(size)

        environ = {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": "/graphql",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_X_SERVICE_AUTH": key,
            "wsgi.input": Input(body),
        }
        said: list[str] = []
        list(self.middleware(environ, lambda status, *_: said.append(status)))
        return int(said[0].split()[0])


def _wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return []


Make = Callable[..., Asked]


@pytest.fixture(params=["asynchronous", "synchronous"])
def make(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """`make(verifier)` answers a server whose links may ask twice."""
    monkeypatch.setenv("SERVICELINK_VERIFIER_DIR", str(tmp_path))
    limit = servicelink.RateLimit(2, per=1000)

    def made(verifier: Verifier = VERIFIER) -> Asked:
        write_verifier(tmp_path / "api", verifier)
        if request.param == "asynchronous":
            return Asked(servicelink.LinkMiddleware(AsgiApp(), rate_limit=limit))
        return Asked(sync.LinkMiddleware(_wsgi_app, rate_limit=limit))

    return made


def counted(code: Code | None) -> Counted:
    """Answer what counts of the link say."""
    return Counted("shop/app", GRAPHQL_KEY.kid, code)


@pytest.mark.parametrize("body", [ORDER, SECRET])
def test_a_link_that_asks_too_often_is_refused_before_its_body_is_read(make: Make, body: bytes) -> None:
    server = make()
    statuses = [server.ask(ORDER), server.ask(SECRET)]
    server.read.clear()
    statuses.append(server.ask(body))

    assert (statuses, server.read) == ([200, 403, 429], [])


def test_each_question_counts_once(make: Make) -> None:
    server = make()
    for body in (ORDER, SECRET, ORDER):
        server.ask(body)

    assert server.counts().accepted == {counted(None): 1}
    assert server.counts().refused == {counted(Code.PERMISSION_DENIED): 1, counted(Code.RATE_LIMITED): 1}


def test_audit_lets_those_through_that_ask_too_often(make: Make) -> None:
    server = make(replace(VERIFIER, mode=Mode.AUDIT))

    assert [server.ask(ORDER) for _ in range(3)] == [200, 200, 200]
    assert server.counts().would_refuse == {counted(Code.RATE_LIMITED): 1}


def test_a_link_that_was_made_anew_owes_nothing_for_the_one_before(make: Make) -> None:
    first, old = VERIFIER.links
    remade = replace(old, uid="uid-3", keys=(entry_of(REMADE_KEY),))
    server = make(replace(VERIFIER, links=(first, old, remade)))

    assert [server.ask(ORDER) for _ in range(3)] == [200, 200, 429]
    assert server.ask(ORDER, REMADE_KEY.text) == 200
