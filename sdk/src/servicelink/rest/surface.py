"""The methods of a REST client, for both worlds: what differs is what running a call answers.

`R` is what a unary call answers: a response, or a coroutine of one. `S` is what a stream answers: a context manager, or
an asynchronous one.
"""

from abc import abstractmethod
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from typing import IO, Any, Generic, TypedDict, TypeVar, Unpack

import httpx

from servicelink.calls.options import CallOptions
from servicelink.rest.caller import Caller
from servicelink.rest.exchange import RestExchange
from servicelink.rest.fields import Headers

R = TypeVar("R")
S = TypeVar("S")
Primitive = str | int | float | bool | None
File = IO[bytes] | bytes | str
FileField = File | tuple[str | None, File] | tuple[str | None, File, str | None]


class RequestOptions(TypedDict, total=False):
    """What a call takes beside its method and URL.

    `params`, `headers`, `content`, `data`, `files` and `json` are as httpx takes them. `timeout` is seconds for this
    call, `attempt_timeout` for each attempt, `retries` further attempts; `idempotent` says that doing it twice does no
    harm; `raise_for_status` raises RemoteError for 4xx and 5xx.
    """

    params: (
        httpx.QueryParams
        | Mapping[str, Primitive | Sequence[Primitive]]
        | Sequence[tuple[str, Primitive]]
        | str
        | bytes
        | None
    )
    headers: Headers | None
    content: str | bytes | Iterable[bytes] | AsyncIterable[bytes] | None
    data: Mapping[str, Any] | None
    files: Mapping[str, FileField] | Sequence[tuple[str, FileField]] | None
    json: Any
    timeout: float | None
    attempt_timeout: float | None
    retries: int | None
    idempotent: bool | None
    raise_for_status: bool


_OF_CALL = frozenset({"timeout", "attempt_timeout", "retries", "idempotent"})
_OF_CONTENT = frozenset({"params", "content", "data", "files", "json"})
_KNOWN = _OF_CALL | _OF_CONTENT | {"headers", "raise_for_status"}


class RestMethods(Caller, Generic[R, S]):
    """A client's calls."""

    @abstractmethod
    def _run(self, exchange: RestExchange) -> R:
        """Make a unary call."""

    @abstractmethod
    def _open(self, exchange: RestExchange) -> S:
        """Make a call whose answer is streamed."""

    def request(self, method: str, url: str | httpx.URL, **options: Unpack[RequestOptions]) -> R:
        """Make one call; `url` is a path below the link's address, or a URL of the same origin.

        Answers 4xx and 5xx as responses unless `raise_for_status=True`, which raises RemoteError. Raises LinkNotFound,
        ServiceUnavailable, ServiceTimeout, CircuitOpen, RateLimited, InvalidServiceAuth, PermissionDenied, and
        ServiceError for a call that must not be sent.
        """
        return self._run(self._exchange(method, url, options, streamed=False))

    def stream(self, method: str, url: str | httpx.URL, **options: Unpack[RequestOptions]) -> S:
        """Make one call, and read its answer as it comes: `with client.stream("GET", "/export") as response`.

        `timeout` bounds the time until the answer begins, then the time between two pieces of it.
        """
        return self._open(self._exchange(method, url, options, streamed=True))

    def get(self, url: str | httpx.URL, **options: Unpack[RequestOptions]) -> R:
        """GET; options as `request`."""
        return self.request("GET", url, **options)

    def post(self, url: str | httpx.URL, **options: Unpack[RequestOptions]) -> R:
        """POST; options as `request`."""
        return self.request("POST", url, **options)

    def put(self, url: str | httpx.URL, **options: Unpack[RequestOptions]) -> R:
        """PUT; options as `request`."""
        return self.request("PUT", url, **options)

    def patch(self, url: str | httpx.URL, **options: Unpack[RequestOptions]) -> R:
        """PATCH; options as `request`."""
        return self.request("PATCH", url, **options)

    def delete(self, url: str | httpx.URL, **options: Unpack[RequestOptions]) -> R:
        """DELETE; options as `request`."""
        return self.request("DELETE", url, **options)

    def head(self, url: str | httpx.URL, **options: Unpack[RequestOptions]) -> R:
        """HEAD; options as `request`."""
        return self.request("HEAD", url, **options)

    def options(self, url: str | httpx.URL, **options: Unpack[RequestOptions]) -> R:
        """OPTIONS; options as `request`."""
        return self.request("OPTIONS", url, **options)

    def _exchange(self, method: str, url: str | httpx.URL, options: RequestOptions, *, streamed: bool) -> RestExchange:
        given: dict[str, Any] = dict(options)
        if unknown := given.keys() - _KNOWN:
            raise TypeError(f"a call takes no {', '.join(sorted(unknown))}")
        _require_body(given.get("content"), asynchronous=self._is_asynchronous)
        said = {name: given[name] for name in given.keys() & _OF_CALL}
        return RestExchange(
            method,
            url,
            CallOptions(**said).over(self._options) if said else self._options,
            headers=given.get("headers"),
            content={name: given[name] for name in given.keys() & _OF_CONTENT},
            raise_for_status=given.get("raise_for_status", False),
            streamed=streamed,
        )


def _require_body(content: Any, *, asynchronous: bool) -> None:
    """Raise TypeError for a body that a client of that world cannot send; httpx takes those of either."""
    if content is None or isinstance(content, bytes | str):
        return
    # Of the others one hands out numbers, and one its keys.
    is_plain = isinstance(content, Iterable) and not isinstance(content, bytearray | memoryview | Mapping)
    if asynchronous:
        fits = isinstance(content, AsyncIterable) and not is_plain
        kinds = "an asynchronous client takes bytes, str or an asynchronous iterable of bytes"
    else:
        fits, kinds = is_plain, "a synchronous client takes bytes, str or an iterable of bytes"
    if not fits:
        raise TypeError(f"content is of {type(content).__name__}; {kinds}")
