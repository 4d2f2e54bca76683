"""What must hold of the repository itself."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_no_top_level_folder_is_a_package() -> None:
    """A package `operator/` at the root would stand in for the standard library's."""
    assert not list(ROOT.glob("*/__init__.py"))


def test_the_root_leaves_the_standard_library_alone() -> None:
    """`python -m` puts the root first on the path; `operator` is still the standard library's there."""
    show = "import operator; print(operator.__file__)"
    done = subprocess.run([sys.executable, "-c", show], cwd=ROOT, capture_output=True, text=True, check=True)

    assert Path(done.stdout.strip()).name == "operator.py"
    assert not done.stdout.startswith(str(ROOT / "operator"))


def test_pytest_runs_from_the_root() -> None:
    """`python -m pytest` from the root imports everything it needs."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--version"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


def test_every_module_stays_within_400_lines() -> None:
    """A file that grows past that is two files."""
    sources = [path for path in ROOT.glob("*/src/**/*.py") if len(path.read_text().splitlines()) > 400]

    assert not sources
