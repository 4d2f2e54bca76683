"""Several hundred hostile requests over real sockets: refused, each with its code, in no time, in flat memory.

They are data, in `hostile/*.yaml`. `say` names one, `code` is what it must be refused with: a code of ours, or numbers
where the server itself may refuse first. `key` says what is made of the right credential. The rest is the request:
`method`, `target`, `version`, `headers`, `body`, and `query`, which is sent as GraphQL by POST. ⟦text*N⟧ is text, N
times; ⟦key⟧ and ⟦graphql⟧ are the right keys; ⟦nonce⟧ differs with every attempt.

A GraphQL document below the caps has to be parsed before anybody knows what it asks. Those that are as large as may be
(`parsed`) are measured beside an ordinary query of that size, all others beside small ordinary requests.
"""

import asyncio
import base64
import codecs
import hashlib
import json
import re
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from sdk_servers import (
    GRAPHQL_KEY,
    KEY,
    LINK,
    SINCE,
    VERIFIER,
    RawAnswer,
    connected,
    entry_of,
    make_key,
    read_answer,
    write_verifier,
)
from sdk_serving import serving_process
from yamls import parse_yaml

from servicelink_contract.key import ApiKey, render_key

pytestmark = pytest.mark.traffic

FOLDER = Path(__file__).with_name("hostile")
GROUPS = ("credentials", "paths", "methods", "graphql")
REQUESTS = {group: parse_yaml((FOLDER / f"{group}.yaml").read_text()) for group in GROUPS}
EXPIRED = make_key(77)
_MARK = re.compile("⟦(?:(key|graphql|nonce)|(.+?)[*]([0-9]+))⟧", re.DOTALL)
# How many ordinary requests one hostile one may take, and how often one is tried that took longer.
LONGEST = 10
TRIES = 5
# What a server answers by itself to what it does not take for HTTP, or for too much of it.
SERVERS_OWN = frozenset({400, 411, 413, 414, 431, 501, 505})
# Seconds after which an answer does not come any more.
PATIENCE = 3
PIECE = 64 * 1024


def filled(text: str, nonce: int = 0) -> str:
    """Answer a text with its marks filled in."""
    named = {"key": KEY.text, "graphql": GRAPHQL_KEY.text, "nonce": str(nonce)}
    return _MARK.sub(lambda mark: named[mark[1]] if mark[1] else mark[2] * int(mark[3]), text)


def reordered(key: ApiKey, kid: str | None = None, prefix: str | None = None, end: str | None = None) -> str:
    """Answer a key with some of its parts changed."""
    text = key.text
    return (prefix or text[:4]) + (kid or text[4:12]) + text[12:57] + (end or text[57:])


def turned(text: str, place: int, bit: int) -> bytes:
    """Answer a text with one bit turned."""
    raw = bytearray(text.encode())
    raw[place] ^= 1 << bit
    return bytes(raw)


