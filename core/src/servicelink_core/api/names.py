"""Names of what the operator writes, and of the labels and annotations on it."""

import hashlib
import re
from enum import StrEnum

GROUP = "servicelink.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "servicelink"
BINDING_TYPE = "servicebinding.io/servicelink"

# On the binding Secret: the journal of its credential. Nothing here is secret.
LINK_UID = f"{GROUP}/link-uid"
KID = f"{GROUP}/kid"
SHA256 = f"{GROUP}/sha256"
ISSUED_AT = f"{GROUP}/issued-at"
CANDIDATE_KID = f"{GROUP}/candidate-kid"
CANDIDATE_SHA256 = f"{GROUP}/candidate-sha256"
CONTENT_HASH = f"{GROUP}/content-hash"

# On a workload.
INJECTED = f"{GROUP}/injected"
MANAGED = f"{GROUP}/managed"

# On a verifier's ConfigMaps.
VERIFIER_OF = f"{GROUP}/verifier-of"
ENFORCED_SINCE = f"{GROUP}/enforced-since"
VERIFIER_PREFIX = "servicelink-verifier-"

VERIFIER_ROOT = "/etc/servicelink/verifier"
VERIFIER_VARIABLE = "SERVICELINK_VERIFIER_DIR"
TLS_ROOT = "/etc/servicelink/tls"
TOKEN_FOLDER = "/var/run/servicelink"  # noqa: S105 (a path)
TOKEN_AUDIENCE = "servicelink"  # noqa: S105 (an audience)


class Suffix(StrEnum):
    """How the names of the variables end that a binding gives by its prefix."""

    URL = "_URL"
    ADDRESS = "_ADDRESS"
    API_KEY_FILE = "_API_KEY_FILE"
    # Refers to the key itself (`delivery: Env`); the others have plain values.
    API_KEY = "_API_KEY"


VOLUME_PREFIX = "slk-"
_VOLUME_LENGTH = 63


def verifier_name(service: str, shard: int) -> str:
    """Name a shard's ConfigMap. A Service's name has no dot, so a shard is never another Service's verifier."""
    return f"{VERIFIER_PREFIX}{service}" + (f".{shard}" if shard else "")


def tls_secret_name(service: str) -> str:
    """Name the Secret of a server's own certificate."""
    return f"servicelink-tls-{service}"


def kid_secret_name(secret: str, kid: str) -> str:
    """Name the Secret of one kid (`delivery: Env`): a Secret's name is in lower case, a kid is not."""
    return f"{secret}-{digest(kid)[:10]}"


def variable_prefix(server: str) -> str:
    """Answer a server's name in UPPER_SNAKE, as variables start by default."""
    name = re.sub(r"[^A-Z0-9]", "_", server.upper())
    return f"_{name}" if name[0].isdigit() else name


def volume_name(kind: str, name: str) -> str:
    """Name a volume, `slk-<kind>-<name>`, a DNS label also where the name is long or has dots."""
    whole = f"{VOLUME_PREFIX}{kind}-{name}"
    if len(whole) <= _VOLUME_LENGTH and "." not in whole:
        return whole
    return f"{whole[: _VOLUME_LENGTH - 9].replace('.', '-').rstrip('-')}-{digest(name)[:8]}"


def digest(text: str) -> str:
    """Answer the SHA-256 of a text, 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()
