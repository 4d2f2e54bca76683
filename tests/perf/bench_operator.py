"""What links cost: API calls, CPU, time, memory; beside a bare client that makes the same writes on the same server.

Usage: bench_operator.py [--links N ...] [--large N] [--idle SECONDS] [--takeovers N]

Links are spread over 100 servers and 100 clients of one namespace. Calls are counted in the API server's audit log, for
the operator's ServiceAccount; those of Leases and dry runs are left out. Prints a table, and keeps it and the figures
under docs/proof. Seconds depend on the machine: what is promised are counts and ratios (the last column). The operator
is told to pace no rollouts and to serve more links of one namespace than it would, or that would be measured.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "harness"))

from bare import Writes, make_writes
from installation import USER, Operator, Product, install
from load import Body, burst, link, prepare, watching
from takeover import measure_takeover

from devcluster.processes import components
from devcluster.testing import api_calls, wait_until
from servicelink_operator.cluster.api import Api
from servicelink_operator.cluster.kinds import SECRET, SERVICE_LINK

PROOF = Path(__file__).parents[2] / "docs" / "proof"
_PACE = ("--rollout-pause=0s", "--rollouts-at-a-time=0")
FLAGS = (
    *("--leader-elect=false", *_PACE),
    *("--max-links-per-namespace=100000", "--max-rules-per-namespace=100000", "--max-bytes-per-namespace=100000000"),
)
# How links come: a title, the policy's mode, spec.binding.inject, and the most mutating calls per link.
WAYS = (
    ("nobody refusing", None, "None", 3.0),
    ("nobody refusing, with rollouts", None, "Patch", 4.0),
    ("enforced", "Enforce", "None", 5.0),
    ("enforced, with rollouts", "Enforce", "Patch", 6.0),
)


@dataclass(slots=True)
class Row:
    """One line of the table: what was measured, and what is promised of it ("" nothing, and then whether it holds)."""

    what: str
    figure: str
    target: str = ""
    holds: bool | None = None


@dataclass(frozen=True, slots=True)
class Twin:
    """What a bare client is to do as well; the operator reached `rate` links a second with `cpu` ms each."""

    what: str
    rate: float
    cpu: float
    writes: Writes


@dataclass(slots=True)
class Bench:
    """The installation that is measured, and the rows so far."""

    product: Product
    api: Api
    rows: list[Row] = field(default_factory=list)
    twins: list[Twin] = field(default_factory=list)

    def add(
        self, what: str, figure: float, unit: str = "", *, at_most: float | None = None, at_least: float | None = None
    ) -> None:
        """Add a row; a target is a highest or a lowest figure."""
        target, holds = "", None
        if at_most is not None:
            target, holds = f"≤ {at_most:g}", figure <= at_most
        if at_least is not None:
            target, holds = f"≥ {at_least:g}", figure >= at_least
        self.rows.append(Row(what, f"{figure:.3g}{unit}" if figure < 1000 else f"{figure:.0f}{unit}", target, holds))
        print(f"{what}: {self.rows[-1].figure} {target}", file=sys.stderr)


@dataclass(slots=True)
class Cpu:
    """CPU seconds of the operator, and of the API server and etcd together."""

    operator: psutil.Process
    servers: list[psutil.Process]

    def read(self) -> tuple[float, float]:
        """Answer both so far."""
        return _seconds(self.operator), sum(map(_seconds, self.servers))


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def measure_twin(bench: Bench, twin: Twin) -> None:
    """Let a bare client make as many writes of each kind as the operator did; no operator may be running."""
    namespace = f"bare-{len(bench.rows)}"
    seconds, used = await make_writes(bench.product.admin, bench.api, namespace, twin.writes)
    rate, cpu = twin.writes.links / seconds, used * 1000 / twin.writes.links
    bench.add(f"{twin.what}: a bare client's rate", rate, " links/s")
    bench.add(f"{twin.what}: share of the bare client's rate", twin.rate / rate, at_least=0.5)
    bench.add(f"{twin.what}: a bare client's CPU per link", cpu, " ms")
    bench.add(f"{twin.what}: operator's CPU per link, in bare clients'", twin.cpu / cpu)


async def measure_burst(bench: Bench, cpu: Cpu, count: int) -> None:
    """Measure the ways in which links come, and note what the bare client is to do."""
    for number, (title, mode, inject, most) in enumerate(WAYS):
        namespace = f"bench-{count}-{number}"
        await prepare(bench.product.admin, bench.api, namespace, mode)
        wait_until(lambda: calm(bench), deadline=60)
        before = cpu.read()
        with api_calls(bench.product.admin, USER) as calls:
            took = await burst(bench.api, namespace, count, inject)
            wait_until(lambda: calm(bench), deadline=60)
        used, served = (after - begun for after, begun in zip(cpu.read(), before, strict=True))
        what = f"{count} links, {title}"
        bench.add(f"{what}: mutating calls per link", calls.mutating / count, at_most=most)
        events = sum(number for (_, kind), number in calls.counted.items() if kind == "events")
        bench.add(f"{what}: Events", events, at_most=0)
        bench.add(f"{what}: operator's CPU per link", used / count * 1000, " ms")
        bench.add(f"{what}: API server's and etcd's CPU per link", served / count * 1000, " ms")
        bench.add(f"{what}: rate", count / took, " links/s")
        if mode is None:
            verifiers = calls.counted["patch", "configmaps"] + calls.counted["create", "configmaps"]
            statuses, workloads = (calls.counted["patch", kind] for kind in ("servicelinks/status", "deployments"))
            cost = used / count * 1000
            writes = Writes(count, round(statuses / count), verifiers, workloads)
            bench.twins.append(Twin(what, count / took, cost, writes))


def calm(bench: Bench) -> bool:
    """Answer whether the operator has written nothing for two seconds."""
    log = bench.product.admin.cluster.audit_log
    size = log.stat().st_size
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        with log.open() as lines:
            lines.seek(size)
            if any(f'"{USER}"' in line and '"verb":"patch"' in line and "dryRun=" not in line for line in lines):
                return False
        time.sleep(0.2)
    return True


async def measure_latency(bench: Bench, count: int = 200) -> None:
    """Measure one link at a time, on an idle system, until its Secret can be used."""
    namespace = "bench-latency"
    await prepare(bench.product.admin, bench.api, namespace, None)
    wait_until(lambda: calm(bench), deadline=60)
    came: dict[str, asyncio.Event] = {f"link-{number}": asyncio.Event() for number in range(count)}
    times = []

    def seen(body: Body) -> None:
        if body["metadata"]["name"] in came:
            came[body["metadata"]["name"]].set()

    async with watching(bench.api, SECRET, namespace, seen):
        for number in range(count):
            started = time.monotonic()
            await bench.api.create(SERVICE_LINK, namespace, link(number, "None"))
            await asyncio.wait_for(came[f"link-{number}"].wait(), 30)
            times.append((time.monotonic() - started) * 1000)
    bench.add("one link on an idle system, create to Secret: p50", statistics.median(times), " ms")
    bench.add("one link on an idle system, create to Secret: p99", statistics.quantiles(times, n=100)[98], " ms")


async def measure_restart(bench: Bench, operator: Operator, links: int) -> Operator:
    """Measure what a new process does when there is nothing to do."""
    operator.kill()
    with api_calls(bench.product.admin, USER) as calls:
        started = time.monotonic()
        reborn = bench.product.start(*FLAGS)
        await asyncio.to_thread(wait_until, lambda: "reconciling" in reborn.log.read_text(), 120)
        took = time.monotonic() - started
        process = psutil.Process(reborn.process.pid)
        await asyncio.to_thread(wait_until, lambda: settled(process), 120)
        used = _seconds(process)
        await asyncio.to_thread(wait_until, lambda: calm(bench), 60)
    writes = sum(
        n for (verb, kind), n in calls.counted.items() if verb in ("create", "patch", "delete") and "review" not in kind
    )
    bench.add(f"restart with {links} links: writes", writes, at_most=0)
    bench.add(f"restart with {links} links: until all are reconciled", took, " s")
    bench.add(f"restart with {links} links: CPU per link", used / links * 1000, " ms")
    bench.add(f"{links} links after a cold start: memory", process.memory_info().rss / 2**20, " MiB", at_most=200)
    return reborn


async def measure_takeovers(bench: Bench, times: int) -> None:
    """Measure how long a killed leader's work waits for the standby."""
    takeovers = [await asyncio.to_thread(measure_takeover, bench.product, *_PACE) for _ in range(times)]
    seconds = [takeover.seconds for takeover, _ in takeovers]
    bench.add(f"{times} killed leaders, until the standby writes: the longest", max(seconds), " s")
    bench.add(f"{times} killed leaders: most keys of one link", max(keys for _, keys in takeovers), at_most=1)
    bench.add(f"{times} killed leaders: their late writes", sum(len(one.late) for one, _ in takeovers), at_most=0)


