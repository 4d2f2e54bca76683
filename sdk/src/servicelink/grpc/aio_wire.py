"""Attempts over grpc.aio."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable
from typing import Any

import grpc
import grpc.aio

from servicelink import forks
from servicelink.binding import Binding, TlsFiles
from servicelink.calls.call import Outcome
from servicelink.calls.flow import Send
from servicelink.grpc.address import Target
from servicelink.grpc.channels import Channels, Options, channel_credentials, channel_options
from servicelink.grpc.exchange import CUT, FINE, answered, outgoing_metadata, settle, time_limit
from servicelink.grpc.methods import GrpcMessage
from servicelink.otel import each_resumed, each_resumed_async

# Seconds that a server's status may still be on its way when a write has failed because of it.
_STATUS_WITHIN = 1.0


class AioStream:
    """A stream of answers that has begun: the first answer is there, or there will be none."""

    __slots__ = ("_answers", "_attempt", "_first", "rpc")

    def __init__(self, attempt: "_Attempt", answers: AsyncIterator[Any], first: Any) -> None:
        self.rpc = attempt.rpc
        self._answers = answers
        self._first = first
        self._attempt = attempt

    async def read(self) -> Outcome:
        """Answer the next message as a response, or how the stream ended, without one."""
        first, self._first = self._first, None
        if first is not None:
            return FINE if first is grpc.aio.EOF else answered(first)
        return await self._attempt.outcome_of(_next(self._answers))


class AioWire:
    """Channels for each event loop and process, opened on first use: a client may be made at import time."""

    def __init__(self, options: Options) -> None:
        self._options = channel_options(options)
        self._generation = forks.generation()
        self._channels: dict[asyncio.AbstractEventLoop, Channels[grpc.aio.Channel]] = {}
        # The parent's: neither used nor closed here.
        self._abandoned: list[Any] = []
        self._closing: set[asyncio.Future[None]] = set()

    async def send(self, send: Send) -> Outcome:
        """Make one attempt; of a stream of answers, as far as the first one."""
        message: GrpcMessage = send.call.message
        problems: list[Exception] = []
        requests: Any = None
        if not message.method.kind.streams_in:
            requests = message.method.pack(message.request)
        elif message.request is not None:
            requests = _watched(message, problems)
        channels = self._here()
        lease = channels.lease(send.binding)
        try:
            # The metadata has no name here: whoever shows a traceback with its variables must not show the credential.
            rpc = lease.multicallable(message.method)(
                requests,
                timeout=time_limit(send.limit),
                metadata=outgoing_metadata(send.call, send.binding),
                wait_for_ready=message.wait_for_ready,
                compression=message.compression,
            )
        except BaseException:
            channels.release(lease)
            raise
        rpc.add_done_callback(lambda _: channels.release(lease))
        if message.method.kind.streams_in:
            heed_status(rpc)
        if message.attached is not None:
            message.attached(rpc)
        attempt = _Attempt(lease.channel, rpc, problems)
        return await attempt.outcome_of(attempt.begin() if message.method.kind.streams_out else attempt.answer())

    async def discard(self, outcome: Outcome) -> None:
        """Let go of a stream that has begun; what did not begin needs no letting go."""
        if isinstance(outcome.response, AioStream):
            outcome.response.rpc.cancel()

    def channel(self, binding: Binding) -> grpc.aio.Channel:
        """Answer the channel of this moment; raises LinkNotFound."""
        channels = self._here()
        lease = channels.lease(binding)
        channels.release(lease)
        return lease.channel

    async def aclose(self, grace: float | None = None) -> None:
        """Close the channels of this event loop; calls under way have `grace` seconds, then they fail."""
        self._notice_fork()
        channels = self._channels.pop(asyncio.get_running_loop(), None)
        for channel in () if channels is None else channels.close():
            await channel.close(grace)
        if self._closing:
            await asyncio.wait(self._closing)

    def _here(self) -> Channels[grpc.aio.Channel]:
        self._notice_fork()
        loop = asyncio.get_running_loop()
        channels = self._channels.get(loop)
        if channels is None:
            # A channel refers to its loop, so that neither would ever go by itself.
            for ended in [known for known in list(self._channels) if known.is_closed()]:
                self._channels.pop(ended, None)
            channels = self._channels[loop] = Channels(self._open, self._close)
        return channels

    def _open(self, target: Target, tls: TlsFiles | None) -> grpc.aio.Channel:
        if not target.is_secure:
            return grpc.aio.insecure_channel(target.name, self._options)
        return grpc.aio.secure_channel(target.name, channel_credentials(tls), self._options)

    def _close(self, channel: grpc.aio.Channel) -> None:
        closing = asyncio.ensure_future(channel.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _notice_fork(self) -> None:
        if self._generation != forks.generation():
            self._abandoned.append(self._channels)
            self._channels = {}
            self._generation = forks.generation()


class _Heedful:
    """A call beneath grpc.aio's that does not make up a status while the server's own is on its way.

    grpc.aio takes a write that fails because the server has ended the call for an error of its own, and reports that:
    INTERNAL, instead of a refusal for instance (github.com/grpc/grpc, issue 36066).
    """

    def __init__(self, beneath: Any) -> None:
        self._beneath = beneath

    def __getattr__(self, name: str) -> Any:
        return getattr(self._beneath, name)

    def set_internal_error(self, words: str) -> None:
        """Take note that a write failed; it is the call's end only if nobody tells a better one."""
        asyncio.get_running_loop().call_later(_STATUS_WITHIN, self._give_up, words)

    async def send_receive_close(self) -> None:
        """Say that no more requests come; grpc.aio cancels a call of its own where that fails."""
        try:
            await self._beneath.send_receive_close()
        except grpc.aio.InternalError as error:
            self.set_internal_error(str(error))

    def _give_up(self, words: str) -> None:
        if not self._beneath.done():
            self._beneath.set_internal_error(words)


