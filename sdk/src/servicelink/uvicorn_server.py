"""uvicorn with TLS that follows its files, and with the client's certificate in the scope, which it does not tell.

Each of uvicorn's protocols (httptools, h11, websockets) runs the application that its connection holds. So that is what
is wrapped, once for each connection: the scope then says what the connection proved, by the TLS extension of ASGI, and
a connection that has lasted too long ends with the next answer, so that no client keeps one for ever.
"""

import asyncio
import ssl
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import uvicorn

from servicelink.asgi import App, Message, Receive, Scope, Send
from servicelink.peers import read_peer
from servicelink.server_tls import observe_server_context

CONNECTION_AGE = 300.0
# RFC 6455, section 7.4.1: the endpoint is going away.
_GOING_AWAY = 1001
_CLOSE = (b"connection", b"close")


class LinkConfig(uvicorn.Config):
    """A `uvicorn.Config` whose TLS follows files; see `uvicorn_config`."""

    def __init__(
        self,
        app: Any,
        *,
        service: str | None = None,
        tls_dir: str | Path | None = None,
        connection_age: float = CONNECTION_AGE,
        **options: Any,
    ) -> None:
        if given := [name for name in options if name.startswith("ssl_")]:
            raise TypeError(f"{', '.join(sorted(given))}: TLS is set up by the link's own files")
        super().__init__(app, **options)
        self._link_service = service
        self._link_folder = None if tls_dir is None else Path(tls_dir)
        self._link_age = connection_age

    @property
    def is_ssl(self) -> bool:
        """Whether TLS is on: from `load` on, which must not look for files of uvicorn's own options."""
        return bool(self.loaded)

    def load(self) -> None:
        """Load the application, and set TLS up; raises LinkConfigurationError."""
        context = observe_server_context(self._link_service, self._link_folder)
        super().load()
        self.ssl = context
        self.http_protocol_class = _telling(self.http_protocol_class, self._link_age)
        if self.ws_protocol_class is not None:
            self.ws_protocol_class = _telling(self.ws_protocol_class, self._link_age)


def uvicorn_config(
    app: Any,
    *,
    service: str | None = None,
    tls_dir: str | Path | None = None,
    connection_age: float = CONNECTION_AGE,
    **options: Any,
) -> uvicorn.Config:
    """Answer the configuration of a uvicorn server that serves `app` over TLS and tells it who calls.

    `service` names the Service whose certificate and verifier to use, needed where several are mounted; `tls_dir` is
    the folder with tls.crt and tls.key, found beside the verifiers without it. A connection is closed with the first
    answer after `connection_age` seconds. Other options are uvicorn's. `run()` raises LinkConfigurationError.

        app = servicelink.LinkMiddleware(app)
        uvicorn.Server(servicelink.uvicorn_config(app, host="0.0.0.0", port=8443)).run()
    """
    return LinkConfig(app, service=service, tls_dir=tls_dir, connection_age=connection_age, **options)


def _telling(protocol: Any, age: float) -> Any:
    """Answer a protocol class of uvicorn that tells the application what its connection proved."""

    class Telling(protocol):  # type: ignore[misc] # whichever of uvicorn's it is
        app: App

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.app = _Connection(self.app, transport.get_extra_info("ssl_object"), age)

    Telling.__name__ = Telling.__qualname__ = f"Link{protocol.__name__}"
    return Telling


class _Connection:
    """The application of one connection."""

    def __init__(self, app: App, tls: ssl.SSLObject | None, age: float) -> None:
        self._app = app
        self._until = time.monotonic() + age
        self._told = None if tls is None else _tell(tls)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._told is None:
            await self._app(scope, receive, send)
            return
        scope["extensions"] = {**scope.get("extensions", {}), "tls": self._told}
        if scope["type"] == "websocket":
            await self._app(scope, self._receiving(receive, send), self._pushing(send))
        else:
            await self._app(scope, receive, self._sending(send))

    def _sending(self, send: Send) -> Send:
        async def close_when_old(message: Message) -> None:
            if message["type"] == "http.response.start" and time.monotonic() >= self._until:
                message = {**message, "headers": [*message.get("headers", ()), _CLOSE]}
            await send(message)

        return close_when_old

    def _pushing(self, send: Send) -> Send:
        async def end_when_old(message: Message) -> None:
            if message["type"] == "websocket.send" and time.monotonic() >= self._until:
                await send({"type": "websocket.close", "code": _GOING_AWAY})
                # As a server says that a client is gone (ASGI WebSocket specification, "Send - send event").
                raise OSError("the connection has lasted too long")
            await send(message)

        return end_when_old

    def _receiving(self, receive: Receive, send: Send) -> Receive:
        async def end_when_old() -> Message:
            try:
                async with asyncio.timeout(max(0.0, self._until - time.monotonic())):
                    return await receive()
            except TimeoutError:
                await send({"type": "websocket.close", "code": _GOING_AWAY})
                return {"type": "websocket.disconnect", "code": _GOING_AWAY}

        return end_when_old


def _tell(tls: ssl.SSLObject) -> MutableMapping[str, Any]:
    """Answer the TLS extension (ASGI specification, "TLS Extension"), and beside it our own reading of the client."""
    der = tls.getpeercert(binary_form=True)
    version, cipher = tls.version(), tls.cipher()
    return {
        "server_cert": None,
        "client_cert_chain": [] if der is None else [ssl.DER_cert_to_PEM_cert(der)],
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": _VERSIONS.get(version or ""),
        "cipher_suite": None if cipher is None else _CIPHERS.get(cipher[0]),
        "servicelink": read_peer(tls),
    }


_VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
# The IANA's numbers of TLS 1.3's (RFC 8446, appendix B.4); OpenSSL's names of others are its own.
_CIPHERS = {"TLS_AES_128_GCM_SHA256": 0x1301, "TLS_AES_256_GCM_SHA384": 0x1302, "TLS_CHACHA20_POLY1305_SHA256": 0x1303}
