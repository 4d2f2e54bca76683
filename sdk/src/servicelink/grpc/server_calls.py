"""Calls that are let through: the handlers of an application, told who calls and shown no credential.

grpcio runs handlers in four ways, and tells them apart by what kind of function they are: coroutines, asynchronous
generators, and functions and generators in threads, which do not inherit the context. Each has its twin here.
"""

import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, suppress
from contextvars import Context, copy_context
from typing import Any, NoReturn, TypeAlias

import grpc
import grpc.aio

from servicelink import context
from servicelink.grpc.metadata import MetadataPair
from servicelink.grpc.server_door import Arrival, render_rpc_refusal
from servicelink.memo import Memo
from servicelink.verify import Refused

# In quotes: it is generic for checkers only.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour = Callable[[Any, Any], Any]
_END = object()
_KINDS: "Mapping[tuple[bool, bool], tuple[str, Callable[..., Handler]]]" = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}


class ShownContext:
    """A call's context as its handler sees it: without the credential, else as grpcio made it."""

    __slots__ = ("_context", "_kept")

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


class Serving:
    """One call on its way to its handler; each method stands in for a handler of its kind."""

    __slots__ = ("_arrival", "_behaviour")

    def __init__(self, arrival: Arrival, behaviour: Behaviour) -> None:
        self._arrival = arrival
        self._behaviour = behaviour

    async def answer(self, request: Any, rpc: Any) -> Any:
        """Serve by a coroutine. What comes in stays known in its task, which is this call's alone."""
        arrival = self._arrival
        if not arrival.is_decided:
            await self._admit(rpc)
        context.incoming.set(arrival.incoming(rpc.time_remaining()))
        return await self._behaviour(request, ShownContext(rpc, arrival.kept))

    async def stream(self, request: Any, rpc: Any) -> AsyncIterator[Any]:
        """Serve by an asynchronous generator; the task as above."""
        arrival = self._arrival
        if not arrival.is_decided:
            await self._admit(rpc)
        context.incoming.set(arrival.incoming(rpc.time_remaining()))
        async with aclosing(self._behaviour(request, ShownContext(rpc, arrival.kept))) as answers:
            async for message in answers:
                yield message

    def answer_in_thread(self, request: Any, rpc: Any) -> Any:
        """Serve by a function."""
        return self._entered(rpc).run(self._behaviour, request, ShownContext(rpc, self._arrival.kept))

    def stream_in_thread(self, request: Any, rpc: Any) -> Iterator[Any]:
        """Serve by a function that answers an iterator; each answer may be made in another thread."""
        entered = self._entered(rpc)
        answers = iter(entered.run(self._behaviour, request, ShownContext(rpc, self._arrival.kept)))
        try:
            while (message := entered.run(next, answers, _END)) is not _END:
                yield message
        finally:
            with suppress(AttributeError):
                entered.run(answers.close)

    def _entered(self, rpc: Any) -> Context:
        """Answer the context in which the call is known; raises where it is refused."""
        if not self._arrival.is_decided:
            refused = self._arrival.judge_peer(rpc.auth_context())
            if refused is not None:
                abort(rpc, refused)
        entered = copy_context()
        entered.run(context.incoming.set, self._arrival.incoming(rpc.time_remaining()))
        return entered

    async def _admit(self, rpc: Any) -> None:
        """Decide by the certificate; raises where the call is refused."""
        refused = self._arrival.judge_peer(rpc.auth_context())
        if refused is not None:
            await rpc.abort(*render_rpc_refusal(refused))


def abort(rpc: Any, refused: Refused) -> NoReturn:
    """Refuse a call that is served in a thread: raises what grpcio takes for it."""
    status, details, trailing = render_rpc_refusal(refused)
    rpc.set_trailing_metadata(trailing)
    rpc.abort(status, details)
    raise AssertionError("abort() raises")


_Style = Callable[[Serving], Behaviour]


def _style_of(behaviour: Behaviour) -> tuple[_Style, _Style]:
    """Answer what stands in for a handler, of one answer and of many."""
    if inspect.iscoroutinefunction(behaviour):
        return _answer, _answer
    if inspect.isasyncgenfunction(behaviour):
        return _answer, _stream
    return _answer_in_thread, _stream_in_thread


def _answer(serving: Serving) -> Behaviour:
    return serving.answer


def _stream(serving: Serving) -> Behaviour:
    return serving.stream


def _answer_in_thread(serving: Serving) -> Behaviour:
    return serving.answer_in_thread


def _stream_in_thread(serving: Serving) -> Behaviour:
    return serving.stream_in_thread


# To ask what a function is takes longer than all the rest.
_styles: Memo[Behaviour, tuple[_Style, _Style]] = Memo(_style_of, wants=lambda _: True)


def serving_handler(arrival: Arrival, handler: Handler) -> Handler:
    """Answer what serves this call by a handler of the application."""
    kind, make = _KINDS[bool(handler.request_streaming), bool(handler.response_streaming)]
    behaviour: Behaviour = getattr(handler, kind)
    style = _styles[behaviour][bool(handler.response_streaming)]
    served = style(Serving(arrival, behaviour))
    return make(served, handler.request_deserializer, handler.response_serializer)


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