def heed_status(rpc: Any) -> None:
    """Have a call of grpc.aio that sends a stream end as the server says."""
    beneath = getattr(rpc, "_cython_call", None)
    if beneath is not None:
        rpc._cython_call = _Heedful(beneath)  # noqa: SLF001 - there is no other way to it


class _Attempt:
    """One attempt: grpc.aio's channel and call, and what its caller's requests raised."""

    __slots__ = ("_channel", "_problems", "rpc")

    def __init__(self, channel: grpc.aio.Channel, rpc: Any, problems: list[Exception]) -> None:
        self._channel = channel
        self.rpc = rpc
        self._problems = problems

    async def answer(self) -> Outcome:
        """Wait for the answer."""
        return answered(await self.rpc)

    async def begin(self) -> Outcome:
        """Wait for the first answer: until then the server may refuse, and nothing has been handed over."""
        answers = aiter(self.rpc)
        first = await anext(answers, grpc.aio.EOF)
        return answered(AioStream(self, answers, first))

    async def outcome_of(self, ending: Awaitable[Outcome]) -> Outcome:
        """Answer how a call ended that raises where it was not answered; raises what its caller's requests raised."""
        try:
            return await ending
        except grpc.aio.AioRpcError as error:
            return settle(error.code(), error.details(), error.trailing_metadata(), self._is_away)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                # grpc.aio itself forgets to where its reader goes before the request went: the call would never end.
                self.rpc.cancel()
                raise
            if self._problems:
                raise self._problems[0] from None
            # Nobody cancelled the caller: its channel was closed beneath it.
            return CUT

    def _is_away(self) -> bool:
        return self._channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE


async def _next(answers: AsyncIterator[Any]) -> Outcome:
    message = await anext(answers, grpc.aio.EOF)
    return FINE if message is grpc.aio.EOF else answered(message)


async def _watched(message: GrpcMessage, problems: list[Exception]) -> AsyncIterator[bytes]:
    """Hand the requests on; grpc.aio cancels a call whose requests fail, and tells nobody why."""
    try:
        if isinstance(message.request, AsyncIterable):
            async for request in each_resumed_async(message.request):
                yield message.method.pack(request)
        else:
            for request in each_resumed(message.request):
                yield message.method.pack(request)
    except Exception as error:
        problems.append(error)
        raise
