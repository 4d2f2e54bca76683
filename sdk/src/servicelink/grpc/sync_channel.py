"""A grpc.Channel over a link: what generated stubs are made with, in synchronous programs."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc

from servicelink.calls.drive import Driver
from servicelink.calls.flow import flow
from servicelink.calls.options import CallOptions
from servicelink.grpc.methods import GrpcMessage, Kind, Method, read_call
from servicelink.grpc.surface import Caller
from servicelink.grpc.sync_calls import FutureCall, StreamCall
from servicelink.grpc.sync_wire import SyncWire


class _Multicallable:
    """Makes the calls of one method."""

    def __init__(self, caller: Caller, driver: Driver, method: Method) -> None:
        self._caller = caller
        self._driver = driver
        self._method = method

    def _read(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[GrpcMessage, CallOptions]:
        return read_call(self._method, arguments, options)


class _Answering(_Multicallable):
    """What is answered once."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Make a call; arguments as grpcio's. `timeout` is in seconds. Raises ServiceError, TypeError."""
        message, said = self._read(arguments, options)
        return self._driver.run(flow(self._caller.line, self._caller.exchange(message, said)))

    def with_call(self, *arguments: Any, **options: Any) -> Any:
        """Make a call; answers the response, and grpcio's call with metadata and status. Raises ServiceError."""
        message, said = self._read(arguments, options)
        calls: list[Any] = []
        message.attached = calls.append
        answer = self._driver.run(flow(self._caller.line, self._caller.exchange(message, said)))
        return answer, calls[-1]

    def future(self, *arguments: Any, **options: Any) -> Any:
        """Begin a call in a thread, and answer its grpc.Future."""
        message, said = self._read(arguments, options)
        return FutureCall(self._caller.line, self._driver, self._caller.exchange(message, said), message)


class _Streaming(_Multicallable):
    """What is answered many times."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Begin a call; arguments as grpcio's. `timeout` is in seconds, for all of it. Raises TypeError."""
        return begin_stream(self._caller, self._driver, *self._read(arguments, options))


def begin_stream(caller: Caller, driver: Driver, message: GrpcMessage, said: CallOptions) -> StreamCall[Any]:
    """Begin a call with many answers, and answer it."""
    return StreamCall(caller.line, driver, caller.exchange(message, said), message)


class UnaryUnary(_Answering, grpc.UnaryUnaryMultiCallable):  # type: ignore[type-arg] # generic for checkers only
    """One request, one answer."""


class UnaryStream(_Streaming, grpc.UnaryStreamMultiCallable):  # type: ignore[type-arg] # generic for checkers only
    """One request, many answers."""


class StreamUnary(_Answering, grpc.StreamUnaryMultiCallable):  # type: ignore[type-arg] # generic for checkers only
    """Many requests, one answer."""


class StreamStream(_Streaming, grpc.StreamStreamMultiCallable):  # type: ignore[type-arg] # generic for checkers only
    """Many requests, many answers."""


class LinkChannel(grpc.Channel):
    """A channel over a link; connections come and go beneath it. Its calls raise ServiceError."""

    def __init__(self, caller: Caller, wire: SyncWire, driver: Driver) -> None:
        self._caller = caller
        self._wire = wire
        self._driver = driver

    def unary_unary(self, method: str, *codecs: Any, **more: Any) -> UnaryUnary:
        """Answer what calls a method."""
        return UnaryUnary(self._caller, self._driver, self._caller.method(Kind.UNARY_UNARY, method, *codecs, **more))

    def unary_stream(self, method: str, *codecs: Any, **more: Any) -> UnaryStream:
        """Answer what calls a method."""
        return UnaryStream(self._caller, self._driver, self._caller.method(Kind.UNARY_STREAM, method, *codecs, **more))

    def stream_unary(self, method: str, *codecs: Any, **more: Any) -> StreamUnary:
        """Answer what calls a method."""
        return StreamUnary(self._caller, self._driver, self._caller.method(Kind.STREAM_UNARY, method, *codecs, **more))

    def stream_stream(self, method: str, *codecs: Any, **more: Any) -> StreamStream:
        """Answer what calls a method."""
        return StreamStream(
            self._caller, self._driver, self._caller.method(Kind.STREAM_STREAM, method, *codecs, **more)
        )

    def subscribe(
        self,
        callback: Callable[[grpc.ChannelConnectivity], None],
        try_to_connect: bool = False,  # noqa: FBT001, FBT002 - grpcio's
    ) -> None:
        """Tell of the states of the connection of this moment; raises LinkNotFound."""
        self._now().subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """Tell no more; raises LinkNotFound."""
        self._now().unsubscribe(callback)

    def close(self) -> None:
        """Close all connections; calls still under way fail."""
        self._wire.close()

    def _now(self) -> grpc.Channel:
        return self._wire.channel(self._caller.line.source.current())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
