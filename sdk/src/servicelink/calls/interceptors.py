"""What an interceptor must be, said to whoever passes something else: when a client is made, as far as it is known."""

from collections.abc import Iterable, Mapping, Sequence
from inspect import isasyncgenfunction
from typing import Any

from servicelink.calls.call import AsyncInterceptor, Interceptor


def require_interceptors(given: Any, *, asynchronous: bool) -> Sequence[Interceptor | AsyncInterceptor]:
    """Answer the interceptors that a client is made with; raises TypeError for what are none."""
    if not isinstance(given, Iterable):
        raise TypeError(f"interceptors is {name_of(given)} and no list; write interceptors=[...]")
    found = tuple(given)
    for one in found:
        if isinstance(one, type):
            raise TypeError(f"interceptors holds the class {one.__qualname__}; pass an instance: {one.__name__}(...)")
        if not callable(getattr(one, "intercept", None)):
            raise TypeError(f"interceptors holds {name_of(one)}, which has no method intercept(self, call)")
        if not asynchronous and isasyncgenfunction(one.intercept):
            problem = f"{name_of(one)}.intercept is asynchronous: asynchronous interceptors need an asynchronous client"
            raise TypeError(f"{problem}, and a synchronous one `def intercept`")
    return found


def name_of(interceptor: Any) -> str:
    """Answer what its author calls it."""
    return type(interceptor).__qualname__


def not_a_generator(interceptor: Any, returned: Any) -> TypeError:
    """Answer the error of an interceptor whose method yields nowhere."""
    # A coroutine would complain that nobody awaited it.
    getattr(returned, "close", lambda: None)()
    problem = f"{name_of(interceptor)}.intercept() returned {type(returned).__name__} and did not yield"
    return TypeError(f"{problem}; it yields once, where the attempt is made: outcome = yield")


def require_texts(interceptor: Any, metadata: Mapping[Any, Any]) -> None:
    """Raise TypeError for what an interceptor left in the metadata and that nothing can send."""
    for name, value in metadata.items():
        if not isinstance(name, str) or not isinstance(value, str | bytes):
            problem = f"{name_of(interceptor)} set call.metadata[{name!r}] to a value of type {type(value).__name__}"
            raise TypeError(f"{problem}; names are str, and values str (bytes under a gRPC name that ends in -bin)")
