"""Importing the SDK costs nothing, and its list of names is complete."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

import servicelink
from servicelink import sync

HEAVY = ("asyncio", "ssl", "httpx", "aiohttp", "grpc", "cryptography", "graphql", "opentelemetry")


def _modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def _loaded_after(statement: str) -> set[str]:
    return {name.partition(".")[0] for name in _modules_after(statement)}


def test_importing_it_loads_nothing_heavy() -> None:
    began = time.perf_counter()
    loaded = _loaded_after("import servicelink")
    whole = time.perf_counter() - began
    began = time.perf_counter()
    _loaded_after("pass")
    alone = time.perf_counter() - began
    print(f"\nimport servicelink: {(whole - alone) * 1000:.0f} ms")  # noqa: T201 (a figure)

    assert loaded.isdisjoint(HEAVY)


def test_the_pytest_plugin_loads_nothing_until_a_test_asks_for_it() -> None:
    more = _modules_after("import pytest, servicelink.pytest_plugin") - _modules_after("import pytest")

    assert more == {"servicelink", "servicelink.pytest_plugin"}


def test_a_system_that_never_forks_can_import_it() -> None:
    assert "servicelink.forks" in _modules_after("import os; del os.register_at_fork; import servicelink.forks")


def test_calling_synchronously_needs_no_asynchronous_engine() -> None:
    assert _loaded_after("from servicelink import sync; sync.connect('x')").isdisjoint({"aiohttp", "opentelemetry"})


def test_the_public_names_of_synchronous_programs_are_there() -> None:
    assert {name: getattr(sync, name).__module__.startswith("servicelink.") for name in sync.__all__} == dict.fromkeys(
        sync.__all__, True
    )
    assert set(sync.__all__) <= set(dir(sync))
    assert not hasattr(sync, "nonsense")


def test_every_public_name_says_what_it_is() -> None:
    names = [getattr(servicelink, name) for name in servicelink.__all__] + [
        getattr(sync, name) for name in sync.__all__
    ]

    assert [one for one in names if not one.__doc__] == []


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


@pytest.mark.parametrize("library", ["grpc", "grpc_health", "grpc_reflection", "uvicorn"])
def test_help_works_where_a_library_of_an_extra_is_missing(library: str) -> None:
    # As where another package has brought grpcio, and nobody the rest of `servicelink[grpc]`.
    missing = f"import sys; sys.modules[{library!r}] = None"
    documented = (
        "import pydoc, servicelink, servicelink.sync as sync; pydoc.render_doc(servicelink), pydoc.render_doc(sync)"
    )

    assert "servicelink.asgi" in _modules_after(f"{missing}; {documented}")


@pytest.mark.parametrize("library", ["grpc_health", "grpc_reflection"])
def test_a_name_that_needs_more_than_is_installed_says_what_to_install(library: str) -> None:
    code = f"import sys; sys.modules[{library!r}] = None; import servicelink; servicelink.grpc_server"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "servicelink.grpc_server needs more than is installed: pip install 'servicelink[grpc]'" in done.stderr
