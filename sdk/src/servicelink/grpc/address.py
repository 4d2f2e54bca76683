"""Where a gRPC client connects to: the address of a binding, as grpcio wants to hear it."""

import re
from dataclasses import dataclass
from functools import lru_cache

from servicelink.binding import LAST_PORT, Binding, refuse_address

_FORM = re.compile(r"(?:([a-z]+)://)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})/?", re.ASCII)
# Whether it is TLS.
_SCHEMES = {"grpc": False, "http": False, "grpcs": True, "https": True}


@dataclass(frozen=True, slots=True)
class Target:
    """A server: its name for grpcio, and the host and port in it; `is_secure` says that it is called over TLS."""

    name: str
    host: str
    port: int
    is_secure: bool


@lru_cache(maxsize=256)
def parse_target(uri: str) -> Target | None:
    """Parse `grpc://host:port` (grpcs, http, https; plain `host:port` is grpc); None for anything else."""
    found = _FORM.fullmatch(uri)
    if found is None:
        return None
    scheme, host, port = found.groups()
    is_secure = _SCHEMES.get(scheme or "grpc")
    if is_secure is None:
        return None
    if int(port) > LAST_PORT:
        # grpcio would call another one: what is left over of it.
        return None
    # By the resolver that answers all addresses of a name: a headless Service has one for each Pod.
    return Target(f"dns:///{host}:{port}", host.strip("[]"), int(port), is_secure)


def require_target(binding: Binding) -> Target:
    """As `parse_target`, of a binding's address; raises LinkNotFound."""
    target = parse_target(binding.uri)
    if target is None:
        step = "Say the port, and no path, as in grpc://localhost:50051; grpcs:// is with TLS"
        raise refuse_address(binding, "grpc://host:port, grpcs://host:port or host:port", step)
    return target
