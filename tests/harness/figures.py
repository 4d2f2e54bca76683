"""The figures of a proof, as the tests' run makes them; kept under docs/proof where `--proof` says so."""

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path

PROOF = Path(__file__).parents[2] / "docs" / "proof"


@dataclass(frozen=True, slots=True)
class Figure:
    """What one test did: `what` under which `traffic`, how many `changes` and calls, and how many of those failed.

    `seconds` is how long it took, `rate` how many calls there were in a second.
    """

    what: str
    traffic: str
    changes: int
    calls: int
    failed: int
    seconds: float

    @property
    def rate(self) -> float:
        """Calls in a second."""
        return self.calls / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class Figures:
    """The figures of one run."""

    rows: list[Figure] = field(default_factory=list)

    def add(self, what: str, traffic: str, *, changes: int, calls: int, failed: int, seconds: float) -> None:
        """Note what a test did."""
        self.rows.append(Figure(what, traffic, changes, calls, failed, seconds))

    def write(self, name: str, folder: Path = PROOF) -> None:
        """Keep them as a page and as JSON; what an earlier run kept of other tests stays."""
        kept = folder / f"{name}.json"
        before = [Figure(**row) for row in json.loads(kept.read_text())] if kept.exists() else []
        newest = {(row.what, row.traffic): row for row in (*before, *self.rows)}
        rows = [newest[key] for key in sorted(newest)]
        kept.write_text(json.dumps([asdict(row) | {"seconds": round(row.seconds, 1)} for row in rows], indent=2) + "\n")
        (folder / f"{name}.md").write_text(render(rows))


def render(rows: list[Figure]) -> str:
    """Answer the page."""
    lines = [
        f"| {row.what} | {row.traffic} | {row.changes:,} | {row.calls:,} | {row.failed} | {row.rate:,.0f}/s |"
        for row in rows
    ]
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    return "\n".join(
        [
            "# Rotation under traffic",
            "",
            f"Written by `make proof` on {machine}.",
            "Clients, servers and files are real, and calls are not retried. Changes come as quickly as the SDK",
            "promises to see them: files are looked at on use, at most every 50 ms. Readers count reads as calls.",
            "",
            "| what changes | under | changes | calls | failed | pace of calls |",
            "|---|---|---|---|---|---|",
            *lines,
            "",
        ]
    )
