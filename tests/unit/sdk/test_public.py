"""What users meet is told and can be named: every public class, method and type of the SDK."""

import contextlib
import typing
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from sdk_public import PUBLIC, methods

from servicelink import testing
from servicelink.calls.breaker import Permit
from servicelink.grpc import aio_channel, client, sync_calls, sync_channel
from servicelink.grpc import testing as grpc_testing
from servicelink.rest import client as rest_client
from servicelink.rest import sync_client

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


def told(one: Any) -> bool:
    """Say whether somebody wrote a docstring; a dataclass without one has its signature for one."""
    return bool(one.__doc__) and not one.__doc__.startswith(f"{one.__name__}(")


def test_every_public_class_function_method_and_property_says_what_it_is() -> None:
    silent = [name for name, one in PUBLIC.items() if not told(one)]
    silent += [name + more for name, one in PUBLIC.items() for more, function in methods(one) if not told(function)]

    assert silent == []


def test_testing_offers_its_names_for_completion_and_none_that_it_imports() -> None:
    for module in (testing, grpc_testing):
        assert dir(module) == sorted(module.__all__)


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
