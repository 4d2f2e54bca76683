"""Requests of httpx's own clients over a link: `httpx.AsyncClient(transport=servicelink.httpx_transport("payments"))`.

For code that keeps its client. A request goes to the link's server if its host is the link's name, as in
`base_url="http://payments"`, or the server's own origin. Errors are ServiceErrors, as everywhere.
"""

import math

import httpx

from servicelink.calls.options import CallOptions
from servicelink.rest.exchange import RestExchange

# They follow from the target, or are the link's.
_OF_TARGET = frozenset({"host"})
# What every httpx client has whose owner says nothing of time.
_UNSAID = httpx.Timeout(5.0).as_dict()


class ForwardedExchange(RestExchange):
    """A request that an httpx client made; its answer is always a stream, which that client reads."""

    __slots__ = ("_given",)

    def __init__(self, request: httpx.Request, name: str, options: CallOptions) -> None:
        self._given = request
        url = request.url
        target = url.raw_path.decode("ascii") if url.host == name.lower() else url
        headers = [pair for pair in request.headers.multi_items() if pair[0] not in _OF_TARGET]
        options = _patience(request).over(options)
        super().__init__(request.method, target, options, headers=headers, content={}, streamed=True)

    @property
    def is_replayable(self) -> bool:
        """Whether the body can be sent again."""
        return isinstance(self._given.stream, httpx.ByteStream)

    def _build(self, target: httpx.URL, headers: httpx.Headers | dict[str, str]) -> httpx.Request:
        named = httpx.Headers({"host": target.netloc.decode("ascii")})
        named.update(headers)
        built = httpx.Request(self.method, target, headers=named, stream=self._given.stream)
        if isinstance(self._given.stream, httpx.ByteStream):
            built.read()
        return built


def _patience(request: httpx.Request) -> CallOptions:
    """Answer the time limit that the request brings along: how long its client waits for data.

    A call over a link has one limit, until its answer begins and then between two pieces, which is what `read` means to
    httpx, but for retries. Connecting and writing are in it.
    """
    said = request.extensions.get("timeout")
    if not said or said == _UNSAID:
        return CallOptions()
    wait = said.get("read")
    return CallOptions(timeout=math.inf if wait is None else wait)
