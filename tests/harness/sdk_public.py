"""All that users of the SDK meet by name."""

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import servicelink
from servicelink import sync, testing
from servicelink.grpc import testing as grpc_testing

MODULES = (servicelink, sync, testing, grpc_testing)


def named(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Answer what a module exports, by its whole name."""
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
