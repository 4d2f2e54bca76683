"""Importing the SDK costs nothing, and its list of names is complete."""

import ast
import subprocess
import sys
from pathlib import Path

import servicelink

HEAVY = ("asyncio", "ssl", "httpx", "aiohttp", "grpc", "cryptography", "graphql", "opentelemetry")


def _loaded_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_importing_it_loads_nothing_heavy() -> None:
    assert _loaded_after("import servicelink").isdisjoint(HEAVY)


def test_verifying_needs_nothing_heavy() -> None:
    assert _loaded_after("import servicelink.verify").isdisjoint(HEAVY)


def test_every_listed_name_is_there_and_every_import_is_listed() -> None:
    source = Path(servicelink.__file__).read_text()
    imported = {
        alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("servicelink")
        for alias in node.names
    }

    assert imported == set(servicelink.__all__)
    assert all(getattr(servicelink, name).__name__ == name for name in servicelink.__all__)
    assert set(servicelink.__all__) <= set(dir(servicelink))


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(servicelink, "nonsense")
