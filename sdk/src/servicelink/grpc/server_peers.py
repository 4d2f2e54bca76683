"""What a gRPC connection proves of its client, held against the roots of this moment.

gRPC checks a certificate when a connection begins, and does not tell by which root. Connections outlive roots, so the
chain that the client showed is verified again here: once for each certificate and trust bundle.
"""

from collections.abc import Iterable, Mapping

from servicelink.memo import Memo
from servicelink.verify import Now, Peer

# Names that gRPC gives to what a connection proved (grpc_security_constants.h).
_CERTIFICATE, _CHAIN, _URIS = "x509_pem_cert", "x509_pem_cert_chain", "peer_uri"
_MOST = 1024
_Shown = tuple[bytes, bytes, tuple[str, ...]]


class Peers:
    """Reads clients' certificates; `now` is the aware time of day."""

    def __init__(self, now: Now) -> None:
        self._now = now
        # One reference is read and written at once, whichever thread does it.
        self._known: tuple[str, Memo[_Shown, Peer]] = ("", self._verified("", now))

    def read(self, proved: Mapping[str, Iterable[bytes]], trust: str) -> Peer | None:
        """Answer the client's certificate, and whether these roots (PEM) vouch for it; None where it showed none."""
        leaf = b"".join(proved.get(_CERTIFICATE, ()))
        if not leaf:
            return None
        known = self._known
        if known[0] != trust:
            known = self._known = (trust, self._verified(trust, self._now))
        uris = tuple(uri.decode("utf-8", "backslashreplace") for uri in proved.get(_URIS, ()))
        return known[1][leaf, b"".join(proved.get(_CHAIN, ())), uris]

    @staticmethod
    def _verified(trust: str, now: Now) -> Memo[_Shown, Peer]:
        return Memo(lambda shown: _verify(shown, trust, now), wants=lambda _: True, most=_MOST)


def _verify(shown: _Shown, trust: str, now: Now) -> Peer:
    # Here, since servers without certificates have no need of it.
    from cryptography import x509  # noqa: PLC0415 - as the comment says
    from cryptography.x509.verification import PolicyBuilder, Store, VerificationError  # noqa: PLC0415 - as above

    leaf, chain, uris = shown
    certificate = x509.load_pem_x509_certificate(leaf)
    not_after, problem = certificate.not_valid_after_utc, None
    try:
        roots = Store(x509.load_pem_x509_certificates(trust.encode()))
        # Without the leaf, which some versions of gRPC put first.
        others = [one for one in x509.load_pem_x509_certificates(chain) if one != certificate] if chain else []
        verifier = PolicyBuilder().store(roots).time(now()).build_client_verifier()
        # Nobody vouches for longer than any of those above.
        not_after = min(one.not_valid_after_utc for one in verifier.verify(certificate, others).chain)
    except (ValueError, VerificationError):
        problem = "no root that is trusted now vouches for the certificate"
    return Peer(uris, f"{certificate.serial_number:x}", certificate.not_valid_before_utc, not_after, problem)
