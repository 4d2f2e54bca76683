"""What the tests of the command lines share."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from devcluster.build import Programs
from devcluster.progress import Progress

# What several kinds of tests and the benchmarks share.
sys.path.insert(0, str(Path(__file__).parent / "harness"))

from charts import Helm
from figures import Figures


def pytest_addoption(parser: pytest.Parser) -> None:
    """How much the tests sample of what a proof does in full."""
    faults = parser.getgroup("faults")
    faults.addoption("--kills", type=int, default=12, help="how often the operator is killed")
    faults.addoption("--outage", type=float, default=30, help="for how many seconds the API server is away")
    faults.addoption("--rotations", type=int, default=30, help="how often keys and certificates change under traffic")
    faults.addoption("--seed", type=int, default=1, help="from which the moments of faults are drawn")
    faults.addoption("--rate", type=float, default=100, help="how many calls begin in a second meanwhile (proof: 500)")
    faults.addoption("--bundles", type=int, default=3, help="how many generations of trust bundles (proof: 100)")
    faults.addoption("--stream", type=float, default=4, help="for how many seconds a stream stays open (proof: 120)")
    faults.addoption("--proof", default="", help="under which name figures are kept in docs/proof")
    swaps = parser.getgroup("swaps")
    swaps.addoption("--swaps", type=int, default=300, help="how often folders are swapped under readers (proof: 10000)")


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    """Where tests of a proof note what they did; `--proof=NAME` keeps it as docs/proof/NAME.md and .json."""
    made = Figures()
    yield made
    if name := request.config.getoption("--proof"):
        made.write(name)


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended and what it said, on standard output and error."""

    code: int
    out: str
    err: str


@pytest.fixture
def devcluster() -> Callable[..., Said]:
    """`devcluster(*arguments, under=(), **environment)` runs the tool; `under` are words to run it under."""

    def run(*arguments: str, under: tuple[str, ...] = (), **environment: str) -> Said:
        words = [*under, sys.executable, "-m", "devcluster", *arguments]
        env = {**os.environ, **environment}
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=env, stdin=subprocess.DEVNULL)
        return Said(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def tool() -> Callable[[str], Path]:
    """`tool(name)` answers the path of a program, which is built if need be."""
    return Programs(None, Progress.on_stderr()).find


@pytest.fixture(scope="session")
def helm4(tool: Callable[[str], Path]) -> Helm:
    """The newest helm, without a cluster."""
    return Helm(tool("helm"))


@pytest.fixture
def cluster_name(devcluster: Callable[..., Said]) -> Iterator[str]:
    """A name for a cluster of this test's own, which is taken down after it."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    yield name
    devcluster("down", "--name", name)
