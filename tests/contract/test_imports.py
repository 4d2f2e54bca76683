"""What each layer may import, read off its source: import-linter checks the arrows between layers, this the rest."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Pure data and computation. Anything not listed needs a reason to be added here.
PURE = {
    *("__future__", "base64", "collections", "dataclasses", "enum", "functools", "hashlib", "hmac", "ipaddress"),
    *("itertools", "json", "math", "operator", "re", "string", "typing", "zlib"),
}
# Dates are data; the clock is not to be asked (the test below forbids its methods).
CORE = PURE | {"datetime", "servicelink_contract", "servicelink_core"}


def sources(layer: str) -> list[Path]:
    return sorted((ROOT / layer / "src").rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Answer the top-level modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("path", sources("contract"), ids=lambda path: path.stem)
def test_the_contract_imports_the_standard_library_only(path: Path) -> None:
    assert set(imported(path)) <= {*sys.stdlib_module_names, "servicelink_contract"}


@pytest.mark.parametrize("path", sources("core"), ids=lambda path: path.stem)
def test_the_core_imports_pure_modules_only(path: Path) -> None:
    assert set(imported(path)) <= CORE


@pytest.mark.parametrize("path", sources("core"), ids=lambda path: path.stem)
def test_the_core_neither_opens_files_nor_asks_the_clock(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}

    assert not names & {"open", "print", "input", "exec", "eval", "__import__"}
    assert not attributes & {"now", "utcnow", "today"}
