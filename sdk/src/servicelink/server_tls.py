"""A server's end of TLS: its own certificate and the clients it trusts, followed as files and verifier change.

A certificate is asked for and not required: who shows none may come with a key, or to an exempt path, and the
middleware refuses the rest with an answer that says why. There are no session tickets, because a session that is
resumed is not checked against the roots of today.
"""

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

from servicelink.binding import TlsFiles
from servicelink.errors import LinkConfigurationError
from servicelink.folder import SwappedFolder
from servicelink.guard import VERIFIER_DIR, observe_guard
from servicelink.tls import FollowingContext, load_chain, load_trust
from servicelink.verify import Guard
from servicelink_contract.binding import BindingKey

TLS_DIR = "SERVICELINK_TLS_DIR"
# Beside the folder of verifiers, as the operator mounts it.
_SIBLING = "tls"


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Answer a server's context; `files.trust` are its clients' roots. Raises ValueError for texts that do not fit.

    TLS 1.2 or newer (RFC 8446 and 5246); clients may show a certificate where there are roots to check it by.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    load_chain(context, files.certificate, files.private_key)
    if files.trust:
        load_trust(context, files.trust)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


class ServerFiles:
    """A server's certificate in a folder, and the trust bundle of its verifier: one context for each generation."""

    def __init__(self, folder: Path, guard: Guard) -> None:
        self._files = SwappedFolder(folder, _observe_certificate, pattern="tls.*")
        self._guard = guard
        # What was read, what of it is good, and the context of that.
        self._known: tuple[TlsFiles, TlsFiles, ssl.SSLContext] | None = None

    def current(self) -> ssl.SSLContext:
        """Answer the context of this moment, the last good one where the newest do not fit.

        Raises LinkConfigurationError while there was none.
        """
        return self._current()[2]

    def texts(self) -> TlsFiles:
        """Answer the files of this moment, as `current` does, for servers that make no context of ours."""
        return self._current()[1]

    def _current(self) -> tuple[TlsFiles, TlsFiles, ssl.SSLContext]:
        own = self._files.current()
        if own is None:
            problem = self._files.problem or f"{self._files.folder} holds no certificate"
            step = f"Mount a certificate for this server's DNS name there, or set {TLS_DIR}"
            raise LinkConfigurationError(problem, next_step=step)
        files = TlsFiles(own.certificate, own.private_key, self._guard.current().trust)
        # One reference is read and written at once, whichever thread does it.
        known = self._known
        if known is None or known[0] != files:
            known = self._known = (files, *self._renew(files, known))
        return known

    @staticmethod
    def _renew(
        files: TlsFiles, known: tuple[TlsFiles, TlsFiles, ssl.SSLContext] | None
    ) -> tuple[TlsFiles, ssl.SSLContext]:
        try:
            return files, server_context(files)
        except ValueError as error:
            if known is None:
                raise LinkConfigurationError(f"the verifier's trust bundle: {error}") from None
            return known[1:]


def _observe_certificate(folder: Path) -> TlsFiles:
    """Read certificate and key; raises ValueError where they do not fit, and OSError."""
    certificate, key = ((folder / name).read_text("utf-8") for name in (BindingKey.TLS_CERTIFICATE, BindingKey.TLS_KEY))
    files = TlsFiles(certificate, key, "")
    server_context(files)
    return files


def observe_server_files(service: str | None, environ: Mapping[str, str], folder: Path | None = None) -> ServerFiles:
    """Answer the files of a service (None: of the only one there is); `folder` is told, or found beside its verifier.

    Raises LinkConfigurationError, naming what was looked for.
    """
    return ServerFiles(folder or _find_folder(service, environ), observe_guard(service, environ))


def _find_folder(service: str | None, environ: Mapping[str, str]) -> Path:
    verifiers = environ.get(VERIFIER_DIR)
    root = Path(environ[TLS_DIR]) if environ.get(TLS_DIR) else Path(verifiers or "").parent / _SIBLING
    if not verifiers and not environ.get(TLS_DIR):
        step = "In a cluster a ServiceLinkPolicy has both mounted; elsewhere set it, or pass tls_dir="
        raise LinkConfigurationError(f"neither {TLS_DIR} nor {VERIFIER_DIR} is set", next_step=step)
    if service is not None:
        return root / service
    try:
        found = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    except OSError as error:
        step = f"Mount a certificate below it, or set {TLS_DIR}"
        raise LinkConfigurationError(f"{root} cannot be read ({error.strerror})", next_step=step) from None
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise LinkConfigurationError(f"{root} has not one folder of a Service but {names}", next_step="Pass service=")
    return found[0]


def following_context(files: ServerFiles) -> ssl.SSLContext:
    """Answer one context for a server's whole life; raises LinkConfigurationError where there is no certificate yet."""
    files.current()
    return FollowingContext(files.current, server_side=True)


def observe_server_context(service: str | None, folder: Path | None) -> ssl.SSLContext:
    """Answer the context of a service by the environment of this process; raises LinkConfigurationError."""
    return following_context(observe_server_files(service, os.environ, folder))
