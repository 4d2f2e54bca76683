"""A server that stands in for the real one in tests of clients: real sockets, the real middleware, in a thread."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from servicelink.wsgi import LinkMiddleware

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection, so that one which is kept open keeps nobody out."""

    daemon_threads = True
    # A burst of clients at its start finds room.
    request_queue_size = 128


class _Handler(WSGIRequestHandler):
    """Keeps connections open, as servers do, and keeps quiet."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


def answer_all(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer 200 and `{}`, whatever is asked."""
    start_response("200 OK", [("content-type", "application/json"), ("content-length", "2")])
    return [b"{}"]


@contextmanager
def serve_wsgi(app: App | None, service: str) -> Iterator[str]:
    """Serve an application (None: one that answers everything) behind the middleware of a service; answer its address.

    Raises LinkConfigurationError where the environment names no verifier of that service.
    """
    checked = LinkMiddleware(app or answer_all, service)
    with make_server("127.0.0.1", 0, checked, server_class=_Server, handler_class=_Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
