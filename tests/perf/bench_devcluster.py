"""Time the development cluster's start and end; prints a table and keeps it under docs/proof.

Usage: bench_devcluster.py [ROUNDS]    5 unless given; programs and images must be built already

A start counts until the command has answered: with a node that is after the first Pods, those of DNS, are available.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

PROOF = Path(__file__).parents[2] / "docs" / "proof"
NAME = "bench"
COMMANDS = {
    "control plane, up": ("up",),
    "control plane, down": ("down",),
    "node, up": ("up", "--node"),
    "node, down": ("down",),
}


def seconds(*command: str) -> float:
    """Run one command of the tool and answer how long it took (wall clock)."""
    started = time.monotonic()
    words = [sys.executable, "-m", "devcluster", *command, f"--name={NAME}"]
    subprocess.run(words, check=True, capture_output=True)
    return time.monotonic() - started


def render(figures: dict[str, list[float]], rounds: int) -> str:
    """Render the figures as a Markdown page."""
    rows = "\n".join(
        f"| {step} | {min(times):.1f} | {statistics.median(times):.1f} | {max(times):.1f} |"
        for step, times in figures.items()
    )
    return f"""# Development cluster: start and end

Written by `make bench`: {rounds} rounds on {os.cpu_count()} cores, Linux {platform.release().split("-")[0]}, everything
built; seconds of wall clock.

| step | min | median | max |
|---|---|---|---|
{rows}
"""


def main(rounds: int) -> None:
    """Measure and write both files."""
    measured = [{step: seconds(*command) for step, command in COMMANDS.items()} for _ in range(rounds)]
    figures = {step: [round(one[step], 2) for one in measured] for step in COMMANDS}
    page = render(figures, rounds)
    (PROOF / "devcluster.json").write_text(json.dumps(figures, indent=2) + "\n")
    (PROOF / "devcluster.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
