"""A gRPC server in one call, asynchronous."""

import asyncio
import signal
from types import TracebackType
from typing import Any, Self, Unpack

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from servicelink.counts import Counts
from servicelink.grpc.aio_interceptor import LinkInterceptor
from servicelink.grpc.server_door import HEALTH
from servicelink.grpc.server_parts import (
    GRACE,
    GrpcServerOptions,
    Servicers,
    add_servicers,
    listen,
    server_options,
)

_ENDS = (signal.SIGTERM, signal.SIGINT)


class GrpcServer:
    """A server that runs: `port` is where, `server` grpcio's own, `health` its health service."""

    def __init__(self, server: Any, port: int, interceptor: LinkInterceptor, health_service: Any) -> None:
        self.server: grpc.aio.Server = server
        self.port = port
        self.health = health_service
        self._interceptor = interceptor

    def counts(self) -> Counts:
        """Answer how many calls were accepted, refused, and would have been, by link, kid and code."""
        return self._interceptor.counts()

    async def serve(self, grace: float = GRACE) -> None:
        """Serve until SIGTERM or SIGINT, or `stop()`; calls under way then have `grace` seconds."""
        loop, told = asyncio.get_running_loop(), asyncio.Event()
        for number in _ENDS:
            loop.add_signal_handler(number, told.set)
        waiting = [asyncio.ensure_future(told.wait()), asyncio.ensure_future(self.wait_for_termination())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for number in _ENDS:
                loop.remove_signal_handler(number)
            await self.stop(grace)
            waiting[0].cancel()
            await asyncio.wait(waiting)

    async def wait_for_termination(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - grpcio's
        """Wait until it has stopped; answers whether `timeout` (seconds) came first."""
        came: bool = await self.server.wait_for_termination(timeout)
        return came

    async def stop(self, grace: float | None = None) -> None:
        """Take no more calls, say so by its health, and end; calls under way have `grace` seconds."""
        # At once: the first waits for those who watch, and one that reads nothing would keep all of it from its end.
        await asyncio.gather(self.health.enter_graceful_shutdown(), self.server.stop(grace))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


async def grpc_server(servicers: Servicers, **options: Unpack[GrpcServerOptions]) -> GrpcServer:
    """Start a gRPC server whose calls are checked, with health and reflection, on port 50051.

    `servicers` are what serves, by the generated function that adds it. Options are told in docs/sdk/grpc.md. Raises
    LinkConfigurationError with nothing to check calls with, MalformedPatternError, and RuntimeError for a port that is
    taken.

        server = await servicelink.grpc_server({add_UserServiceServicer_to_server: Users()})
        await server.serve()
    """
    interceptor = LinkInterceptor(
        options.get("service"), options.get("exempt", (HEALTH,)), rate_limit=options.get("rate_limit")
    )
    server = grpc.aio.server(
        interceptors=[interceptor, *options.get("interceptors", ())], options=server_options(options.get("options", ()))
    )
    names = add_servicers(server, servicers, reflects=options.get("reflection", True))
    health_service: Any = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    for name in names:
        await health_service.set(name, health_pb2.HealthCheckResponse.SERVING)
    port = listen(server, options)
    await server.start()
    return GrpcServer(server, port, interceptor, health_service)
