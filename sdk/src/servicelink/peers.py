"""What a TLS connection proves of its client, read once when the connection begins.

Which root vouched for the client is kept beside: a root that is removed later must not be believed for as long as a
connection lasts. A session that was resumed does not name it, so it stands and falls with all roots that its context
trusts.
"""

import datetime as dt
import ssl
from hashlib import sha256
from typing import Any

from servicelink.verify import Peer


def read_peer(tls: Any) -> Peer | None:
    """Read the client's certificate off a connection's `ssl.SSLObject` or `SSLSocket`; None where it showed none."""
    found = tls.getpeercert()
    if not found:
        return None
    chain = [] if tls.session_reused else _verified_chain(tls)
    roots = chain[-1:] or tls.context.get_ca_certs(binary_form=True)
    return Peer(
        uris=tuple(name for kind, name in found.get("subjectAltName", ()) if kind == "URI"),
        serial=found["serialNumber"].lower().lstrip("0"),
        not_before=_time(found["notBefore"]),
        not_after=_time(found["notAfter"]),
        roots=frozenset(sha256(root).hexdigest() for root in roots),
    )


def _verified_chain(tls: Any) -> list[bytes]:
    """Answer the chain that was verified, the leaf first, each as DER."""
    if hasattr(tls, "get_verified_chain"):
        found: list[bytes] = tls.get_verified_chain()
        return found
    # Public from Python 3.13 on; what it calls is there before.
    import _ssl  # noqa: PLC0415 - only where it is needed

    return [one.public_bytes(_ssl.ENCODING_DER) for one in tls._sslobj.get_verified_chain() or ()]  # noqa: SLF001 - see above


def _time(text: str) -> dt.datetime:
    return dt.datetime.fromtimestamp(ssl.cert_time_to_seconds(text), dt.UTC)
