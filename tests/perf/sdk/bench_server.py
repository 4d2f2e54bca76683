"""What the SDK's middleware adds to a call that it accepts, beside the least that any check of a key costs.

Usage: bench_server.py [--rounds N] [--calls N]

The least is one SHA-256 of the key and one look-up in a dictionary. Both are measured in turn, round by round, in this
process and in CPU time; an application that does nothing is measured beside, and taken off. Prints a table, and keeps
it and the figures under docs/proof.
"""

import argparse
import hashlib
import io
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined] # compiled

sys.path.insert(0, str(Path(__file__).parents[2] / "harness"))

import grpc_servers
from sdk_servers import GRAPHQL_KEY, KEY, VERIFIER, write_verifier
from users_service import FULL_NAME

import servicelink
from servicelink import sync

PROOF = Path(__file__).parents[3] / "docs" / "proof"
# 5 us where the look-up takes 0.4.
MOST = 12.5
# As one client or another sends them, beside the key.
HEADERS = [
    (b"host", b"payments:8080"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"user-agent", b"servicelink"),
]
CARRIED = [
    (b"x-request-id", b"0123456789abcdef0123456789abcdef"),
    (b"x-correlation-id", b"0123456789abcdef0123456789abcdef"),
    (b"x-request-timeout-ms", b"5000"),
]
QUERY = json.dumps({"query": "query Order($id: ID!) { order(id: $id) { id total } }", "variables": {"id": "1"}})

Round = Callable[[int], None]


@dataclass(slots=True)
class Row:
    """One line of the table: what was measured, and what is promised of it ("" nothing, and then whether it holds)."""

    what: str
    figure: str
    target: str = ""
    holds: bool | None = None


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    """Do nothing."""


def wsgi_app(environ: Any, start_response: Any) -> Iterable[bytes]:
    """Do nothing."""
    return ()


def scope_of(path: str, *headers: tuple[bytes, bytes], method: str = "GET", key: str = KEY.text) -> dict[str, Any]:
    """Answer the scope of a request, as uvicorn makes it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8080),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "root_path": "",
        "state": {},
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [*HEADERS, *headers, (b"x-service-auth", key.encode())],
    }


def asgi_round(app: Any, scope: dict[str, Any], body: bytes = b"") -> Round:
    """Answer a round of calls of an ASGI application, which is run as a loop would."""

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    def run(calls: int) -> None:
        for _ in range(calls):
            try:
                # As servers do, a scope for each: the middleware takes the credential out of it.
                app(scope.copy(), receive, receive).send(None)
            except StopIteration:
                continue

    return run


def fresh_paths_round(app: Any) -> Round:
    """Answer a round of calls that never ask for the same path twice."""
    numbers = iter(range(1 << 60))

    def run(calls: int) -> None:
        for _ in range(calls):
            try:
                app(scope_of(f"/v1/items/{next(numbers)}"), None, None).send(None)
            except StopIteration:
                continue

    return run


def wsgi_round(app: Any) -> Round:
    """Answer a round of calls of a WSGI application."""
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/v1/items",
        "RAW_URI": "/v1/items",
        "QUERY_STRING": "",
        "SERVER_NAME": "payments",
        "SERVER_PORT": "8080",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.input": io.BytesIO(),
        "wsgi.url_scheme": "http",
        "HTTP_HOST": "payments:8080",
        "HTTP_ACCEPT": "*/*",
        "HTTP_USER_AGENT": "servicelink",
        "HTTP_X_SERVICE_AUTH": KEY.text,
    }

    def run(calls: int) -> None:
        for _ in range(calls):
            app(environ.copy(), None)

    return run


class Rpc:
    """A call's context, as far as it is asked."""

    def time_remaining(self) -> float | None:
        """Answer the seconds until its deadline."""
        return 5.0


async def grpc_behaviour(request: Any, rpc: Any) -> None:
    """Do nothing."""


HANDLER: Any = grpc.unary_unary_rpc_method_handler(grpc_behaviour)


async def resolve(details: Any) -> Any:
    """Answer the handler of a call."""
    return HANDLER


def details_of(*headers: tuple[bytes, bytes]) -> Any:
    """Answer what is told of a call with this metadata."""
    more = tuple((name.decode(), value.decode()) for name, value in headers)
    agent = ("user-agent", "servicelink grpc-python-asyncio/1.85.3 grpc-c/54.0.0 (linux; chttp2)")
    made = cygrpc._HandlerCallDetails  # noqa: SLF001 - what grpc.aio makes of a call is nowhere else
    return made(f"/{FULL_NAME}/GetUser", (agent, *more, ("x-service-auth", grpc_servers.KEY.text)))


