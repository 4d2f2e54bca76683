"""A grpc.aio.Channel over a link: what generated stubs are made with.

Its multicallables make calls of ours, so nothing of grpcio stands between a stub and the flow; interceptors of grpcio
are not stacked on it.
"""

from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from servicelink.calls.drive import AsyncDriver
from servicelink.calls.options import CallOptions
from servicelink.grpc.aio_calls import AioCall, BothStreamedCall, CollectedCall, StreamedCall, UnaryCall
from servicelink.grpc.aio_wire import AioWire
from servicelink.grpc.methods import GrpcMessage, Kind, Method, read_call
from servicelink.grpc.surface import Caller

_CALLS: dict[Kind, type[AioCall]] = {
    Kind.UNARY_UNARY: UnaryCall,
    Kind.UNARY_STREAM: StreamedCall,
    Kind.STREAM_UNARY: CollectedCall,
    Kind.STREAM_STREAM: BothStreamedCall,
}


def begin_call(caller: Caller, driver: AsyncDriver, message: GrpcMessage, said: CallOptions) -> Any:
    """Begin a call, and answer it."""
    exchange = caller.exchange(message, said)
    return _CALLS[message.method.kind](caller.line, driver, exchange, message)


class _Multicallable:
    """Makes the calls of one method."""

    def __init__(self, caller: Caller, driver: AsyncDriver, method: Method) -> None:
        self._caller = caller
        self._driver = driver
        self._method = method

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Begin a call; arguments as grpcio's. `timeout` is in seconds, of a stream for all of it. Raises TypeError."""
        return begin_call(self._caller, self._driver, *read_call(self._method, arguments, options))


class UnaryUnary(_Multicallable, grpc.aio.UnaryUnaryMultiCallable[Any, Any]):
    """One request, one answer."""


class UnaryStream(_Multicallable, grpc.aio.UnaryStreamMultiCallable[Any, Any]):
    """One request, many answers."""


class StreamUnary(_Multicallable, grpc.aio.StreamUnaryMultiCallable[Any, Any]):
    """Many requests, given or written; one answer."""


class StreamStream(_Multicallable, grpc.aio.StreamStreamMultiCallable[Any, Any]):
    """Many requests, given or written; many answers."""


class LinkChannel(grpc.aio.Channel):
    """A channel over a link; connections come and go beneath it. Its calls raise ServiceError."""

    def __init__(self, caller: Caller, wire: AioWire, driver: AsyncDriver) -> None:
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

    async def close(self, grace: float | None = None) -> None:
        """Close the connections of this event loop; calls under way have `grace` seconds to end."""
        await self._wire.aclose(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002 - grpcio's
        """Answer the state of the connection of this moment; raises LinkNotFound."""
        return self._now().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until it is another; raises LinkNotFound."""
        await self._now().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until it is connected; raises LinkNotFound."""
        await self._now().channel_ready()

    def _now(self) -> grpc.aio.Channel:
        return self._wire.channel(self._caller.line.source.current())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