K = KEY.text
MADE: dict[str, Callable[[Any], str | bytes]] = {
    "good": lambda _: K,
    "graphql": lambda _: GRAPHQL_KEY.text,
    "text": filled,
    "pad": lambda value: K + "x" * value,
    "percent": lambda _: "".join(f"%{byte:02x}" for byte in K.encode()),
    "base64": lambda _: base64.b64encode(K.encode()),
    "hex": lambda _: K.encode().hex(),
    "reversed": lambda _: K[::-1],
    "rot13": lambda _: codecs.encode(K, "rot13"),
    "quoted": lambda _: f'"{K}"',
    "single-quoted": lambda _: f"'{K}'",
    "bearer": lambda _: f"Bearer {K}",
    "basic": lambda _: b"Basic " + base64.b64encode(f"{K}:".encode()),
    "utf-8-bom": lambda _: K.encode("utf-8-sig"),
    "utf-16": lambda _: K.encode("utf-16-le").replace(b"\0", b"\x01"),
    "latin-1-tail": lambda _: K.encode() + b"\xff",
    "zero-width": lambda _: f"{K[:20]}\u200b{K[20:]}".encode(),
    "full-width": lambda _: "".join(chr(ord(one) + 0xFEE0) for one in K).encode(),
    "nbsp-tail": lambda _: K.encode() + b"\xa0",
    "std-base64": lambda _: K.replace("A", "+"),
    "html": lambda _: K.replace("_", "&#95;"),
    "backslash-x": lambda _: K.replace("_", "\\x5f"),
    "json": lambda _: json.dumps({"key": K}),
    "angle": lambda _: f"<{K}>",
    "null-tail": lambda _: f"{K}\0",
    "control-tail": lambda _: f"{K}\x01",
    "cr-inside": lambda _: f"{K[:20]}\r{K[20:]}",
    "upper": lambda _: K.upper(),
    "lower": lambda _: K.lower().replace("a", "b"),
    "swapcase": lambda _: K.swapcase(),
    "title": lambda _: K.title(),
    "upper-kid": lambda _: reordered(make_key(1), kid="K0000001"),
    "lower-kid": lambda _: reordered(make_key(1), kid="k0000001"),
    "upper-prefix": lambda _: reordered(KEY, prefix="SLK_"),
    "upper-checksum": lambda _: reordered(KEY, end=K[57:].upper() if K[57:].upper() != K[57:] else "ABCDEF01"),
    "cut": lambda value: K[:-value],
    "cut-front": lambda value: K[value:],
    "flip": lambda value: turned(K, *value),
    "stranger": lambda _: make_key(99).text,
    "same-kid": lambda _: render_key(KEY.kid, bytes(32)).text,
    "expired": lambda _: EXPIRED.text,
    "sha256": lambda _: hashlib.sha256(K.encode()).hexdigest(),
    "kid": lambda _: KEY.kid,
    "zeros": lambda _: "0" * 65,
}


def render(case: dict[str, Any], nonce: int) -> bytes:
    """Answer a request as it goes over the socket."""
    body, method = _body(case, nonce), "POST" if "query" in case else case.get("method", "GET")
    lines = [filled(line).rstrip("\r\n") for line in case.get("headers", ())]
    if "query" in case:
        lines = ["content-type: application/json"]
    target = filled(case.get("target", "/graphql" if "query" in case else "/v1/items"))
    first = [f"{method} {target} {case.get('version', 'HTTP/1.1')}", *_host(case)]
    head = b"".join(line.encode() + b"\r\n" for line in first) + _credential(case)
    head += b"".join(line.encode() + b"\r\n" for line in lines)
    if "raw_body" in case:
        return head + b"\r\n" + str(case["raw_body"]).encode()
    if case.get("chunked"):
        return head + b"transfer-encoding: chunked\r\n\r\n" + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    if (body or method == "POST") and not any(line.startswith("content-length") for line in lines):
        head += f"content-length: {len(body)}\r\n".encode()
    return head + b"\r\n" + body


def _host(case: dict[str, Any]) -> list[str]:
    host = case.get("host", "api")
    return [f"host: {host}"] if host else []


def _credential(case: dict[str, Any]) -> bytes:
    if case["key"] == "none":
        return b""
    made = MADE[case["key"]](case.get("value"))
    return b"x-service-auth: " + (made.encode("latin-1") if isinstance(made, str) else made) + b"\r\n"


def _body(case: dict[str, Any], nonce: int) -> bytes:
    if "query" in case:
        asked: dict[str, Any] = {"query": filled(case["query"], nonce)}
        return json.dumps({**asked, "operationName": case["name"]} if "name" in case else asked).encode()
    encoded: bytes = filled(case.get("body", ""), nonce).encode(case.get("encoding", "utf-8"))
    return encoded


