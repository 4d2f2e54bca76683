"""The types of the public API, as strict checkers see them in users' code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RIGHT = [Path(__file__).with_name(name) for name in ("rest.py", "grpc_calls.py")]
WRONG = [Path(__file__).with_name(name) for name in ("wrong.py", "wrong_grpc.py")]


def run(*command: str) -> str:
    """Run a checker and answer what it said."""
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False, cwd=ROOT)
    return done.stdout


def found_by_mypy(path: Path, folder: Path) -> set[int]:
    """Answer the lines of a file in which mypy finds errors."""
    config = folder / "mypy.ini"
    config.write_text("[mypy]\nstrict = true\n")
    said = run("mypy", "--config-file", str(config), "--output=json", "--cache-dir", str(folder), str(path))
    errors = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return {error["line"] for error in errors if error["severity"] == "error"}


def found_by_pyright(path: Path, folder: Path) -> set[int]:
    """Answer the lines of a file in which pyright finds errors, in strict mode."""
    config = folder / "pyrightconfig.json"
    config.write_text(json.dumps({"include": [str(path)], "typeCheckingMode": "strict", "pythonVersion": "3.11"}))
    said = json.loads(run("basedpyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(config)))
    assert said["summary"]["filesAnalyzed"] == 1
    return {error["range"]["start"]["line"] + 1 for error in said["generalDiagnostics"] if error["severity"] == "error"}


def mistakes(path: Path) -> set[int]:
    return {number for number, line in enumerate(path.read_text().splitlines(), 1) if "# error:" in line}


@pytest.mark.parametrize("path", RIGHT, ids=lambda path: path.stem)
def test_checkers_find_nothing_in_what_is_right(path: Path, tmp_path: Path) -> None:
    assert found_by_mypy(path, tmp_path) == set()
    assert found_by_pyright(path, tmp_path) == set()


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_checkers_find_all_that_is_wrong(path: Path, tmp_path: Path) -> None:
    assert found_by_mypy(path, tmp_path) == mistakes(path)
    assert found_by_pyright(path, tmp_path) == mistakes(path)
