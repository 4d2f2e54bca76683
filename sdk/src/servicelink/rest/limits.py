"""How many connections a client keeps, and for how long."""

import math
from dataclasses import dataclass

import httpx

from servicelink.calls.options import countable

# Seconds; below the 5 after which uvicorn and others close an idle connection.
IDLE_FOR = 4.0
CONNECTIONS = 100
# The client's own doing, which speaks against no server.
CROWDED = "none of the client's own connections became free in time"


@dataclass(frozen=True, slots=True)
class Pool:
    """At most `connections` (0: no bound), of which `idle` are kept for `idle_for` seconds.

    `write_timeout` is how many seconds the server may let a piece of a body wait.
    """

    connections: int = CONNECTIONS
    idle: float = math.inf
    idle_for: float = IDLE_FOR
    write_timeout: float = math.inf


def parse_pool(limits: httpx.Limits | None, write_timeout: float | None) -> Pool:
    """Answer the pool that httpx's limits describe; None: 100 connections, kept idle for 4 seconds."""
    waits = math.inf if write_timeout is None else countable(write_timeout)
    if limits is None:
        return Pool(write_timeout=waits)
    if not isinstance(limits, httpx.Limits):
        raise TypeError(f"limits is of {type(limits).__name__}; it is an httpx.Limits")
    idle, idle_for = limits.max_keepalive_connections, limits.keepalive_expiry
    return Pool(
        connections=limits.max_connections or 0,
        idle=math.inf if idle is None else idle,
        idle_for=IDLE_FOR if idle_for is None else idle_for,
        write_timeout=waits,
    )
