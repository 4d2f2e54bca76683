"""The interceptor of grpc.aio servers: every call is checked before the application sees it."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc
import grpc.aio

from servicelink.calls.limits import RateLimit
from servicelink.counts import Counts
from servicelink.grpc.server_calls import Handler, absent_handler, refusing_handler, serving_handler
from servicelink.grpc.server_door import HEALTH, GrpcDoor


class LinkInterceptor(grpc.aio.ServerInterceptor):
    """Let through what the links to this server allow: `grpc.aio.server(interceptors=[LinkInterceptor(), ...])`.

    `service` names the Service whose verifier to use, needed where several are mounted. `exempt` are calls that nobody
    needs a link for, `package.Service/Method` or `package.Service/*`. `rate_limit` holds for each link. Calls that are
    refused end with UNAUTHENTICATED, PERMISSION_DENIED or RESOURCE_EXHAUSTED, and `x-servicelink-code` in the trailing
    metadata says why.

    The verified link is in `current_link()`. It stands first: handlers, and interceptors after it, see the metadata
    without the credential. A certificate is known, and decides, only where the handler is run.

    Raises LinkConfigurationError with nothing to check calls with, and MalformedPatternError.
    """

    def __init__(
        self, service: str | None = None, exempt: Iterable[str] = (HEALTH,), *, rate_limit: RateLimit | None = None
    ) -> None:
        self._door = GrpcDoor(service, exempt=exempt, rate_limit=rate_limit)

    def counts(self) -> Counts:
        """Answer how many calls were accepted, refused, and would have been, by link, kid and code."""
        return self._door.counts()

    async def intercept_service(
        self,
        continuation: "Callable[[Any], Awaitable[Handler | None]]",
        handler_call_details: Any,
    ) -> "Handler | None":
        """Answer what serves a call, or refuses it."""
        path = handler_call_details.method
        arrival = self._door.receive(path, handler_call_details.invocation_metadata)
        if arrival.refused is not None:
            return refusing_handler(arrival.refused)
        # Of grpcio's own type, which is the only one that it takes.
        handler = await continuation(type(handler_call_details)(path, arrival.shown))
        if handler is not None:
            return serving_handler(arrival, handler)
        return None if arrival.is_decided else absent_handler(arrival)
