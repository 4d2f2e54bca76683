"""The interceptor of grpcio's synchronous servers: every call is checked before the application sees it."""

from collections.abc import Callable, Iterable
from typing import Any

import grpc

from servicelink.calls.limits import RateLimit
from servicelink.counts import Counts
from servicelink.grpc.server_calls import (
    Handler,
    absent_handler_in_thread,
    refusing_handler_in_thread,
    serving_handler_in_thread,
)
from servicelink.grpc.server_door import HEALTH_CHECK, GrpcDoor


class LinkInterceptor(grpc.ServerInterceptor):
    """Let through what the links to this server allow: `grpc.server(pool, interceptors=[LinkInterceptor(), ...])`.

    As `servicelink.LinkInterceptor`, for grpcio's servers of threads, whose health may be asked for without a link, but
    not watched: see docs/sdk/grpc.md. Raises LinkConfigurationError with nothing to
    check calls with, and MalformedPatternError.
    """

    def __init__(
        self,
        service: str | None = None,
        exempt: Iterable[str] = (HEALTH_CHECK,),
        *,
        rate_limit: RateLimit | None = None,
    ) -> None:
        self._door = GrpcDoor(service, exempt=exempt, rate_limit=rate_limit)

    def counts(self) -> Counts:
        """Answer how many calls were accepted, refused, and would have been, by link, kid and code."""
        return self._door.counts()

    def intercept_service(
        self, continuation: "Callable[[Any], Handler | None]", handler_call_details: Any
    ) -> "Handler | None":
        """Answer what serves a call, or refuses it."""
        path = handler_call_details.method
        arrival = self._door.receive(path, handler_call_details.invocation_metadata)
        if arrival.refused is not None:
            return refusing_handler_in_thread(arrival.refused)
        handler = continuation(type(handler_call_details)(path, arrival.shown))
        if handler is not None:
            return serving_handler_in_thread(arrival, handler)
        return None if arrival.is_decided else absent_handler_in_thread(arrival)
