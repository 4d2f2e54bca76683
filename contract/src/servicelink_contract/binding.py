"""The binding: what a client is handed, as the keys of one Secret, mounted as one file each.

The names follow the Service Binding specification (servicebinding.io, 1.1, "Well-known Secret Entries"), so that
libraries which know it find what they look for. `link.json` holds what an SDK reads beside: names, limits, retries.
"""

import json
import sys
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from servicelink_contract.wire import take

# Where bindings are mounted unless a container says otherwise (Service Binding specification, "Workload Projection").
ROOT_VARIABLE = "SERVICE_BINDING_ROOT"
DEFAULT_ROOT = "/bindings"
DEFAULT_HEADER = "x-service-auth"
LINK_FORMAT = 1


class BindingKey(StrEnum):
    """A key of the binding Secret, and the name of its file."""

    TYPE = "type"
    PROVIDER = "provider"
    PROTOCOL = "protocol"
    URI = "uri"
    HOST = "host"
    PORT = "port"
    API_KEY = "api-key"
    API_KEY_ID = "api-key-id"
    HEADER = "header"
    TLS_CERTIFICATE = "tls.crt"
    TLS_KEY = "tls.key"
    TRUST_BUNDLE = "ca.crt"
    PRIVATE_KEY = "private-key"
    CERTIFICATES = "certificates"
    LINK = "link.json"
    # Only during a rotation, and never mounted: the next credential.
    CANDIDATE = "candidate"


class LinkDocumentError(ValueError):
    """A `link.json` that is not understood; the message names the field."""


@dataclass(frozen=True, slots=True)
class LinkDocument:
    """What `link.json` says: names as namespace/name; `timeout` and `breaker_open_for` in seconds.

    `timeout` bounds a whole call, `retries` counts further attempts, `breaker_failures` failures in a row. `registry`
    is the address (host:port) and `registry_ca` the PEM bundle of the registry, None where there is none.
    """

    link: str
    server: str
    timeout: float = 5.0
    retries: int = 2
    breaker_failures: int = 5
    breaker_open_for: float = 30.0
    registry: str | None = None
    registry_ca: str | None = None


_FIELDS = tuple(field.name for field in fields(LinkDocument))


def render_link_document(document: LinkDocument) -> str:
    """Render `link.json`, the same text for the same document."""
    # Not by asdict, which copies deeply: this is rendered whenever a link is looked at.
    values = {name: getattr(document, name) for name in _FIELDS}
    return json.dumps({"format": LINK_FORMAT, **values}, sort_keys=True, separators=(",", ":"))


def parse_link_document(text: str) -> LinkDocument:
    """Parse `link.json`; fields that are not known are passed over, since none of them can restrict a call.

    Raises LinkDocumentError.
    """
    try:
        found: dict[str, Any] = json.loads(text)
        _require_format(found["format"])
        return LinkDocument(
            link=take(found, "link", str),
            server=take(found, "server", str),
            timeout=_seconds(found, "timeout"),
            retries=_count(found, "retries"),
            breaker_failures=_count(found, "breaker_failures"),
            breaker_open_for=_seconds(found, "breaker_open_for"),
            registry=found.get("registry"),
            registry_ca=found.get("registry_ca"),
        )
    except LinkDocumentError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise LinkDocumentError(f"malformed: {error}") from error


def _require_format(value: object) -> None:
    if value != LINK_FORMAT:
        raise LinkDocumentError(f"format {value!r} is not {LINK_FORMAT}")


def _seconds(found: dict[str, Any], name: str) -> float:
    value = found[name]
    # NaN is within no bounds, and JSON has whole numbers that no float holds.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise LinkDocumentError(f"{name} is no number of seconds")
    return float(value)


def _count(found: dict[str, Any], name: str) -> int:
    value = take(found, name, int)
    if value < 0:
        raise LinkDocumentError(f"{name} is no number from 0")
    return value
