"""A gRPC server's end of TLS: its certificate and the clients it trusts, followed as files and verifier change.

gRPC can demand a certificate of every client or ask for none, and nothing between, for as long as a port is open. It
has no switch for session tickets; a change of files ends the sessions of before, and each call is held against the
roots of its moment whichever way its connection began.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from servicelink.binding import TlsFiles
from servicelink.server_tls import observe_server_files


def grpc_server_credentials(
    *, service: str | None = None, tls_dir: str | Path | None = None, client_certificates: bool | None = None
) -> grpc.ServerCredentials:
    """Answer the TLS of a gRPC server of either world, which follows its files without a new port.

    `service` names the Service whose certificate and verifier to use, needed where several are mounted; `tls_dir` is
    the folder with tls.crt and tls.key, found beside the verifiers without it. With `client_certificates` a client has
    to show one that the verifier's roots vouch for; None is whether the verifier has roots now. A server for clients
    with certificates and for clients with keys opens two ports. Raises LinkConfigurationError where there is no
    certificate yet.

        server.add_secure_port("[::]:50051", servicelink.grpc_server_credentials())
    """
    files = observe_server_files(service, os.environ, None if tls_dir is None else Path(tls_dir))
    first = files.texts()
    known = [first]

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        """Answer what a connection that begins now is to see; None where it is what the one before saw."""
        found = files.texts()
        if found == known[0]:
            return None
        known[0] = found
        return _configuration(found)

    # That it may answer None, its types do not say.
    fetcher: Callable[[], Any] = fetch
    demands = bool(first.trust) if client_certificates is None else client_certificates
    return grpc.dynamic_ssl_server_credentials(_configuration(first), fetcher, demands)


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    pair = (files.private_key.encode(), files.certificate.encode())
    # Without roots nobody's certificate is taken; the system's are not asked.
    return grpc.ssl_server_certificate_configuration([pair], files.trust.encode() or None)
