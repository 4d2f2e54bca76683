"""What users meet is told and can be named: every public class, method and type of the SDK."""

import ast
import contextlib
import inspect
import textwrap
import typing
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import servicelink
from servicelink import sync, testing
from servicelink.calls.breaker import Permit
from servicelink.grpc import aio_channel, client, sync_calls, sync_channel
from servicelink.grpc import testing as grpc_testing
from servicelink.rest import client as rest_client
from servicelink.rest import sync_client

MODULES = (servicelink, sync, testing, grpc_testing)
# Used as what they are by their bases, httpx's transports, grpcio's channels, iterators; nobody has to name them.
BY_THEIR_BASES = {
    Permit,
    aio_channel.LinkChannel,
    client.DictionaryStream,
    rest_client.LinkTransport,
    sync_calls.StreamCall,
    sync_channel.LinkChannel,
    sync_client.LinkTransport,
}


# What the parts of the sandbox ask of each other.
WITHIN = {"servicelink.testing.LinkSandbox.issue", "servicelink.testing.SandboxLink.entry"}


def named(module: ModuleType) -> Iterator[tuple[str, Any]]:
    for name in module.__all__:
        yield f"{module.__name__}.{name}", getattr(module, name)


PUBLIC = {name: one for module in MODULES for name, one in named(module)}


def methods(one: Any) -> Iterator[tuple[str, Any]]:
    """Answer the public functions and properties of a class that are ours, by name; of a function itself."""
    if not isinstance(one, type):
        yield "", one
        return
    for name in (name for name in dir(one) if not name.startswith("_")):
        home = next((base for base in one.__mro__ if name in vars(base)), None)
        if home is not None and home.__module__.startswith("servicelink"):
            member = vars(home)[name]
            function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            if inspect.isfunction(function):
                yield f".{name}", function


def told(one: Any) -> bool:
    """Say whether somebody wrote a docstring; a dataclass without one has its signature for one."""
    return bool(one.__doc__) and not one.__doc__.startswith(f"{one.__name__}(")


def test_every_public_class_function_method_and_property_says_what_it_is() -> None:
    silent = [name for name, one in PUBLIC.items() if not told(one)]
    silent += [name + more for name, one in PUBLIC.items() for more, function in methods(one) if not told(function)]

    assert silent == []


def classes(hint: Any) -> Iterator[type]:
    """Answer the classes of ours that a type names, at any depth."""
    for part in hint if isinstance(hint, list | tuple) else typing.get_args(hint):
        yield from classes(part)
    found = typing.get_origin(hint) or hint
    if isinstance(found, type) and found.__module__.startswith("servicelink"):
        yield found


def hints(function: Any) -> Iterator[Any]:
    """Answer the types of a signature, but for those that only checkers load, of other libraries."""
    names = {name.rpartition(".")[2]: one for name, one in PUBLIC.items()}
    for name, annotation in function.__annotations__.items():
        alone = SimpleNamespace(__annotations__={name: annotation})
        with contextlib.suppress(NameError, TypeError):
            yield from typing.get_type_hints(alone, function.__globals__, names).values()


def test_whatever_signatures_name_users_can_name() -> None:
    unnamed: dict[type, str] = {}
    for name, one in PUBLIC.items():
        for more, function in methods(one) if callable(one) else ():
            for found in classes(list(hints(function))) if name + more not in WITHIN else ():
                unnamed.setdefault(found, name + more)
    for public in (*PUBLIC.values(), *BY_THEIR_BASES):
        unnamed.pop(public, None)

    assert unnamed == {}


def examples() -> Iterator[Any]:
    """Answer the indented lines of public docstrings, which are code."""
    for name, one in PUBLIC.items():
        for more, function in [("", one), *methods(one)]:
            blocks = inspect.cleandoc(function.__doc__ or "").split("\n\n")
            for number, block in enumerate(blocks):
                if block.startswith("    "):
                    yield pytest.param(textwrap.dedent(block), id=f"{name}{more}-{number}")


@pytest.mark.parametrize("example", list(examples()))
def test_the_example_of_a_docstring_is_code_that_uses_names_which_are_there(example: str) -> None:
    tree = ast.parse(f"async def example():\n{textwrap.indent(example, '    ')}")
    places = {"servicelink": servicelink, "sync": sync}
    used = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]

    assert [one.attr for one in used if _is_unknown(places.get(one.value.id), one.attr)] == []  # type: ignore[attr-defined]


def _is_unknown(module: ModuleType | None, name: str) -> bool:
    return module is not None and name not in {*module.__all__, "sync", "testing"}