def grpc_round(interceptor: servicelink.LinkInterceptor | None, details: Any) -> Round:
    """Answer a round of calls as grpc.aio serves them, from the interceptor to the handler's end."""
    rpc = Rpc()

    async def serve() -> None:
        found = resolve(details) if interceptor is None else interceptor.intercept_service(resolve, details)
        handler: Any = await found
        await handler.unary_unary(b"", rpc)

    def run(calls: int) -> None:
        for _ in range(calls):
            try:
                serve().send(None)
            except StopIteration:
                continue

    return run


def look_up(calls: int) -> None:
    """Check a key and nothing else."""
    sha256, key = hashlib.sha256, KEY.text.encode()
    known = {sha256(key).digest(): KEY.kid}
    for _ in range(calls):
        known.get(sha256(key).digest())


def microseconds(run: Round, calls: int) -> float:
    """Answer the CPU time of one call."""
    started = time.thread_time_ns()
    run(calls)
    return (time.thread_time_ns() - started) / calls / 1000


@dataclass(frozen=True, slots=True)
class Pair:
    """A round with the middleware and one without it; `most` bounds the ratio to a look-up (None: no promise)."""

    what: str
    checked: Round
    plain: Round
    most: float | None = MOST


def grpc_pairs(interceptor: servicelink.LinkInterceptor) -> list[Pair]:
    """Answer what is measured of gRPC."""
    bare, full = details_of(), details_of(*CARRIED[:2])
    return [
        Pair("gRPC, a key", grpc_round(interceptor, bare), grpc_round(None, bare)),
        Pair("gRPC, a key and what this SDK's clients send", grpc_round(interceptor, full), grpc_round(None, full)),
    ]


def pairs(folder: Path) -> list[Pair]:
    """Answer what is measured."""
    write_verifier(folder / "api", VERIFIER)
    grpc_servers.write_grpc_verifier(folder)
    asgi, wsgi = servicelink.LinkMiddleware(asgi_app, "api"), sync.LinkMiddleware(wsgi_app, "api")
    plain = asgi_round(asgi_app, scope_of("/v1/items"))
    json_type = (b"content-type", b"application/json")
    query = scope_of("/graphql", json_type, method="POST", key=GRAPHQL_KEY.text)
    return [
        Pair("ASGI, a key", asgi_round(asgi, scope_of("/v1/items")), plain),
        Pair("ASGI, a key and what this SDK's clients send", asgi_round(asgi, scope_of("/v1/items", *CARRIED)), plain),
        Pair("ASGI, a path never seen before", fresh_paths_round(asgi), fresh_paths_round(asgi_app), None),
        Pair("WSGI, a key", wsgi_round(wsgi), wsgi_round(wsgi_app), None),
        Pair("GraphQL, a query seen before", asgi_round(asgi, query, QUERY.encode()), plain, None),
        *grpc_pairs(servicelink.LinkInterceptor("users")),
    ]


def measure(pair: Pair, rounds: int, calls: int) -> list[Row]:
    """Measure a pair beside the look-up; answers the rows of the table."""
    for run in (pair.checked, pair.plain, look_up):
        run(calls)
    seen = [[microseconds(run, calls) for run in (pair.checked, pair.plain, look_up)] for _ in range(rounds)]
    overhead = statistics.median(checked - plain for checked, plain, _ in seen)
    least = statistics.median(look for _, _, look in seen)
    ratio = statistics.median((checked - plain) / look for checked, plain, look in seen)
    promise = ("", None) if pair.most is None else (f"<= {pair.most:g}", ratio <= pair.most)
    return [
        Row(f"{pair.what}: added, p50, and the look-up", f"{overhead:.1f} and {least:.2f} us"),
        Row(f"{pair.what}: in look-ups", f"{ratio:.1f}", *promise),
    ]


def render(rows: list[Row], chosen: argparse.Namespace) -> str:
    """Render the rows as a Markdown page."""
    verdicts = {None: "", True: " ✓", False: " ✗"}
    lines = "\n".join(f"| {row.what} | {row.figure} | {row.target}{verdicts[row.holds]} |" for row in rows)
    machine = f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, Python {platform.python_version()}"
    return f"""# The SDK's middleware: what it adds to a call that it accepts

Written by `make bench` on {machine}:
medians of {chosen.rounds} rounds of {chosen.calls} calls in one run. The look-up is one SHA-256 of the key and one
look-up in a dictionary, measured in turn with the rest.

| what | figure | target |
|---|---|---|
{lines}
"""


def main() -> int:
    """Measure, write both files, and answer 1 where a target is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=300, help="how many rounds there are")
    parser.add_argument("--calls", type=int, default=300, help="how many calls a round has")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SERVICELINK_VERIFIER_DIR"] = folder
        rows = [row for pair in pairs(Path(folder)) for row in measure(pair, chosen.rounds, chosen.calls)]
    figures = json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False)
    (PROOF / "sdk-server.json").write_text(f"{figures}\n")
    (PROOF / "sdk-server.md").write_text(render(rows, chosen))
    print(render(rows, chosen))
    return 0 if all(row.holds is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
