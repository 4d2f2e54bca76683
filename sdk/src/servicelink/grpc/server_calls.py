"""Calls that are let through: the handlers of an application, told who calls and shown no credential.

grpcio runs handlers in five ways, and tells them apart by what kind of function they are: coroutines, asynchronous
generators, and functions and generators in threads, which do not inherit the context; and, in servers of threads,
functions that keep none while they wait. Each has its twin here.
"""

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, suppress
from contextvars import Context, copy_context
from functools import partial
from types import FunctionType, MethodType
from typing import Any, NoReturn, TypeAlias

import grpc
import grpc.aio

from servicelink import context
from servicelink.context import Incoming
from servicelink.grpc.metadata import MetadataPair
from servicelink.grpc.server_door import Arrival, render_rpc_refusal
from servicelink.verify import Refused

# In quotes: it is generic for checkers only.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour = Callable[..., Any]
_END = object()
# Seconds. A server of threads says that a call without a deadline has until the end of time.
_FOREVER = 1e9
# In the words of grpcio.
_ABSENT = grpc.StatusCode.UNIMPLEMENTED, "Method not found!"
_MALFORMED = grpc.StatusCode.INTERNAL, "Exception deserializing request!"
# By whether requests and answers are streams.
_Shape = tuple[bool, bool]
_KINDS: dict[_Shape, str] = {
    (False, False): "unary_unary",
    (False, True): "unary_stream",
    (True, False): "stream_unary",
    (True, True): "stream_stream",
}


class ShownContext:
    """A call's context as its handler sees it: without the credential, else as grpcio made it.

    It takes notes of a handler's own, as contexts of threads do.
    """

    __slots__ = ("__dict__", "_context", "_kept")

    def __init__(self, context: Any, kept: tuple[MetadataPair, ...]) -> None:
        self._context = context
        self._kept = kept

    def invocation_metadata(self) -> tuple[MetadataPair, ...]:
        """Answer what the caller sent, but for what is between the link's two ends."""
        return self._kept

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


# For handlers that ask what their context is.
grpc.ServicerContext.register(ShownContext)
grpc.aio.ServicerContext.register(ShownContext)


