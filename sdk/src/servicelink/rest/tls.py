"""The TLS context of a binding: the application's own, or one made of what the binding hands over.

A client's own connections get a context for each generation of files, so that one which began with an earlier
certificate is not used for new calls: its server may have stopped accepting that one. Code that keeps its own client
gets one context that follows (`ssl_context`).
"""

import ssl

from servicelink.binding import Binding, TlsFiles
from servicelink.find import source_of
from servicelink.tls import FollowingContext, client_context
from servicelink_contract.rules import Protocol


class Contexts:
    """Answers the context for a binding; the same one as long as its files are the same, so connections are kept."""

    def __init__(self, own: ssl.SSLContext | None = None) -> None:
        self._own = own
        self._systems: ssl.SSLContext | None = None
        self._known: tuple[TlsFiles, ssl.SSLContext] | None = None

    def __call__(self, binding: Binding) -> ssl.SSLContext | None:
        """Answer the context, None where no TLS is spoken: to make one takes tens of milliseconds."""
        if self._own is not None or not binding.uri.lower().startswith("https:"):
            return self._own
        if binding.tls is None:
            # Not an engine's own, which may trust more than the system does.
            if self._systems is None:
                self._systems = ssl.create_default_context()
            return self._systems
        # One reference is read and written at once, whichever thread does it.
        known = self._known
        if known is None or known[0] != binding.tls:
            known = self._known = (binding.tls, client_context(binding.tls))
        return known[1]


def ssl_context(name: str, protocol: Protocol = Protocol.REST) -> ssl.SSLContext:
    """Answer a context for an HTTP client of your own; every new connection shows and trusts what the link has then.

    Does no I/O. Connections raise LinkNotFound while there is no such link.

        requests = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=servicelink.ssl_context("payments")))
    """
    source, contexts = source_of(name, protocol), Contexts()
    plain = ssl.create_default_context()
    return FollowingContext(lambda: contexts(source.current()) or plain)
