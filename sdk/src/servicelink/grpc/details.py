"""What grpcio itself says of a call that its channel ended, told in words of ours.

Its words may quote what the other side sent, so none of them goes on. Nor are they proof: a server that passes on an
error of its own calls sends the same.
"""

import re

# Of a call that was given no connection; the last is what versions before 1.8x say of names.
_NOT_CONNECTED = (
    "connections to all backends failing",
    "failed to connect to all addresses",
    "errors resolving ",
    "DNS resolution failed ",
)
# What the words hold, and what it means; the first that is found counts.
_REASONS = (
    ("errors resolving ", "its name cannot be resolved"),
    ("DNS resolution failed ", "its name cannot be resolved"),
    ("Connection refused", "connection refused"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted"),
    ("Hostname Verification Check failed", "its certificate is for another name"),
    ("is not in peer certificate", "its certificate is for another name"),
    ("handshake failed", "no TLS could be agreed on"),
)
_TOO_LARGE = re.compile(r"(?:Stream removed \()?CLIENT: Received message larger than max \([0-9]+ vs\. ([0-9]+)\)+")


def tell_not_connected(details: str) -> str | None:
    """Answer why there was no connection, None where that is not what the words say."""
    if not details.startswith(_NOT_CONNECTED):
        return None
    reason = next((reason for words, reason in _REASONS if words in details), None)
    return "not connected" if reason is None else f"not connected: {reason}"


def tell_too_large(details: str) -> str | None:
    """Answer that the client took no answer of that size, None where that is not what the words say."""
    found = _TOO_LARGE.fullmatch(details)
    return None if found is None else f"the answer is larger than the {found[1]} bytes that the client takes"
