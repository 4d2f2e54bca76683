"""Connections of one client: a channel for the address and certificate of the moment, and earlier ones till they end.

An API key is metadata of each call, so it changes without a new channel. A certificate belongs to the connection: with
a new one a new channel is opened, and the old one is closed when nothing is under way in it any more (the synchronous
channel's `close()` cancels streams at once, so calls are counted).
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import grpc

from servicelink import forks
from servicelink.binding import Binding, TlsFiles
from servicelink.grpc.address import Target, require_target
from servicelink.grpc.methods import Method

C = TypeVar("C")
_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.primary_user_agent", "servicelink"),
    # Retries are the flow's: it counts them, asks the circuit, and knows which calls may be repeated.
    ("grpc.enable_retries", 0),
    # The environment's proxy must not see calls between services.
    ("grpc.enable_http_proxy", 0),
    # Over all Pods of a headless Service; of one address it is that address.
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    # Milliseconds. The defaults of 1 s to 2 min would outlast every retry, and most restarts.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5000),
    # Finds connections that died without a word. Servers count it as abuse below five minutes (gRPC proposal A8).
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)
Options = Sequence[tuple[str, Any]]
_PAIR = 2


def require_options(given: Any) -> Options:
    """Answer an application's own options of a channel; raises TypeError for what is no list of pairs."""
    wrong = [] if isinstance(given, list | tuple) else [given]
    for pair in wrong or given:
        if not (isinstance(pair, tuple) and len(pair) == _PAIR and isinstance(pair[0], str)):
            kind = f"is {type(given).__name__}" if wrong else f"holds {pair!r}"
            form = '[("grpc.max_receive_message_length", 16777216)]'
            raise TypeError(f"channel_options {kind}; it is a list of pairs of a name and a value, such as {form}")
    return tuple(given)


def channel_options(more: Options) -> list[tuple[str, Any]]:
    """Answer the options of our channels, with an application's own over them."""
    own = {key for key, _ in more}
    return [*(pair for pair in _OPTIONS if pair[0] not in own), *more]


def channel_credentials(tls: TlsFiles | None) -> grpc.ChannelCredentials:
    """Answer how a server is checked, and what is shown to it; without roots those that grpcio brings are trusted."""
    if tls is None:
        return grpc.ssl_channel_credentials()
    return grpc.ssl_channel_credentials(
        root_certificates=tls.trust.encode() or None,
        private_key=tls.private_key.encode() or None,
        certificate_chain=tls.certificate.encode() or None,
    )


class Generation(Generic[C]):
    """A channel, how many calls are under way in it, whether it has a successor, whether its client was closed."""

    __slots__ = ("_calls", "channel", "is_closed", "is_retired", "key", "users")

    def __init__(self, key: tuple[str, TlsFiles | None], channel: C) -> None:
        self.key = key
        self.channel = channel
        self.users = 0
        self.is_retired = False
        self.is_closed = False
        self._calls: dict[Method, Any] = {}

    def multicallable(self, method: Method) -> Any:
        """Answer what grpcio makes calls of a method with."""
        found = self._calls.get(method)
        if found is None:
            make = getattr(self.channel, method.kind.value)
            found = self._calls[method] = make(method.path, None, method.deserialize)
        return found


class Channels(Generic[C]):
    """Hands out the channel of the moment; thread-safe."""

    def __init__(self, open_channel: Callable[[Target, TlsFiles | None], C], close: Callable[[C], None]) -> None:
        self._open_channel = open_channel
        self._close = close
        self._lock = forks.Lock()
        self._current: Generation[C] | None = None
        self._in_use: set[Generation[C]] = set()

    def lease(self, binding: Binding) -> Generation[C]:
        """Answer the channel for a binding, for one call, which gives it back; raises LinkNotFound."""
        key = (binding.uri, binding.tls)
        ended = None
        with self._lock:
            generation = self._current
            if generation is None or generation.key != key:
                target = require_target(binding)
                ended = self._retire()
                generation = self._current = Generation(key, self._open_channel(target, binding.tls))
            generation.users += 1
            self._in_use.add(generation)
        if ended is not None:
            self._close(ended.channel)
        return generation

    def release(self, generation: Generation[C]) -> None:
        """Say that a call has ended."""
        with self._lock:
            generation.users -= 1
            if generation.users:
                return
            self._in_use.discard(generation)
            if not generation.is_retired or generation.is_closed:
                return
        self._close(generation.channel)

    def close(self) -> list[C]:
        """Forget all channels, and answer those that are open; calls under way end with them."""
        with self._lock:
            found = {*self._in_use, *([self._current] if self._current else [])}
            self._current, self._in_use = None, set()
            for generation in found:
                # Whoever still uses it must not close it a second time.
                generation.is_closed = True
        return [generation.channel for generation in found]

    def _retire(self) -> Generation[C] | None:
        """Let the current channel end with its last call; answers it where that was."""
        generation = self._current
        if generation is None:
            return None
        generation.is_retired = True
        return None if generation.users else generation
