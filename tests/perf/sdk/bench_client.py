"""What the SDK's client costs beside the client beneath it, and how soon a rotated credential is used.

Usage: bench_client.py [--calls N] [--rounds N] [--swaps N]

The same call is made by both of a pair in turn, round by round, against one server in a process of its own; what is
compared is this process's CPU time. The SDK's clients follow a mounted binding and send its key; OpenTelemetry is not
loaded, and info logs are off. Prints a table, and keeps it and the figures under docs/proof.
"""

import argparse
import asyncio
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import httpx_aiohttp

import servicelink
from servicelink import sync
from servicelink_contract.key import render_key

PROOF = Path(__file__).parents[3] / "docs" / "proof"
PATH = "/v1/items"
SERVER = """
import sys, uvicorn

async def app(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    body = b'{"items": [1, 2, 3]}'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})

uvicorn.run(app, port=int(sys.argv[1]), log_level="error", lifespan="off", access_log=False, timeout_keep_alive=60)
"""


@dataclass(slots=True)
class Row:
    """One line of the table: what was measured, and what is promised of it ("" nothing, and then whether it holds)."""

    what: str
    figure: str
    target: str = ""
    holds: bool | None = None


@dataclass(slots=True)
class Binding:
    """A mounted binding, swapped as the kubelet does it."""

    folder: Path
    address: str
    version: int = 0

    def swap(self) -> str:
        """Swap in another key, and answer it."""
        self.version += 1
        key = render_key(f"{self.version:08d}", self.version.to_bytes(32, "big")).text
        version = self.folder / f"..{self.version}"
        version.mkdir(parents=True)
        for name, text in {"uri": self.address, "api-key": key, "protocol": "rest"}.items():
            (version / name).write_text(text)
        fresh = self.folder / "..data_tmp"
        fresh.symlink_to(version.name)
        fresh.rename(self.folder / "..data")
        return key


@contextmanager
def serving() -> Iterator[str]:
    """Answer the address of the server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(port)])
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                httpx.get(address, trust_env=False)
            except httpx.ConnectError:
                time.sleep(0.05)
            else:
                break
        yield address
    finally:
        process.terminate()
        process.wait()


async def microseconds(get: Callable[[str], Awaitable[httpx.Response]], calls: int, at_once: int) -> float:
    """Answer the CPU time of a call, with so many under way at once."""

    async def work(count: int) -> None:
        for _ in range(count):
            (await get(PATH)).json()

    started = time.process_time()
    await asyncio.gather(*(work(calls // at_once) for _ in range(at_once)))
    return (time.process_time() - started) / calls * 1e6


def microseconds_sync(get: Callable[[str], httpx.Response], calls: int) -> float:
    """Answer the CPU time of a call."""
    started = time.process_time()
    for _ in range(calls):
        get(PATH).json()
    return (time.process_time() - started) / calls * 1e6


def compare(what: str, pairs: list[tuple[float, float]]) -> list[Row]:
    """Answer the rows of a pair: both medians, and the median of the rounds' ratios."""
    theirs, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    more = statistics.median(own / other - 1 for other, own in pairs) * 100
    return [
        Row(f"{what}: CPU per call, theirs and ours", f"{theirs:.0f} and {ours:.0f} us"),
        Row(f"{what}: ours beside theirs", f"{more:+.1f} %", "<= 12 %", more <= 12),
    ]


