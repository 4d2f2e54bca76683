"""A gRPC server in one call, of threads."""

import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, Unpack

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from servicelink.counts import Counts
from servicelink.grpc.server_door import HEALTH_CHECK
from servicelink.grpc.server_parts import (
    GRACE,
    GrpcServerOptions,
    Servicers,
    add_servicers,
    listen,
    server_options,
)
from servicelink.grpc.sync_interceptor import LinkInterceptor

_ENDS = (signal.SIGTERM, signal.SIGINT)
# No signal has this number.
_STOPPED = b"\0"
_ENDING = frozenset({*_ENDS, *_STOPPED})
# Each call has one for as long as it lasts, streams too.
THREADS = 32


@contextmanager
def _told() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Answer two ends of a line on which the numbers of signals come.

    A signal may reach any thread, and then wakes no lock that the main thread waits for: only a line does
    (`signal.set_wakeup_fd`).
    """
    mine, theirs = socket.socketpair()
    theirs.setblocking(False)
    with mine, theirs:
        before = {number: signal.signal(number, lambda *_: None) for number in _ENDS}
        line = signal.set_wakeup_fd(theirs.fileno())
        try:
            yield mine, theirs
        finally:
            signal.set_wakeup_fd(line)
            for number, action in before.items():
                signal.signal(number, action)


class GrpcServer:
    """A server that runs: `port` is where, `server` grpcio's own, `health` its health service."""

    def __init__(self, server: grpc.Server, port: int, interceptor: LinkInterceptor, health_service: Any) -> None:
        self.server = server
        self.port = port
        self.health = health_service
        self._interceptor = interceptor

    def counts(self) -> Counts:
        """Answer how many calls were accepted, refused, and would have been, by link, kid and code."""
        return self._interceptor.counts()

    def serve(self, grace: float = GRACE) -> None:
        """Serve until SIGTERM or SIGINT, or `stop()`; calls under way then have `grace` seconds. In the main thread."""
        with _told() as (mine, theirs):
            watcher = threading.Thread(target=self._watch, args=(theirs,), name="servicelink-serve", daemon=True)
            watcher.start()
            try:
                while mine.recv(1)[0] not in _ENDING:
                    continue
            finally:
                self.stop(grace)
                watcher.join()

    def _watch(self, theirs: socket.socket) -> None:
        self.wait_for_termination()
        theirs.send(_STOPPED)

    def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Wait until it has stopped; answers whether `timeout` (seconds) came first."""
        return bool(self.server.wait_for_termination(timeout))

    def stop(self, grace: float | None = None) -> None:
        """Take no more calls, say so by its health, and end; calls under way have `grace` seconds."""
        ended = self.server.stop(grace)
        # Not before: it waits for those who watch, and one that reads nothing would keep all of it from its end.
        self.health.enter_graceful_shutdown()
        ended.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def grpc_server(servicers: Servicers, *, threads: int = THREADS, **options: Unpack[GrpcServerOptions]) -> GrpcServer:
    """Start a gRPC server of so many threads whose calls are checked; as `servicelink.grpc_server`, without `await`.

    Raises LinkConfigurationError with nothing to check calls with, MalformedPatternError, and RuntimeError for a port
    that is taken.

        server = servicelink.sync.grpc_server({add_UserServiceServicer_to_server: Users()})
        server.serve()
    """
    interceptor = LinkInterceptor(
        options.get("service"), options.get("exempt", (HEALTH_CHECK,)), rate_limit=options.get("rate_limit")
    )
    server = grpc.server(
        ThreadPoolExecutor(threads, "servicelink-grpc"),
        interceptors=[interceptor, *options.get("interceptors", ())],
        options=server_options(options.get("options", ())),
    )
    names = add_servicers(server, servicers, reflects=options.get("reflection", True))
    health_service = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    for name in names:
        health_service.set(name, health_pb2.HealthCheckResponse.SERVING)
    port = listen(server, options)
    server.start()
    return GrpcServer(server, port, interceptor, health_service)
