"""Attempts over grpcio's synchronous channels."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc

from servicelink import forks
from servicelink.binding import Binding, TlsFiles
from servicelink.calls.call import CANCELLED, Outcome
from servicelink.calls.flow import Send
from servicelink.grpc.address import Target
from servicelink.grpc.channels import Channels, Options, channel_credentials, channel_options
from servicelink.grpc.exchange import CUT, FINE, answered, outgoing_metadata, settle, time_limit
from servicelink.grpc.methods import GrpcMessage
from servicelink.otel import each_resumed

_END = object()


class SyncStream:
    """A stream of answers that has begun: the first answer is there, or there will be none."""

    __slots__ = ("_attempt", "_first", "rpc")

    def __init__(self, rpc: Any, first: Any, attempt: "_Attempt") -> None:
        self.rpc = rpc
        self._first = first
        self._attempt = attempt

    def read(self) -> Outcome:
        """Answer the next message as a response, or how the stream ended, without one."""
        first, self._first = self._first, None
        if first is not None:
            return FINE if first is _END else answered(first)
        return self._attempt.outcome_of(partial(_read, self.rpc))


class SyncWire:
    """Channels of one process, opened on first use."""

    def __init__(self, options: Options) -> None:
        self._options = channel_options(options)
        self._lock = forks.Lock()
        self._generation = forks.generation()
        self._channels: Channels[grpc.Channel] = Channels(self._open, _close)
        # The parent's: neither used nor closed here.
        self._abandoned: list[Any] = []

    def send(self, send: Send) -> Outcome:
        """Make one attempt; of a stream of answers, as far as the first one."""
        message: GrpcMessage = send.call.message
        attempt = _Attempt(self._here(), send)
        return attempt.outcome_of(attempt.begin if message.method.kind.streams_out else attempt.answer)

    def discard(self, outcome: Outcome) -> None:
        """Let go of a stream that has begun; what did not begin needs no letting go."""
        if isinstance(outcome.response, SyncStream):
            outcome.response.rpc.cancel()

    def channel(self, binding: Binding) -> grpc.Channel:
        """Answer the channel of this moment; raises LinkNotFound."""
        channels = self._here()
        lease = channels.lease(binding)
        channels.release(lease)
        return lease.channel

    def close(self) -> None:
        """Close all channels; calls still under way fail."""
        for channel in self._here().close():
            channel.close()

    def _here(self) -> Channels[grpc.Channel]:
        if self._generation != forks.generation():
            with self._lock:
                if self._generation != forks.generation():
                    self._abandoned.append(self._channels)
                    self._channels = Channels(self._open, _close)
                    self._generation = forks.generation()
        return self._channels

    def _open(self, target: Target, tls: TlsFiles | None) -> grpc.Channel:
        if not target.is_secure:
            return grpc.insecure_channel(target.name, self._options)
        return grpc.secure_channel(target.name, channel_credentials(tls), self._options)


class _Attempt:
    """One attempt, with the channel that it is made over."""

    __slots__ = ("_channels", "_lease", "_message", "_problems", "_send")

    def __init__(self, channels: Channels[grpc.Channel], send: Send) -> None:
        self._channels = channels
        self._lease = channels.lease(send.binding)
        self._message: GrpcMessage = send.call.message
        self._problems: list[Exception] = []
        self._send = send

    def answer(self) -> Outcome:
        """Make it, and wait for the answer."""
        call, attached = self._lease.multicallable(self._message.method), self._message.attached
        try:
            if attached is None:
                return answered(self._make(call))
            rpc = self._make(call.future)
            attached(rpc)
            return answered(rpc.result())
        finally:
            self._release()

    def begin(self) -> Outcome:
        """Make it, and wait for the first answer: until then the server may refuse."""
        try:
            rpc = self._make(self._lease.multicallable(self._message.method))
        except BaseException:
            self._release()
            raise
        if not rpc.add_callback(self._release):
            self._release()
        if self._message.attached is not None:
            self._message.attached(rpc)
        return answered(SyncStream(rpc, next(rpc, _END), self))

    def _make(self, call: Callable[..., Any]) -> Any:
        send, message = self._send, self._message
        requests = self._watched() if message.method.kind.streams_in else message.method.pack(message.request)
        # The metadata has no name here: whoever shows a traceback with its variables must not show the credential.
        return call(
            requests,
            timeout=time_limit(send.limit),
            metadata=outgoing_metadata(send.call, send.binding),
            wait_for_ready=message.wait_for_ready,
            compression=message.compression,
        )

    def outcome_of(self, ending: Callable[[], Outcome]) -> Outcome:
        """Answer how a call ended that raises where it was not answered; raises what its caller's requests raised."""
        try:
            return ending()
        except grpc.FutureCancelledError:
            return CANCELLED
        except grpc.RpcError as error:
            if self._problems:
                raise self._problems[0] from None
            if self._lease.is_closed:
                return CUT
            call: Any = error
            if call.cancelled():
                return CANCELLED
            trailing: Any = error.trailing_metadata()
            return settle(error.code(), error.details(), trailing, partial(_is_away, self._lease.channel))

    def _release(self) -> None:
        self._channels.release(self._lease)

    def _watched(self) -> Iterator[bytes]:
        """Hand the requests on; grpcio cancels a call whose requests fail, and tells nobody why."""
        try:
            for request in each_resumed(self._message.request):
                yield self._message.method.pack(request)
        except Exception as error:
            self._problems.append(error)
            raise


def _read(rpc: Any) -> Outcome:
    message = next(rpc, _END)
    return FINE if message is _END else answered(message)


def _is_away(channel: Any) -> bool:
    # Asked in public it answers by a thread that polls.
    beneath = getattr(channel, "_channel", None)
    if beneath is None:
        return False
    try:
        state: int = beneath.check_connectivity_state(False)
    except ValueError:
        # Closed meanwhile, with its last call.
        return False
    return state == grpc.ChannelConnectivity.TRANSIENT_FAILURE.value[0]


def _close(channel: grpc.Channel) -> None:
    """Close a channel elsewhere: the last call may end in the channel's own thread, which has to go on meanwhile."""
    threading.Thread(target=channel.close, name="servicelink-close", daemon=True).start()