async def measure_async(address: str, calls: int, rounds: int) -> list[Row]:
    """Measure the asynchronous client."""
    rows: list[Row] = []
    transport = httpx_aiohttp.AiohttpTransport()
    async with (
        httpx.AsyncClient(base_url=address, transport=transport, trust_env=False) as theirs,
        httpx.AsyncClient(base_url=address, trust_env=False) as plain,
        servicelink.connect("bench") as ours,
    ):
        for at_once in (1, 32):
            for get in (theirs.get, ours.get, plain.get):
                await microseconds(get, 320, at_once)
            pairs = [
                (await microseconds(theirs.get, calls, at_once), await microseconds(ours.get, calls, at_once))
                for _ in range(rounds)
            ]
            rows += compare(f"asynchronous, {at_once} at once, beside httpx-aiohttp", pairs)
            own = await microseconds(plain.get, calls // 4, at_once)
            rows.append(Row(f"asynchronous, {at_once} at once: httpx on its own transport", f"{own:.0f} us"))
    return rows


def measure_sync(address: str, calls: int, rounds: int) -> list[Row]:
    """Measure the synchronous client."""
    with httpx.Client(base_url=address, trust_env=False) as theirs, sync.connect("bench") as ours:
        microseconds_sync(theirs.get, 320)
        microseconds_sync(ours.get, 320)
        pairs = [(microseconds_sync(theirs.get, calls), microseconds_sync(ours.get, calls)) for _ in range(rounds)]
    return compare("synchronous, beside httpx.Client", pairs)


class Watcher:
    """A server that takes any key and notes when it saw one first."""

    def __init__(self) -> None:
        self._first: dict[str, asyncio.Future[float]] = {}

    def first(self, key: str) -> asyncio.Future[float]:
        """Answer when a key was seen first, in monotonic seconds."""
        return self._first.setdefault(key, asyncio.get_running_loop().create_future())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                key = head.partition("x-service-auth: ")[2].partition("\r\n")[0]
                if not self.first(key).done():
                    self.first(key).set_result(time.monotonic())
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def measure_swaps(folder: Path, swaps: int, *, synchronous: bool) -> list[Row]:
    """Measure how soon a key that was swapped in is used by a client that calls all the time."""
    watcher = Watcher()
    server = await asyncio.start_server(watcher.serve, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    binding = Binding(folder / "swapped", address)
    binding.swap()
    tally = Tally()
    stop = threading.Event()
    caller = asyncio.create_task(asyncio.to_thread(call_sync, stop, tally) if synchronous else call_async(stop, tally))
    waits = []
    for _ in range(swaps):
        started = time.monotonic()
        key = await asyncio.to_thread(binding.swap)
        waits.append((await asyncio.wait_for(watcher.first(key), 30) - started) * 1000)
    stop.set()
    await caller
    server.close()
    return tally.rows("synchronous" if synchronous else "asynchronous", waits)


@dataclass(slots=True)
class Tally:
    """How many calls went well, and how many did not."""

    fine: int = 0
    failed: int = 0

    def rows(self, world: str, waits: list[float]) -> list[Row]:
        """Answer the rows of the table."""
        last = statistics.quantiles(waits, n=100)[98]
        what = f"{world}, {len(waits)} key swaps under calls"
        return [
            Row(f"{what}: swap to first request with it, p50", f"{statistics.median(waits):.0f} ms"),
            Row(f"{what}: swap to first request with it, p99", f"{last:.0f} ms", "<= 200 ms", last <= 200),
            Row(f"{what}: failed of {self.fine + self.failed} calls", str(self.failed), "0", self.failed == 0),
        ]


async def call_async(stop: threading.Event, tally: Tally) -> None:
    """Call until told to stop."""
    async with servicelink.connect("swapped") as client:
        while not stop.is_set():
            try:
                await client.get(PATH)
                tally.fine += 1
            except servicelink.ServiceError:
                tally.failed += 1
            await asyncio.sleep(0.002)


def call_sync(stop: threading.Event, tally: Tally) -> None:
    """Call until told to stop."""
    with sync.connect("swapped") as client:
        while not stop.wait(0.002):
            try:
                client.get(PATH)
                tally.fine += 1
            except servicelink.ServiceError:
                tally.failed += 1


def render(rows: list[Row], chosen: argparse.Namespace) -> str:
    """Render the rows as a Markdown page."""
    verdicts = {None: "", True: " ✓", False: " ✗"}
    lines = "\n".join(f"| {row.what} | {row.figure} | {row.target}{verdicts[row.holds]} |" for row in rows)
    machine = f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, Python {platform.python_version()}"
    return f"""# The SDK's REST client: what a call costs, and how soon a rotated key is used

Written by `make bench` on {machine}:
{chosen.rounds} rounds of {chosen.calls} calls by either of a pair, in turn, in one run; the server runs in a process of
its own. Compared is the caller's CPU time: medians, and the median of the rounds' ratios.

| what | figure | target |
|---|---|---|
{lines}
"""


async def measure(folder: Path, chosen: argparse.Namespace) -> list[Row]:
    """Measure everything."""
    with serving() as address:
        Binding(folder / "bench", address).swap()
        rows: list[Any] = await measure_async(address, chosen.calls, chosen.rounds)
        rows += await asyncio.to_thread(measure_sync, address, chosen.calls, chosen.rounds)
    for synchronous in (False, True):
        rows += await measure_swaps(folder, chosen.swaps, synchronous=synchronous)
        (folder / "swapped").rename(folder / f"done-{synchronous}")
    return rows


def main() -> int:
    """Measure, write both files, and answer 1 where a target is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=1600, help="how many calls either of a pair makes in a round")
    parser.add_argument("--rounds", type=int, default=9, help="how many rounds there are")
    parser.add_argument("--swaps", type=int, default=200, help="how often the key is swapped")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SERVICE_BINDING_ROOT"] = folder
        rows = asyncio.run(measure(Path(folder), chosen))
    figures = json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False)
    (PROOF / "sdk-client.json").write_text(f"{figures}\n")
    (PROOF / "sdk-client.md").write_text(render(rows, chosen))
    print(render(rows, chosen))
    return 0 if all(row.holds is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
