"""httpcore's pool, where a connection that a thread was given is nobody else's until its answer is closed.

httpcore 1.0 takes a connection for free until the thread that it was given to begins to send. Meanwhile another
thread's call may close it, to make room, as surplus, or because there is something to read on it, which on a free one
means that the server has closed it: then a call fails that nothing was wrong with.
"""

from typing import Any

import httpcore


class Connection(httpcore.HTTPConnection):
    """One connection of a pool."""

    def __init__(self, pool: "ConnectionPool", **options: Any) -> None:
        super().__init__(**options)
        self._pool = pool

    def is_available(self) -> bool:
        """Say whether a call may be given it."""
        return super().is_available() and not self._is_given()

    def is_idle(self) -> bool:
        """Say whether it may be closed without harm."""
        return super().is_idle() and not self._is_given()

    def has_expired(self) -> bool:
        """Say whether it is of no use any more."""
        return not self._is_given() and super().has_expired()

    def _is_given(self) -> bool:
        return self in self._pool.given


class ConnectionPool(httpcore.ConnectionPool):
    """Such connections; `given` are those that calls have."""

    given: frozenset[Any] = frozenset()

    def create_connection(self, origin: httpcore.Origin) -> httpcore.ConnectionInterface:
        """Answer a new connection."""
        return Connection(
            self,
            origin=origin,
            ssl_context=self._ssl_context,
            keepalive_expiry=self._keepalive_expiry,
            network_backend=self._network_backend,
        )

    def _assign_requests_to_connections(self) -> list[httpcore.ConnectionInterface]:
        # Private, and the only place where connections are given out and closed; always under the pool's lock.
        self.given = frozenset(request.connection for request in self._requests)
        return super()._assign_requests_to_connections()
