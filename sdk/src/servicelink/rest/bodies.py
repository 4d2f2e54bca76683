"""Streamed answers: what httpx reads them through, and how they ended once nobody reads any more."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import httpx

from servicelink.calls.call import Call, Outcome, Result
from servicelink.calls.failures import wants_failure
from servicelink.errors import ServiceError

BROKEN_ENCODING = "the answer's content-encoding is broken"


class Ending:
    """How a streamed answer ended so far: well, until something else is said."""

    __slots__ = ("_call", "_outcome")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._outcome: Outcome | None = None

    def fail(self, result: Result, problem: str) -> ServiceError:
        """Take note that it broke off, and answer the error for whoever reads."""
        self._outcome = Outcome(result, problem=problem)
        error = wants_failure(self._call, self._outcome)
        assert error is not None
        return error

    def cancel(self) -> None:
        """Take note that the caller went away."""
        self._outcome = self._outcome or Outcome(Result.CANCELLED, problem="the caller went away")

    def settle(self, begun: Outcome) -> Outcome:
        """Answer how the stream ended that began so."""
        if self._outcome is None:
            return begun
        return replace(begun, result=self._outcome.result, problem=self._outcome.problem)


class Streamed(httpx.Response):
    """An answer that is read as it comes; raises ServiceUnavailable where what it says of its encoding is not true."""

    def iter_bytes(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """As httpx's."""
        try:
            yield from super().iter_bytes(chunk_size)
        except httpx.DecodingError:
            raise self._fail() from None

    async def aiter_bytes(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """As httpx's."""
        try:
            async for piece in super().aiter_bytes(chunk_size):
                yield piece
        except httpx.DecodingError:
            raise self._fail() from None

    def _fail(self) -> ServiceError:
        body: Any = self.stream
        error: ServiceError = body.ending.fail(Result.CUT, BROKEN_ENCODING)
        return error