class Serving(grpc.RpcMethodHandler):  # type: ignore[type-arg] # generic for checkers only
    """One call on its way to its handler, whose place it takes; each method stands in for a kind of function.

    What is not decided yet is served as a stream of bytes, of which the first is taken after the decision: no message
    of a stranger's is read, and none is waited for. What runs on after the answer calls in its own time.
    """

    __slots__ = ("_arrival", "_behaviour", "_deserialize", "request_deserializer", "response_serializer")

    def __init__(self, arrival: Arrival, behaviour: Behaviour, handler: Handler) -> None:
        self._arrival = arrival
        self._behaviour = behaviour
        # Streams are read by the handler, and with that after the decision.
        is_late = not arrival.is_decided and not handler.request_streaming
        self._deserialize = handler.request_deserializer or _as_it_is if is_late else None
        self.request_deserializer = None if is_late else handler.request_deserializer
        self.response_serializer = handler.response_serializer

    async def answer(self, request: Any, rpc: Any) -> Any:
        """Serve by a coroutine. What comes in stays known in its task, which is this call's alone."""
        arrival = self._arrival
        if not arrival.is_decided:
            request = await self._admit(request, rpc)
        came = arrival.incoming(rpc.time_remaining())
        context.incoming.set(came)
        try:
            return await self._behaviour(request, ShownContext(rpc, arrival.shown))
        finally:
            context.end_deadline(came)

    async def stream(self, request: Any, rpc: Any) -> AsyncIterator[Any]:
        """Serve by an asynchronous generator; the task as above."""
        arrival = self._arrival
        if not arrival.is_decided:
            request = await self._admit(request, rpc)
        came = arrival.incoming(rpc.time_remaining())
        context.incoming.set(came)
        try:
            async with aclosing(self._behaviour(request, ShownContext(rpc, arrival.shown))) as answers:
                async for message in answers:
                    yield message
        finally:
            context.end_deadline(came)

    def answer_in_thread(self, request: Any, rpc: Any) -> Any:
        """Serve by a function."""
        if not self._arrival.is_decided:
            request = self._admit_in_thread(request, rpc)
        entered, came = self._enter(rpc)
        try:
            return entered.run(self._behaviour, request, ShownContext(rpc, self._arrival.shown))
        finally:
            context.end_deadline(came)

    def stream_in_thread(self, request: Any, rpc: Any) -> Iterator[Any]:
        """Serve by a function that answers an iterator; each answer may be made in another thread."""
        if not self._arrival.is_decided:
            request = self._admit_in_thread(request, rpc)
        entered, came = self._enter(rpc)
        answers: Any = None
        try:
            answers = iter(entered.run(self._behaviour, request, ShownContext(rpc, self._arrival.shown)))
            while (message := entered.run(next, answers, _END)) is not _END:
                yield message
        finally:
            with suppress(AttributeError):
                entered.run(answers.close)
            context.end_deadline(came)

    def stream_by_callback(self, request: Any, rpc: Any, send: Callable[[Any], None]) -> None:
        """Serve by a function that hands on its answers when there are some, from any thread, and None at the end."""
        if not self._arrival.is_decided:
            request = self._admit_in_thread(request, rpc)
        entered, came = self._enter(rpc)
        end = partial(context.end_deadline, came)
        if not rpc.add_callback(end):
            end()
        entered.run(self._behaviour, request, ShownContext(rpc, self._arrival.shown), send)

    def _enter(self, rpc: Any) -> tuple[Context, Incoming]:
        """Answer the context in which the call is known, and what is known of it."""
        entered = copy_context()
        left: float | None = rpc.time_remaining()
        came = self._arrival.incoming(None if left is None or left > _FOREVER else left)
        entered.run(context.incoming.set, came)
        return entered, came

    async def _admit(self, request: Any, rpc: Any) -> Any:
        """Decide by the certificate, and answer what is asked; raises where the call is refused."""
        refused = self._arrival.judge_peer(rpc.auth_context())
        if refused is not None:
            await rpc.abort(*render_rpc_refusal(refused))
        if self._deserialize is None:
            return request
        message = await rpc.read()
        if message is grpc.aio.EOF:
            await rpc.abort(*self._no_message())
        return self._deserialize(message)

    def _admit_in_thread(self, request: Any, rpc: Any) -> Any:
        """As `_admit`."""
        refused = self._arrival.judge_peer(rpc.auth_context())
        if refused is not None:
            abort(rpc, refused)
        if self._deserialize is None:
            return request
        message: Any = next(request, None)
        if message is None:
            rpc.abort(*self._no_message())
        try:
            return self._deserialize(message)
        except Exception:  # noqa: BLE001 - whatever an application's own codec raises
            rpc.abort(*_MALFORMED)

    def _no_message(self) -> tuple[grpc.StatusCode, str]:
        # In the words of grpcio.
        return grpc.StatusCode.UNIMPLEMENTED, f'"{self._arrival.path}" requires exactly one request message.'


def _as_it_is(message: bytes) -> bytes:
    return message


def abort(rpc: Any, refused: Refused) -> NoReturn:
    """Refuse a call that is served in a thread: raises what grpcio takes for it."""
    status, details, trailing = render_rpc_refusal(refused)
    rpc.set_trailing_metadata(trailing)
    rpc.abort(status, details)
    raise AssertionError("abort() raises")


def _name_for(behaviour: Behaviour) -> str | None:
    """Answer which method stands in for such a function, as grpcio tells them apart; None for those of threads.

    Nothing is kept of functions, since interceptors make new ones for each call, which hold what is its alone.
    """
    function = behaviour.__func__ if type(behaviour) is MethodType else behaviour
    if type(function) is FunctionType:
        # To have it told takes longer than all the rest.
        flags = function.__code__.co_flags
        if flags & inspect.CO_COROUTINE:
            return "answer"
        if flags & inspect.CO_ASYNC_GENERATOR:
            return "stream"
    if inspect.iscoroutinefunction(behaviour):
        return "answer"
    return "stream" if inspect.isasyncgenfunction(behaviour) else None


