"""API keys: `slk_<kid>_<secret>_<checksum>`, 65 characters of fixed places.

    slk_   8 letters and digits   _   43 characters base64url (256 bit)   _   8 hexadecimal digits
           the kid, public            the secret                              CRC-32 of all before its underscore

The fixed form lets a secret scanner find a key wherever it leaked; the checksum tells a mistyped key from a wrong one
without a look-up. Places are counted, not split at underscores, since base64url has underscores of its own.
"""

import base64
import hashlib
import re
import zlib
from dataclasses import dataclass, field
from enum import StrEnum

PREFIX = "slk_"
KID_LENGTH = 8
SECRET_BYTES = 32
KEY_LENGTH = 65
_FORM = re.compile(r"slk_([A-Za-z0-9]{8})_([A-Za-z0-9_-]{43})_([0-9a-f]{8})", re.ASCII)
_KID = re.compile(r"[A-Za-z0-9]{8}", re.ASCII)


class KeyProblem(StrEnum):
    """Why a text is no API key."""

    FORM = "it does not have the form of a key"
    CHECKSUM = "its checksum does not fit: a character was mistyped or lost"


class MalformedKeyError(ValueError):
    """A text is no API key; says why and never what the text was."""

    def __init__(self, problem: KeyProblem) -> None:
        super().__init__(f"not an API key: {problem}")
        self.problem = problem


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A well-formed key; `kid` is public, `text` the whole key and never shown by repr."""

    kid: str
    text: str = field(repr=False)

    @property
    def sha256(self) -> str:
        """What a verifier keeps: the SHA-256 of the whole key, 64 hexadecimal digits.

        A 256-bit random secret cannot be guessed, so it needs no slow hash.
        """
        return hashlib.sha256(self.text.encode("ascii")).hexdigest()


def render_key(kid: str, secret: bytes) -> ApiKey:
    """Make the key of a kid (8 letters and digits) and a secret (32 random bytes); raises ValueError for others."""
    if not _KID.fullmatch(kid):
        raise ValueError(f"'{kid}' is no kid: 8 letters and digits are")
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a secret has {SECRET_BYTES} bytes, not {len(secret)}")
    encoded = base64.urlsafe_b64encode(secret).rstrip(b"=").decode("ascii")
    body = f"{PREFIX}{kid}_{encoded}"
    return ApiKey(kid=kid, text=f"{body}_{_checksum(body)}")


def parse_key(text: str) -> ApiKey:
    """Parse what a caller sent; raises MalformedKeyError, which tells a mistyped key from another kind of text."""
    found = _FORM.fullmatch(text)
    if found is None or not _is_canonical(found[2]):
        raise MalformedKeyError(KeyProblem.FORM)
    if found[3] != _checksum(text[: -len(found[3]) - 1]):
        raise MalformedKeyError(KeyProblem.CHECKSUM)
    return ApiKey(kid=found[1], text=text)


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode('ascii')):08x}"


def _is_canonical(encoded: str) -> bool:
    """Answer whether no other text decodes to the same bytes: 43 characters carry 258 bits, two too many."""
    decoded = base64.urlsafe_b64decode(f"{encoded}=")
    return base64.urlsafe_b64encode(decoded).rstrip(b"=").decode("ascii") == encoded
