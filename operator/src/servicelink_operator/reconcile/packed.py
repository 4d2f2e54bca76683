"""A link as its cache keeps it: what is looked at all the time as it is, the rest as JSON, a tenth of its size.

Ten thousand links with ten conditions each are a hundred megabytes of dictionaries otherwise. A status is compressed on
top of that, to a third, for what a hundredth of its reconcile costs.
"""

import zlib
from dataclasses import dataclass
from typing import Any

import orjson

from servicelink_operator.cluster.cache import Object

# Nothing is decided by a user's labels and annotations.
_KEPT = ("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp")

# Of zlib's levels the one with the least time for texts of one to three kilobytes.
_QUICK = 3


@dataclass(frozen=True, slots=True)
class PackedStatus:
    """A status: which generation was accepted (None: none), the status of Ready, and the whole as compressed JSON."""

    accepted: int | None
    ready: str
    whole: bytes


def pack_link(body: Object) -> Object:
    """Answer a link with its spec as JSON and its status packed; `unpack_spec` and `unpack_status` undo it."""
    metadata = body["metadata"]
    return {
        "kind": body["kind"],
        "metadata": {name: metadata[name] for name in _KEPT if name in metadata},
        "spec": _dump(body.get("spec") or {}),
        "status": _pack_status(body.get("status") or {}),
    }


def unpack_spec(body: Object) -> Object:
    """Answer the spec of a packed link."""
    spec: Object = orjson.loads(body["spec"])
    return spec


def unpack_status(body: Object) -> Object:
    """Answer the status of a packed link."""
    status: Object = orjson.loads(zlib.decompress(body["status"].whole))
    return status


def is_accepted(body: Object) -> bool:
    """Answer whether a packed link has been accepted as it is now."""
    return bool(body["status"].accepted == body["metadata"].get("generation"))


def _pack_status(status: Object) -> PackedStatus:
    conditions: dict[str, dict[str, Any]] = {one["type"]: one for one in status.get("conditions") or ()}
    accepted, ready = conditions.get("Accepted", {}), conditions.get("Ready", {})
    return PackedStatus(
        accepted=accepted.get("observedGeneration") if accepted.get("status") == "True" else None,
        ready=ready.get("status", "Unknown"),
        whole=zlib.compress(orjson.dumps(status), _QUICK),
    )


def _dump(value: Object) -> str:
    # As text: orjson's bytes keep the buffer of some kilobytes that they were written in.
    return orjson.dumps(value).decode()
