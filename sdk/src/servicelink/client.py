"""Calling a server over a link: REST with httpx's types, credential and time limit from the binding.

One call is: find the binding, build the request, attach the credential, send, read it all; once more only if the server
refused the credential and a newer one has come meanwhile, because then nothing was executed.
"""

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import httpx

from servicelink.binding import (
    Binding,
    Credential,
    FixedSource,
    Source,
    observe_source,
    parse_credential,
    shared_key,
)
from servicelink.context import REQUEST_ID_HEADER, outgoing_request_id
from servicelink.engine import Engine
from servicelink.errors import (
    InvalidServiceAuth,
    LinkNotFound,
    PermissionDenied,
    RemoteError,
    ServiceError,
    ServiceTimeout,
    ServiceUnavailable,
)
from servicelink.verify import Code

_DEFAULTS = {"accept": "*/*", "accept-encoding": "gzip, deflate", "user-agent": "servicelink"}
_PORTS = {"http": 80, "https": 443}
_FORBIDDEN = 403
_FIRST_ERROR = 400


@dataclass(frozen=True, slots=True)
class _Where:
    """What every error of one call says."""

    link: str
    operation: str
    request_id: str

    def words(self, next_step: str) -> dict[str, Any]:
        return {
            "link": self.link,
            "operation": self.operation,
            "request_id": self.request_id,
            "next_step": next_step,
        }


class ServiceClient:
    """A client of one server, for the application's life: `connect(name)`, or with an explicit address.

    `service_name` names a link or its server; it is looked for on the first call. With `base_url` nothing is looked
    for, and a credential is sent only if given as `api_key`, or with `shared_key=True` from INTERNAL_API_KEY.
    `timeout` is seconds for a whole call, body included; None: the link's own, else 5. May be made outside of any loop.
    """

    def __init__(
        self,
        *,
        service_name: str,
        base_url: str | None = None,
        timeout: float | None = None,
        api_key: str | None = None,
        shared_key: bool = False,
    ) -> None:
        self._name = service_name
        self._timeout = timeout
        self._engine = Engine()
        self._source: Source | None = None
        if base_url is None and (api_key is not None or shared_key):
            raise ValueError("api_key and shared_key go with base_url: a link brings its own credential")
        if base_url is not None:
            credential = _explicit_credential(api_key, shared=shared_key)
            self._source = FixedSource(Binding(service_name, base_url, credential))

    async def request(
        self,
        method: str,
        url: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - a limit for the whole call is what callers ask for
        raise_for_status: bool = False,
        headers: Mapping[str, str] | None = None,
        **content: Any,
    ) -> httpx.Response:
        """Make one call; `url` is a path below the link's address; `content` as httpx takes it.

        That is `params`, `content`, `data`, `files`, `json`. `timeout` is in seconds and replaces the client's. Answers
        4xx and 5xx as responses unless `raise_for_status`, which raises RemoteError. Raises LinkNotFound,
        ServiceUnavailable, ServiceTimeout, InvalidServiceAuth, PermissionDenied, and ServiceError for a URL elsewhere.
        """
        binding = self._find().current()
        given = {key.lower(): value for key, value in (headers or {}).items()}
        request_id = given.setdefault(REQUEST_ID_HEADER, outgoing_request_id())
        target = _join(binding, url, request_id)
        where = _Where(binding.link, f"{method.upper()} {target.path}", request_id)
        request = httpx.Request(method, target, headers={**_DEFAULTS, **given}, **content)
        # Ours alone: an application that sets it would send one credential and report another.
        if binding.credential is not None:
            request.headers.pop(binding.credential.header, None)
        seconds = next(found for found in (timeout, self._timeout, binding.timeout) if found is not None)
        response = await self._within(seconds, request, binding, where)
        return _settle(response, where, raise_for_status=raise_for_status)

    async def get(self, url: str, **options: Any) -> httpx.Response:
        """GET; options as `request`."""
        return await self.request("GET", url, **options)

    async def post(self, url: str, **options: Any) -> httpx.Response:
        """POST; options as `request`."""
        return await self.request("POST", url, **options)

    async def put(self, url: str, **options: Any) -> httpx.Response:
        """PUT; options as `request`."""
        return await self.request("PUT", url, **options)

    async def patch(self, url: str, **options: Any) -> httpx.Response:
        """PATCH; options as `request`."""
        return await self.request("PATCH", url, **options)

    async def delete(self, url: str, **options: Any) -> httpx.Response:
        """DELETE; options as `request`."""
        return await self.request("DELETE", url, **options)

    async def head(self, url: str, **options: Any) -> httpx.Response:
        """HEAD; options as `request`."""
        return await self.request("HEAD", url, **options)

    async def options(self, url: str, **options: Any) -> httpx.Response:
        """OPTIONS; options as `request`."""
        return await self.request("OPTIONS", url, **options)

    async def aclose(self) -> None:
        """Close the connections of this event loop."""
        await self._engine.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<ServiceClient {self._name}>"

    def _find(self) -> Source:
        if self._source is None:
            self._source = observe_source(self._name, os.environ)
        return self._source

    async def _within(self, seconds: float, request: httpx.Request, binding: Binding, where: _Where) -> httpx.Response:
        started = time.monotonic()
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                await _read_body(request)
                response = await self._attempts(request, binding)
        except TimeoutError:
            if not limit.expired():
                raise
            step = "Ask for more time with timeout=, or look why the server is slow"
            raise ServiceTimeout(f"no whole answer within {seconds:g} s", **where.words(step)) from None
        except httpx.TransportError as error:
            raise _unavailable(error, where) from None
        except httpx.DecodingError:
            words = where.words("Look at what encodes the server's answers")
            raise ServiceUnavailable("the answer's content-encoding is broken", **words) from None
        response.elapsed = timedelta(seconds=time.monotonic() - started)
        return response

    async def _attempts(self, request: httpx.Request, binding: Binding) -> httpx.Response:
        response = await self._engine.send(request, _as_header(binding.credential))
        if _refusal(response) is not Code.INVALID_SERVICE_AUTH:
            return response
        fresh = self._find().reload()
        same_origin = _origin(httpx.URL(fresh.uri)) == _origin(request.url)
        if fresh.credential == binding.credential or not same_origin:
            return response
        return await self._engine.send(request, _as_header(fresh.credential))


