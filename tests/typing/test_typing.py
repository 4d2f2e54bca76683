"""The types of the public API, as strict checkers see them in users' code."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import blocks

ROOT = Path(__file__).parents[2]
PAGES = (*sorted((ROOT / "docs" / "sdk").glob("*.md")), ROOT / "sdk" / "README.md")
NAMED = re.compile(r"# (\w+\.py)\n")
PAGES_OF_PROGRAMS = [page for page in PAGES if any(map(NAMED.match, blocks(page)))]
# What pages leave out to be short.
UNANNOTATED = """
allow_untyped_defs = true
allow_incomplete_defs = true
allow_untyped_calls = true
allow_subclassing_any = true

[mypy-accounts_pb2,accounts_pb2_grpc]
# Made of the page's .proto.
ignore_missing_imports = true
"""
WRONG = tuple(sorted(Path(__file__).parent.glob("wrong*.py")))
RIGHT = tuple(sorted({*Path(__file__).parent.glob("*.py")} - {Path(__file__), *WRONG}))
Found = set[tuple[str, int]]


def run(*command: str) -> str:
    """Run a checker and answer what it said."""
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False, cwd=ROOT)
    return done.stdout


def found_by_mypy(folder: Path, *paths: Path, allowed: str = "") -> Found:
    """Answer the files and lines in which mypy finds errors."""
    config = folder / "mypy.ini"
    config.write_text(f"[mypy]\nstrict = true\n{allowed}")
    files = map(str, paths)
    said = run(
        "mypy", "--config-file", str(config), "--output=json", "--cache-dir", str(folder.parent / "mypy"), *files
    )
    errors = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return {(Path(error["file"]).name, error["line"]) for error in errors if error["severity"] == "error"}


def found_by_pyright(folder: Path, *paths: Path) -> Found:
    """Answer the files and lines in which pyright finds errors, in strict mode."""
    config = folder / "pyrightconfig.json"
    files = [str(path) for path in paths]
    config.write_text(json.dumps({"include": files, "typeCheckingMode": "strict", "pythonVersion": "3.11"}))
    said = json.loads(run("basedpyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(config)))
    assert said["summary"]["filesAnalyzed"] == len(paths)
    errors = [error for error in said["generalDiagnostics"] if error["severity"] == "error"]
    return {(Path(error["file"]).name, error["range"]["start"]["line"] + 1) for error in errors}


def mistakes() -> Found:
    lines = [(path.name, *line) for path in WRONG for line in enumerate(path.read_text().splitlines(), 1)]
    return {(name, number) for name, number, line in lines if "# error:" in line}


def test_mypy_finds_nothing_in_what_is_right_and_all_that_is_wrong(tmp_path: Path) -> None:
    assert found_by_mypy(tmp_path, *RIGHT) == set()
    assert found_by_mypy(tmp_path, *WRONG) == mistakes()


def test_pyright_finds_nothing_in_what_is_right_and_all_that_is_wrong(tmp_path: Path) -> None:
    assert found_by_pyright(tmp_path, *RIGHT) == set()
    assert found_by_pyright(tmp_path, *WRONG) == mistakes()


@pytest.mark.parametrize("page", PAGES_OF_PROGRAMS, ids=lambda page: page.name)
def test_mypy_finds_nothing_in_the_programs_of_a_page(page: Path, tmp_path: Path) -> None:
    named = {found[1]: text for text in blocks(page) if (found := NAMED.match(text))}
    for name, text in named.items():
        (tmp_path / name).write_text(text)

    assert named
    assert found_by_mypy(tmp_path, *map(tmp_path.joinpath, named), allowed=UNANNOTATED) == set()