async def tried(address: tuple[str, int], raw: bytes) -> tuple[RawAnswer | None, float]:
    """Send a request over a connection of its own; answers what came back, and after how many seconds."""
    started = time.perf_counter()
    async with connected(address) as (reader, writer):
        sending = asyncio.create_task(send_in_pieces(writer, raw))
        try:
            answer = await asyncio.wait_for(read_answer(reader, has_body=not raw.startswith(b"HEAD ")), PATIENCE)
        except TimeoutError:
            answer = None
        seconds = time.perf_counter() - started
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        return answer, seconds


async def send_in_pieces(writer: asyncio.StreamWriter, raw: bytes) -> None:
    """Send a request as far as it is taken: whoever refuses need not take all of it."""
    view = memoryview(raw)
    for place in range(0, len(raw), PIECE):
        writer.write(view[place : place + PIECE])
        await writer.drain()
        # To drain does not wait while there is room: let whoever reads have their turn.
        await asyncio.sleep(0)


def refusal_of(answer: RawAnswer | None) -> str | int | None:
    """Answer the code of a refusal, the status of any other answer."""
    if answer is None or answer.status != 403 or not answer.body:
        return None if answer is None else answer.status
    try:
        return str(json.loads(answer.body)["error"]["code"])
    except (ValueError, KeyError):
        return answer.status


ORDINARY = {"say": "an ordinary request", "key": "good"}
ORDINARY_QUERY = {"say": "an ordinary query", "key": "graphql", "query": "query Order { order(id: 1) { id total } }"}
# Of as many tokens as are let through.
ORDINARY_LARGE = {"say": "a large ordinary query", "key": "graphql", "query": "#⟦nonce⟧\n{ ⟦order *1990⟧}"}
EVERY_ORDINARY = (ORDINARY, ORDINARY_QUERY, ORDINARY_LARGE)


def large_queries(nonce: int) -> tuple[dict[str, Any], ...]:
    """Answer queries as large as may be that nobody sent before: of fields that are not listed, and one that passes."""
    fields = " ".join(f"secret{nonce}_{place}" for place in range(1900))
    name = f"Order{nonce:050}"
    operations = " ".join(f"query {name}_{place} {{order}}" for place in range(380))
    return {"key": "graphql", "query": f"{{{fields}}}"}, {"key": "graphql", "query": operations, "name": f"{name}_0"}


async def usual(address: tuple[str, int], case: dict[str, Any]) -> float:
    """Answer how many seconds a request usually takes."""
    return statistics.median([(await tried(address, render(case, nonce)))[1] for nonce in range(25)])


@contextmanager
def server(name: str, app: str, folder: Path) -> Iterator[tuple[tuple[str, int], psutil.Process]]:
    """Serve an application in a process of its own."""
    expired = replace(entry_of(EXPIRED), not_after=SINCE)
    first, *others = VERIFIER.links
    write_verifier(folder / "api", replace(VERIFIER, links=(replace(LINK, keys=(*first.keys, expired)), *others)))
    environ = {"SERVICELINK_VERIFIER_DIR": str(folder), "INTERNAL_API_KEY": ""}
    with serving_process(name, app, **environ) as (address, process):
        yield address, psutil.Process(process.pid)


def codes_of(case: dict[str, Any]) -> list[Any]:
    """Answer what a request may be refused with."""
    return case["code"] if isinstance(case["code"], list) else [case["code"]]


async def patiently(
    address: tuple[str, int], case: dict[str, Any], beside: dict[str, Any], ordinary: float
) -> tuple[Any, float]:
    """Answer what a request is refused with, and how many ordinary ones it takes.

    One that took too long is tried again, beside ordinary ones of the same moment: what else runs slows both. So is
    one without an answer: who is still sending when a server closes may lose what it said (RFC 9112, section 9.6).
    """
    code, ratio = None, float("inf")
    for nonce in range(TRIES):
        answer, seconds = await tried(address, render(case, nonce))
        code, ratio = refusal_of(answer), min(ratio, seconds / ordinary)
        if code is not None and ratio <= LONGEST:
            break
        ordinary = max(ordinary, await usual(address, beside))
    return code, ratio