def connect(name: str, *, timeout: float | None = None) -> ServiceClient:
    """Answer a client for the link of that name, or for the only link to a server of that name; does no I/O.

    `timeout` is seconds for a whole call; None: the link's own, else 5.
    """
    return ServiceClient(service_name=name, timeout=timeout)


def _explicit_credential(api_key: str | None, *, shared: bool) -> Credential | None:
    if api_key is not None:
        return parse_credential(api_key)
    if not shared:
        return None
    key = shared_key(os.environ)
    if not key:
        raise LinkNotFound("shared_key=True, but INTERNAL_API_KEY is not set", next_step="Set it, or pass api_key=")
    return parse_credential(key)


def _as_header(credential: Credential | None) -> dict[str, str]:
    return {} if credential is None else {credential.header: credential.text}


def _join(binding: Binding, url: str, request_id: str) -> httpx.URL:
    """Answer the URL below the link's address; raises ServiceError for one of another origin."""
    base, given = httpx.URL(binding.uri), httpx.URL(url)
    if base.scheme not in _PORTS or not base.host or base.userinfo:
        raise LinkNotFound("its address is no http or https URL of a host", link=binding.link)
    # Not `is_relative_url`, for which `//host/path` is relative as well.
    if not given.scheme and not given.host:
        path = base.raw_path.rstrip(b"/") + b"/" + given.raw_path.removeprefix(b"/")
        return base.copy_with(raw_path=path)
    if _origin(given) != _origin(base) or given.userinfo:
        raise ServiceError(
            "the URL leads elsewhere, where this link's credential must not go",
            link=binding.link,
            request_id=request_id,
            next_step="Pass a path, or call other hosts with a client of their own",
        )
    return given


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    """Answer the origin (RFC 6454, section 4)."""
    return url.scheme, url.host, url.port or _PORTS.get(url.scheme)


async def _read_body(request: httpx.Request) -> None:
    """Read the body into memory, so that it can be sent a second time."""
    if isinstance(request.stream, httpx.AsyncByteStream):
        await request.aread()
    else:
        request.read()


def _unavailable(error: httpx.TransportError, where: _Where) -> ServiceUnavailable:
    unsent = isinstance(error, httpx.ConnectError)
    problem = f"not connected: {error}" if unsent else f"the connection broke before the answer was whole: {error}"
    found = ServiceUnavailable(problem, **where.words("See whether the server's Pods are ready"))
    found.unsent = unsent
    return found


def _settle(response: httpx.Response, where: _Where, *, raise_for_status: bool) -> httpx.Response:
    match _refusal(response):
        case Code.INVALID_SERVICE_AUTH:
            step = "See the ServiceLink's condition Issued, and whether its binding is the one mounted here"
            raise InvalidServiceAuth("the server does not take the link's credential", **where.words(step))
        case Code.PERMISSION_DENIED:
            step = "See the ServiceLink's allow rules and the server's ServiceLinkPolicy"
            raise PermissionDenied("the link does not allow this call", **where.words(step))
        case _ if raise_for_status and response.status_code >= _FIRST_ERROR:
            raise RemoteError(response.status_code, _code(response), response.text, **where.words(""))
        case _:
            return response


def _refusal(response: httpx.Response) -> Code | None:
    if response.status_code != _FORBIDDEN:
        return None
    code = _code(response)
    return Code(code) if code in set(Code) else None


def _code(response: httpx.Response) -> str | None:
    try:
        code = response.json()["error"]["code"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return code if isinstance(code, str) else None
