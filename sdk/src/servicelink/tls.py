"""TLS contexts out of PEM texts, and one that follows them as they change.

A certificate that is rotated must not need a new server, nor a new client in code that keeps its own. So
`FollowingContext` is one context for its owner and asks, connection by connection, which generation of files holds.
Each generation is a context of its own, so a session of an earlier one is never resumed: resumption skips the check of
the certificate, and with it a root that was removed (`sni_callback`, the other way to swap, lets it pass).
"""

import os
import ssl
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from servicelink.binding import TlsFiles


def load_chain(context: ssl.SSLContext, certificate: str, private_key: str) -> None:
    """Give a context its certificate with the chain, and its key; raises ValueError for texts that do not fit.

    The standard library reads files only, and a key must not get onto a disk: this one is memory (memfd_create(2)).
    """
    with _shown(f"{certificate}\n{private_key}\n".encode()) as path:
        try:
            context.load_cert_chain(path, password=_no_password)
        except ssl.SSLError as error:
            raise ValueError(f"the certificate and its key do not fit: {error.reason or 'malformed'}") from None


@contextmanager
def _shown(text: bytes) -> Iterator[str]:
    """Answer a path at which a text can be read for a moment."""
    if hasattr(os, "memfd_create"):
        with open(os.memfd_create("servicelink-tls"), "wb") as memory:  # noqa: PTH123 - it has no path
            memory.write(text)
            memory.flush()
            yield f"/proc/self/fd/{memory.fileno()}"
        return
    # A laptop whose system has no such call (macOS): the texts came from a file of its disk as well.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pair"
        path.touch(mode=0o600)
        path.write_bytes(text)
        yield str(path)


def _no_password() -> str:
    # Without it OpenSSL would ask on the terminal, and wait.
    raise ValueError("the key is encrypted")


def load_trust(context: ssl.SSLContext, roots: str) -> None:
    """Have a context trust these roots; raises ValueError for a text without any."""
    try:
        # OpenSSL passes over what stands between the blocks, but Python takes no comment that is not ASCII.
        context.load_verify_locations(cadata=roots.encode("ascii", "replace").decode("ascii"))
    except ssl.SSLError as error:
        raise ValueError(f"the roots are not understood: {error.reason or 'malformed'}") from None


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Answer a client's context: it shows the certificate, where there is one, and checks the server's name.

    Without roots the system's are trusted. Raises ValueError for texts that do not fit.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if files.trust:
        load_trust(context, files.trust)
    else:
        context.load_default_certs()
    if files.certificate:
        load_chain(context, files.certificate, files.private_key)
    return context


class FollowingContext(ssl.SSLContext):
    """A context that hands every new connection to the generation that `current` answers at that moment.

    Connections that there are stay as they began. What is set on it beside ALPN protocols has no effect: each
    generation is set up where it is made. `server_side` says on which end of connections it stands.
    """

    _current: Callable[[], ssl.SSLContext]
    _protocols: tuple[str, ...]

    def __new__(cls, current: Callable[[], ssl.SSLContext], *, server_side: bool = False) -> Self:  # noqa: ARG004, D102
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, current: Callable[[], ssl.SSLContext], *, server_side: bool = False) -> None:  # noqa: ARG002
        self._current = current
        self._protocols = ()

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """Offer these protocols in all generations."""
        self._protocols = tuple(alpn_protocols)

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        """As the generation of this moment does."""
        return self._generation().wrap_socket(*arguments, **options)

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """As the generation of this moment does."""
        return self._generation().wrap_bio(*arguments, **options)

    def _generation(self) -> ssl.SSLContext:
        generation = self._current()
        if self._protocols:
            generation.set_alpn_protocols(self._protocols)
        return generation
