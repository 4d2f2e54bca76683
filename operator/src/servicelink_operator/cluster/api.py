"""Requests to the API server: dicts in, dicts out, every failure an ApiError.

There are no retries in here: who asks knows whether asking again makes sense, and would otherwise wait behind a queue
of its own requests. Every request has a deadline, so that an API server that accepts and never answers is a failure
like any other.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import aiohttp
import orjson
from kubernetes.aio.config import ConfigException
from yarl import URL

from servicelink_operator import telemetry
from servicelink_operator.cluster.connection import Connection, open_connection
from servicelink_operator.cluster.errors import (
    ApiError,
    BusyError,
    FencedError,
    FrozenError,
    parse_error,
    parse_retry_after,
)
from servicelink_operator.cluster.fence import Fence, FencedBody
from servicelink_operator.cluster.kinds import ACCESS_REVIEW, LEASE, SECRET, SUBJECT_REVIEW, Kind

FIELD_MANAGER = "servicelink"
Object = dict[str, Any]
_METADATA = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1"
# A frozen operator still leads, and asks who it is and what it may do; a fenced one needs them to be let through again.
_ALWAYS_SENT = frozenset({LEASE, ACCESS_REVIEW, SUBJECT_REVIEW})
# A watch with bookmarks hears something about every minute; longer silence is a dead connection.
WATCH_IDLE = 100.0


class PatchType(StrEnum):
    """The content type of a patch."""

    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class _Request:
    verb: str
    method: str
    kind: Kind
    path: str
    query: Mapping[str, str]
    timeout: aiohttp.ClientTimeout
    accept: str = "application/json"
    content_type: str = "application/json"
    # May be a Secret.
    body: bytes | None = field(default=None, repr=False)
    # What it must pass before it is sent; writes only.
    fence: Fence | None = None

    @property
    def headers(self) -> dict[str, str]:
        # Within a cluster, compressing a list costs both ends more than it saves.
        return {"Accept": self.accept, "Content-Type": self.content_type, "Accept-Encoding": "identity"}

    def sendable(self) -> bytes | FencedBody | None:
        """Answer the body as it is to be sent: behind the fence where there is one."""
        return self.body if self.body is None or self.fence is None else FencedBody(self.body, self.fence)


class Api:
    """The API server under one identity.

    `frozen`: writes raise FrozenError; `fence`: they raise FencedError while it is closed; `timeout`: seconds for one
    answer; `watch_idle`: seconds that a watch may be silent.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        frozen: bool = False,
        fence: Fence | None = None,
        timeout: float = 10.0,
        watch_idle: float = WATCH_IDLE,
    ) -> None:
        self._connection = connection
        self._frozen = frozen
        self.fence = fence
        self._watch_idle = watch_idle
        self._timeout = aiohttp.ClientTimeout(total=timeout)

    @classmethod
    async def connect(cls, kubeconfig: str | None, **options: Any) -> "Api":
        """Make the client by a kubeconfig (None: in cluster, else $KUBECONFIG, else ~/.kube/config); sends nothing.

        `options` are those of the constructor. Raises kubernetes.aio.config.ConfigException.
        """
        return cls(await open_connection(kubeconfig), **options)

    async def close(self) -> None:
        """Close every connection."""
        await self._connection.end()

    async def read(self, kind: Kind, namespace: str | None, name: str, *, metadata_only: bool = False) -> Object:
        """Answer one object; with `metadata_only` a PartialObjectMetadata."""
        accept = _METADATA.format("") if metadata_only else "application/json"
        return await self._send(_Request("get", "GET", kind, kind.path(namespace, name), {}, self._timeout, accept))

    async def read_schemas(self, kind: Kind) -> Object:
        """Answer the schemas of a kind's group and version by their names, from what the API server says of itself.

        Everybody may read them (OpenAPI v3); raises NotServedError where there is no such group and version.
        """
        path = f"/openapi/v3/apis/{kind.group}/{kind.version}"
        answer = await self._send(_Request("get", "GET", kind, path, {}, self._timeout))
        schemas: Object = answer.get("components", {}).get("schemas", {})
        return schemas

    async def list_page(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        limit: int = 500,
        continue_: str | None = None,
        metadata_only: bool = False,
        resource_version: str | None = None,
    ) -> Object:
        """Answer one page of a list, at most `limit` objects; its `metadata` has `continue` while there are more."""
        query = _query(
            labelSelector=label_selector, limit=str(limit), resourceVersion=resource_version, **{"continue": continue_}
        )
        accept = _METADATA.format("List") if metadata_only else "application/json"
        return await self._send(_Request("list", "GET", kind, kind.path(namespace), query, self._timeout, accept))

    async def watch(
        self,
        kind: Kind,
        *,
        resource_version: str,
        timeout_seconds: int,
        namespace: str | None = None,
        label_selector: str | None = None,
        metadata_only: bool = False,
    ) -> AsyncGenerator[Object, None]:
        """Answer the events (`type`, `object`) after a version, bookmarks among them, until `timeout_seconds` passed.

        Raises ApiError as any request, also for an event of type ERROR, and BusyError when nothing is heard for
        `watch_idle` seconds. To be closed (contextlib.aclosing), or its connection stays taken.
        """
        query = _query(
            watch="true",
            allowWatchBookmarks="true",
            resourceVersion=resource_version,
            timeoutSeconds=str(timeout_seconds),
            labelSelector=label_selector,
        )
        timeout = aiohttp.ClientTimeout(total=timeout_seconds + 10, sock_connect=10, sock_read=self._watch_idle)
        accept = _METADATA.format("") if metadata_only else "application/json"
        request = _Request("watch", "GET", kind, kind.path(namespace), query, timeout, accept)
        async with self._answer(request) as response:
            async for line in _lines(response.content):
                yield _parse_event(line)

    async def create(self, kind: Kind, namespace: str | None, body: Object) -> Object:
        """Create an object and answer it as stored."""
        fence = self._require_writable("create", kind)
        query = {"fieldManager": FIELD_MANAGER}
        path = kind.path(namespace)
        return await self._send(
            _Request("create", "POST", kind, path, query, self._timeout, body=orjson.dumps(body), fence=fence)
        )

    async def patch(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        body: Object,
        *,
        content_type: PatchType,
        subresource: str | None = None,
        dry_run: bool = False,
        field_manager: str = FIELD_MANAGER,
        force: bool = False,
    ) -> Object:
        """Patch an object, or its subresource, and answer it as stored (`dry_run`: as it would be).

        `force` takes fields over from other managers, with PatchType.APPLY only.
        """
        fence = None if dry_run else self._require_writable("patch", kind)
        query = _query(fieldManager=field_manager, dryRun="All" if dry_run else None, force="true" if force else None)
        path, data = kind.path(namespace, name, subresource), orjson.dumps(body)
        return await self._send(
            _Request(
                *("patch", "PATCH", kind, path, query, self._timeout),
                content_type=content_type,
                body=data,
                fence=fence,
            )
        )

    async def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> None:
        """Delete an object, if it still has that UID and version; ConflictError when it has not."""
        fence = self._require_writable("delete", kind)
        preconditions = _query(uid=uid, resourceVersion=resource_version)
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        body = orjson.dumps({**options, "preconditions": preconditions})
        path = kind.path(namespace, name)
        await self._send(_Request("delete", "DELETE", kind, path, {}, self._timeout, body=body, fence=fence))

    def _require_writable(self, verb: str, kind: Kind) -> Fence | None:
        """Answer the fence that a write must pass again when it is sent; raises FrozenError and FencedError."""
        if kind in _ALWAYS_SENT:
            return None
        if self._frozen:
            raise FrozenError(f"writes are switched off: no {verb} of a {kind.kind}")
        if self.fence is not None:
            self.fence.require_open()
        return self.fence

    async def _send(self, request: _Request) -> Object:
        async with self._answer(request) as response:
            answer: Object = orjson.loads(await response.read())
        return answer

    @asynccontextmanager
    async def _answer(self, request: _Request) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send, and answer what comes back if its status is a success; its body is read inside the block."""
        try:
            async with await self._begin(request) as response:
                if response.status >= 300:  # noqa: PLR2004 (not a success, RFC 9110 section 15)
                    raise await _parse_refusal(request, response)
                yield response
        except (aiohttp.ClientError, OSError, ConfigException, orjson.JSONDecodeError) as error:
            raise _fenced(error) or _unanswered(request, error) from error

    async def _begin(self, request: _Request) -> aiohttp.ClientResponse:
        """Send, and answer as soon as the status is known."""
        connection, started, code = self._connection, time.monotonic(), 0
        try:
            response = await connection.session.request(
                request.method,
                URL(connection.base + request.path, encoded=True).with_query(dict(request.query)),
                headers={**request.headers, **await connection.authorization()},
                data=request.sendable(),
                timeout=request.timeout,
                allow_redirects=False,
                **connection.options,
            )
            code = response.status
            return response
        finally:
            telemetry.count_request(request.verb, request.kind.kind, code, time.monotonic() - started)


def _query(**fields: str | None) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value is not None}


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    # A last line without its end was cut off; its event comes again.
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line


def _parse_event(line: bytes) -> Object:
    event: Object = orjson.loads(line)
    if event["type"] == "ERROR":
        raise parse_error(int(event["object"].get("code", 0)), orjson.dumps(event["object"]))
    return event


async def _parse_refusal(request: _Request, response: aiohttp.ClientResponse) -> ApiError:
    about = f"{request.verb} {request.kind.plural}"
    return parse_error(
        response.status,
        await response.read(),
        parse_retry_after(response.headers.get("Retry-After", "")),
        kept_back=about if request.kind == SECRET else None,
    )


def _fenced(error: Exception) -> FencedError | None:
    return error.__cause__ if isinstance(error.__cause__, FencedError) else None


def _unanswered(request: _Request, error: Exception) -> BusyError:
    # A malformed answer is named by its kind only: it may hold a Secret.
    said = "the answer is no JSON" if isinstance(error, orjson.JSONDecodeError) else str(error)
    reason = "Timeout" if isinstance(error, TimeoutError) else "Unreachable"
    return BusyError(0, reason, f"{request.verb} {request.kind.plural}: {said or type(error).__name__}")
