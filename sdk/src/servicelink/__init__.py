"""For applications on both ends of a link: `connect(name)` to call a server, `LinkMiddleware` to be one.

Names are loaded when they are first used (PEP 562), so that `import servicelink` costs a command line nothing.
May import the contract; never the core or the operator.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from servicelink.asgi import LinkMiddleware
    from servicelink.client import ServiceClient, connect
    from servicelink.context import current_link
    from servicelink.counts import Counted, Counts
    from servicelink.errors import (
        InvalidServiceAuth,
        LinkConfigurationError,
        LinkNotFound,
        PermissionDenied,
        RemoteError,
        ServiceError,
        ServiceTimeout,
        ServiceUnavailable,
    )
    from servicelink.verify import Allowed

__all__ = [
    "Allowed",
    "Counted",
    "Counts",
    "InvalidServiceAuth",
    "LinkConfigurationError",
    "LinkMiddleware",
    "LinkNotFound",
    "PermissionDenied",
    "RemoteError",
    "ServiceClient",
    "ServiceError",
    "ServiceTimeout",
    "ServiceUnavailable",
    "connect",
    "current_link",
]

_HOMES = {
    "servicelink.asgi": ("LinkMiddleware",),
    "servicelink.client": ("ServiceClient", "connect"),
    "servicelink.context": ("current_link",),
    "servicelink.counts": ("Counted", "Counts"),
    "servicelink.errors": (
        "InvalidServiceAuth",
        "LinkConfigurationError",
        "LinkNotFound",
        "PermissionDenied",
        "RemoteError",
        "ServiceError",
        "ServiceTimeout",
        "ServiceUnavailable",
    ),
    "servicelink.verify": ("Allowed",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_HOME[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