def settled(process: psutil.Process) -> bool:
    """Answer whether a process is idle."""
    return process.cpu_percent(interval=1.0) < 5


async def measure_idle(bench: Bench, seconds: int) -> None:
    """Measure what is written while nothing happens."""
    with api_calls(bench.product.admin, USER) as calls:
        await asyncio.sleep(seconds)
    bench.add(f"{seconds} idle seconds: mutating calls", calls.mutating, at_most=0)


async def measure(product: Product, chosen: argparse.Namespace) -> list[Row]:
    """Measure everything."""
    bench = Bench(product, await Api.connect(str(product.admin.kubeconfig), timeout=60))
    operator = product.start(*FLAGS)
    wait_until(operator.is_ready)
    found = components(product.admin.cluster.folder)
    servers = [found["kube-apiserver"], found["etcd"]]
    links = 0
    for count in chosen.links:
        await measure_burst(bench, Cpu(psutil.Process(operator.process.pid), servers), count)
        links += len(WAYS) * count
    await measure_latency(bench)
    links += 200
    await measure_idle(bench, chosen.idle)
    if chosen.large:
        await prepare(bench.product.admin, bench.api, "bench-large", None)
        count = chosen.large - links
        took = await burst(bench.api, "bench-large", count, "None")
        bench.add(f"{count} links: rate", count / took, " links/s")
        if bench.twins:
            share = count / took / bench.twins[0].rate
            bench.add(f"{count} links: share of the rate of {bench.twins[0].writes.links}", share, at_least=0.8)
        links += count
        memory = psutil.Process(operator.process.pid).memory_info().rss / 2**20
        bench.add(f"{links} links, live: memory", memory, " MiB", at_most=200)
    reborn = await measure_restart(bench, operator, links)
    reborn.kill()
    await measure_takeovers(bench, chosen.takeovers)
    for twin in bench.twins:
        await measure_twin(bench, twin)
    await bench.api.close()
    return bench.rows


def render(rows: list[Row]) -> str:
    """Render the rows as a Markdown page."""
    verdicts = {None: "", True: " ✓", False: " ✗"}
    lines = "\n".join(f"| {row.what} | {row.figure} | {row.target}{verdicts[row.holds]} |" for row in rows)
    return f"""# The operator: what links cost

Written by `make bench` on {os.cpu_count()} cores, Linux {platform.release().split("-")[0]}, which API server, etcd,
operator and the client that makes the load share.

| what | figure | target |
|---|---|---|
{lines}
"""


def main() -> int:
    """Measure, write both files, and answer 1 where a target is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--links", type=int, nargs="*", default=[300, 1000], help="how many links come at once")
    parser.add_argument(
        "--large", type=int, default=0, help="up to how many links there are for memory and a cold start"
    )
    parser.add_argument("--idle", type=int, default=300, help="for how many seconds nothing happens")
    parser.add_argument("--takeovers", type=int, default=3, help="how often a leader is killed")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, install(Path(folder)) as product:
        rows = asyncio.run(measure(product, chosen))
    (PROOF / "operator.json").write_text(json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False) + "\n")
    (PROOF / "operator.md").write_text(render(rows))
    print(render(rows))
    return 0 if all(row.holds is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