@pytest.mark.parametrize("name", ["uvicorn-httptools", "uvicorn-h11"])
async def test_each_is_refused_with_its_code_in_no_time_and_in_flat_memory(tmp_path: Path, name: str) -> None:
    cases = [case for group in GROUPS for case in REQUESTS[group]]
    wrong, slow = [], []
    with server(name, "starlette_app", tmp_path) as (address, process):
        accepted = [refusal_of((await tried(address, render(case, 0)))[0]) for case in EVERY_ORDINARY]
        small, query, large = [await usual(address, case) for case in EVERY_ORDINARY]
        for case in cases:
            parsed = bool(case.get("parsed"))
            beside, ordinary = (ORDINARY_LARGE, large) if parsed else (ORDINARY, min(small, query))
            code, ratio = await patiently(address, case, beside, ordinary)
            if code not in codes_of(case):
                wrong.append((case["say"], code))
            if ratio > LONGEST:
                slow.append((case["say"], round(ratio, 1)))
        before = process.memory_info().rss
        for nonce in range(2):
            for case in cases:
                await tried(address, render(case, 1000 + nonce))
        judged = {
            refusal_of((await tried(address, render(case, 0)))[0])
            for nonce in range(100)
            for case in large_queries(nonce)
        }
        grown = process.memory_info().rss - before
        afterwards = [refusal_of((await tried(address, render(case, 0)))[0]) for case in EVERY_ORDINARY]
        alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE

    assert len(cases) >= 300
    assert accepted == [200, 200, 200] == afterwards
    assert not wrong, str(wrong)
    assert not slow, str(slow)
    assert judged == {"PERMISSION_DENIED", 200}
    assert alive
    # Bytes. A body that was kept, or a cache without bounds, would be more.
    assert grown < 8 * 1024 * 1024


def is_dropped(case: dict[str, Any], answer: RawAnswer | None) -> bool:
    """Say whether an ordinary request was made of a hostile one: the server dropped the header that made it so."""
    if answer is None or answer.status != 200:
        return False
    named = {line.partition(":")[0].lower().replace("_", "-") for line in case.get("headers", ()) if "_" in line}
    return bool(named) and not named & set(json.loads(answer.body)["headers"])


def is_hung_up_on(case: dict[str, Any], answer: RawAnswer | None) -> bool:
    """Say whether the server hung up while the rest of a large body was on its way, which may overtake its answer."""
    return answer is None and "10485760" in case.get("body", "")


@pytest.mark.parametrize(("name", "app"), [("gunicorn", "flask_app"), ("waitress", "flask_app")])
async def test_each_is_refused_by_a_wsgi_server(tmp_path: Path, name: str, app: str) -> None:
    """Its server may refuse first, by rules of its own, or drop names with underscores; but nothing passes."""
    passed = []
    with server(name, app, tmp_path) as (address, _):
        before = [(await tried(address, render(case, 0)))[0] for case in (ORDINARY, ORDINARY_QUERY)]
        for case in [case for group in GROUPS for case in REQUESTS[group]]:
            answer, _ = await tried(address, render(case, 0))
            code = refusal_of(answer)
            refused = code in {*codes_of(case), *SERVERS_OWN} or is_dropped(case, answer)
            if not refused and not is_hung_up_on(case, answer):
                passed.append((case["say"], code))
        after = [(await tried(address, render(case, 0)))[0] for case in (ORDINARY, ORDINARY_QUERY)]

    assert [answer and answer.status for answer in (*before, *after)] == [200] * 4
    assert not passed, str(passed)


def test_every_request_is_named_once() -> None:
    named = [case["say"] for group in GROUPS for case in REQUESTS[group]]

    assert len(set(named)) == len(named)