def _make_class(kind: str, name: str) -> type[Serving]:
    """Answer the class whose `unary_unary` or the like is that method."""
    streamed = {"request_streaming": kind.startswith("stream"), "response_streaming": kind.endswith("stream")}
    names: dict[str, Any] = {**dict.fromkeys(_KINDS.values()), **streamed, kind: getattr(Serving, name)}
    return type("Serving", (Serving,), {"__slots__": (), **names})


_IN_THREAD = {kind: f"{'stream' if kind.endswith('_stream') else 'answer'}_in_thread" for kind in _KINDS.values()}
# What stands in for a handler of that kind, by the method of that name, and by whether the call is decided: else grpcio
# would wait for a message before it runs what takes one, and a stranger may send none.
_CLASSES = {
    (kind, name, is_decided): _make_class(kind if is_decided else "stream_" + kind.partition("_")[2], name)
    for kind in _KINDS.values()
    for name in ("answer", "stream", "answer_in_thread", "stream_in_thread")
    for is_decided in (True, False)
}
_MAKERS: dict[_Shape, Callable[..., Handler]] = {
    shape: getattr(grpc, f"{kind}_rpc_method_handler") for shape, kind in _KINDS.items()
}


def serving_handler(arrival: Arrival, handler: Handler) -> Handler:
    """Answer what serves this call by a handler of the application."""
    kind = _KINDS[handler.request_streaming, handler.response_streaming]
    behaviour: Behaviour = getattr(handler, kind)
    name = _name_for(behaviour) or _IN_THREAD[kind]
    return _CLASSES[kind, name, arrival.is_decided](arrival, behaviour, handler)


def serving_handler_in_thread(arrival: Arrival, handler: Handler) -> Handler:
    """As `serving_handler`, for a server of threads, whose handlers may ask how and in which threads they are run."""
    kind = _KINDS[handler.request_streaming, handler.response_streaming]
    behaviour: Behaviour = getattr(handler, kind)
    serving = _CLASSES[kind, _IN_THREAD[kind], arrival.is_decided](arrival, behaviour, handler)
    # Without this, who only waits for news, as those who watch its health, would keep a thread for it.
    keeps_none = handler.response_streaming and getattr(behaviour, "experimental_non_blocking", False)
    pool = getattr(behaviour, "experimental_thread_pool", None)
    if pool is None and not keeps_none:
        return serving
    taken = serving.request_streaming, serving.response_streaming
    serve: Any = partial(serving.stream_by_callback if keeps_none else getattr(serving, _KINDS[taken]))
    serve.experimental_non_blocking, serve.experimental_thread_pool = keeps_none, pool
    return _MAKERS[taken](serve, serving.request_deserializer, serving.response_serializer)


def refusing_handler(refused: Refused) -> Handler:
    """Answer what refuses a call of any kind, and reads none of its messages."""

    async def refuse(requests: Any, rpc: Any) -> None:
        await rpc.abort(*render_rpc_refusal(refused))

    return grpc.stream_stream_rpc_method_handler(refuse)


def refusing_handler_in_thread(refused: Refused) -> Handler:
    """As `refusing_handler`, for a server of threads."""

    def refuse(requests: Any, rpc: Any) -> NoReturn:
        abort(rpc, refused)

    return grpc.stream_stream_rpc_method_handler(refuse)


def absent_handler(arrival: Arrival) -> Handler:
    """Answer what tells that there is no such method, once who asks may know: what there is tells of the server."""

    async def refuse(requests: Any, rpc: Any) -> None:
        refused = arrival.judge_peer(rpc.auth_context())
        await rpc.abort(*(_ABSENT if refused is None else render_rpc_refusal(refused)))

    return grpc.stream_stream_rpc_method_handler(refuse)


def absent_handler_in_thread(arrival: Arrival) -> Handler:
    """As `absent_handler`, for a server of threads."""

    def refuse(requests: Any, rpc: Any) -> NoReturn:
        refused = arrival.judge_peer(rpc.auth_context())
        if refused is not None:
            abort(rpc, refused)
        rpc.abort(*_ABSENT)
        raise AssertionError("abort() raises")

    return grpc.stream_stream_rpc_method_handler(refuse)
