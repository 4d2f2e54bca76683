"""httpx's requests and responses over aiohttp, and nothing added on the way.

An adapter of our own because what is between the two elsewhere re-sends by itself, rewrites encoded paths and keeps
cookies. Here a request is sent once, as it is; the credential joins it only on the wire, so that no request object that
an application may log ever holds it. Bodies are read whole, both ways: this carries unary calls.
"""

import asyncio
import weakref
from collections.abc import Mapping

import aiohttp
import httpx
import yarl

# Seconds; below the 5 after which uvicorn and others close an idle connection.
_KEEP_ALIVE = 4.0
_OWN_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class Engine:
    """One pool of connections per event loop, opened on first use, so that a client may be made at import time."""

    def __init__(self) -> None:
        self._sessions: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, aiohttp.ClientSession]
        self._sessions = weakref.WeakKeyDictionary()

    async def send(self, request: httpx.Request, extra: Mapping[str, str]) -> httpx.Response:
        """Send a request whose body has been read, with `extra` headers in place of its own of that name.

        Raises httpx.ConnectError where nothing was sent, other httpx.TransportErrors else, and httpx.DecodingError.
        """
        headers = request.headers.copy()
        headers.update(extra)
        url = yarl.URL(str(request.url.copy_with(fragment=None)), encoded=True)
        try:
            async with self._session().request(
                request.method,
                url,
                headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers.raw],
                data=request.content or None,
                allow_redirects=False,
            ) as answer:
                body = await answer.read()
        # What these errors say may quote what was sent or received, so only their kind goes on.
        except aiohttp.ClientConnectorError as error:
            raise httpx.ConnectError(error.os_error.strerror or type(error.os_error).__name__) from None
        except (aiohttp.ClientError, OSError) as error:
            raise httpx.RemoteProtocolError(f"{type(error).__name__}") from None
        return httpx.Response(answer.status, headers=answer.raw_headers, content=body, request=request)

    async def aclose(self) -> None:
        """Close the connections of this event loop; calls still under way fail."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.close()

    def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None:
            session = self._sessions[loop] = _open_session()
        return session


def _open_session() -> aiohttp.ClientSession:
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(keepalive_timeout=_KEEP_ALIVE),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        skip_auto_headers=_OWN_HEADERS,
        # httpx decodes by itself, and would decode a second time.
        auto_decompress=False,
        trust_env=False,
    )
    session._retry_connection = False  # noqa: SLF001 - aiohttp re-sends dropped idempotent calls and has no switch for it
    return session
