"""Leader election: one Lease, which whoever writes in it holds for LEASE_SECONDS after each renewal.

Not by `kubernetes.aio.leaderelection`: it never gives a Lease back, its renewals have no deadline of their own, its
times are local ones without a zone, and it reckons with `time.time()`, so that a clock that is set makes two leaders.
The rules are client-go's: a candidate measures on its own monotonic clock how long the Lease has not changed, never
comparing clocks; every write is conditional on the version that was read, so that of two candidates one wins.

Whoever loses the Lease ends its process. Until it knows, the fence of its Api holds its writes back: each renewal opens
it for WRITE_SECONDS, counted from before that renewal was sent, so that it is closed before anybody else can lead, also
in a process that was stopped meanwhile. What is on its way by then arrives late; what makes that harmless is that
writes are conditional (docs/decisions/0015-a-fence-on-writes.md).
"""

import asyncio
import datetime as dt
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from servicelink_operator import telemetry
from servicelink_operator.cluster.api import Api, Object, PatchType
from servicelink_operator.cluster.errors import AlreadyExistsError, ApiError, ConflictError, NotFoundError
from servicelink_operator.cluster.fence import Fence, fence_clock
from servicelink_operator.cluster.kinds import LEASE

LEASE_SECONDS = 8
RENEW_DEADLINE = 5.0
RETRY_SECONDS = 1.0
# So that a request lost on the way leaves time for another on a new connection.
ATTEMPT_SECONDS = 2.0
# For as long may writes be sent after a renewal was: until `hold` gives up, RETRY_SECONDS and RENEW_DEADLINE later. The
# rest of the Lease is for the last of them to arrive and to be carried out.
WRITE_SECONDS = 6.0

log = structlog.get_logger("servicelink.lease")


class LeaseLostError(Exception):
    """The Lease is somebody else's, or could not be renewed in time: this process must not write any more."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A Lease's version and the monotonic time at which it was first seen."""

    version: str
    at: float


class LeaderElection:
    """A candidate for the Lease `namespace/name`; `identity` is unique to this process, `fence` opens while it leads.

    await lease.acquire()      # returns as the leader
    await lease.hold()         # renews, until LeaseLostError
    await lease.release()      # at a graceful end, so that a standby takes over at once
    """

    def __init__(self, api: Api, namespace: str, name: str, identity: str, *, fence: Fence | None = None) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._fence = fence or Fence()
        self._seen = _Seen("", 0.0)
        # The Lease as we wrote it last; None while we do not hold it.
        self._held: Object | None = None

    @property
    def is_held(self) -> bool:
        """Whether this process leads, as far as it knows."""
        return self._held is not None

    async def acquire(self) -> None:
        """Wait until this process holds the Lease; failures are waited out, however long."""
        while self._held is None:
            try:
                async with asyncio.timeout(RENEW_DEADLINE):
                    await self._try_acquire()
            except (ApiError, TimeoutError) as error:
                log.warning("lease_unreachable", reason=getattr(error, "reason", "Timeout"))
            if self._held is None:
                await asyncio.sleep(RETRY_SECONDS)
        log.info("lease_acquired", identity=self._identity, lease=f"{self._namespace}/{self._name}")
        telemetry.LEADER.set(1)

    async def hold(self) -> None:
        """Renew every second; raises LeaseLostError once renewing has failed for RENEW_DEADLINE seconds."""
        try:
            while True:
                try:
                    async with asyncio.timeout(RENEW_DEADLINE):
                        await self._renew()
                except TimeoutError as error:
                    raise LeaseLostError(f"the Lease could not be renewed for {RENEW_DEADLINE:g} s") from error
                await asyncio.sleep(RETRY_SECONDS)
        except LeaseLostError:
            self._held = None
            self._fence.close()
            telemetry.LEADER.set(0)
            raise

    async def release(self) -> None:
        """Give the Lease back, if held; a failure is only logged, since the Lease then runs out."""
        held, self._held = self._held, None
        self._fence.close()
        telemetry.LEADER.set(0)
        if held is None:
            return
        try:
            async with asyncio.timeout(RENEW_DEADLINE):
                await self._give_back(held)
        except (ApiError, LeaseLostError, TimeoutError) as error:
            log.warning("lease_not_released", reason=getattr(error, "reason", type(error).__name__))

    async def _give_back(self, held: Object) -> None:
        spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
        try:
            await self._write(held, spec)
        except ConflictError:
            # By a renewal of ours that was on its way when the process was told to end, and whose answer nobody read.
            await self._write(await self._observe_own(), spec)

    async def _try_acquire(self) -> None:
        with suppress(AlreadyExistsError, ConflictError):
            try:
                found = await self._api.read(LEASE, self._namespace, self._name)
            except NotFoundError:
                await self._take(self._create())
                return
            if self._is_free(found):
                await self._take(self._write(found, self._spec(transitions=_transitions(found) + 1)))

    def _is_free(self, found: Object) -> bool:
        spec = found.get("spec") or {}
        if spec.get("holderIdentity") in (None, "", self._identity):
            return True
        version = found["metadata"]["resourceVersion"]
        if version != self._seen.version:
            self._seen = _Seen(version, time.monotonic())
        return time.monotonic() - self._seen.at > float(spec.get("leaseDurationSeconds") or LEASE_SECONDS)

    async def _renew(self) -> None:
        """Renew once, trying again after failures; who calls sets the deadline."""
        while True:
            try:
                async with asyncio.timeout(ATTEMPT_SECONDS):
                    return await self._renew_now()
            except (ApiError, TimeoutError) as error:
                log.warning("lease_not_renewed", reason=getattr(error, "reason", "Timeout"))
            await asyncio.sleep(RETRY_SECONDS)

    async def _renew_now(self) -> None:
        assert self._held is not None, "acquire comes first"
        try:
            await self._take(self._write(self._held, {"renewTime": _now()}))
        except (ConflictError, NotFoundError):
            await self._take(self._write(await self._observe_own(), {"renewTime": _now()}))

    async def _take(self, writing: Coroutine[Any, Any, Object]) -> None:
        """Carry out a write that makes or keeps the Lease ours, and open the fence for as long as that is certain."""
        # From before it is sent: others count from when they see it, which may be as early as that and no earlier.
        sent = fence_clock()
        self._held = await writing
        self._fence.open_until(sent + WRITE_SECONDS)

    async def _observe_own(self) -> Object:
        """Read the Lease again: it changed; perhaps an earlier renewal of ours, whose answer was lost."""
        try:
            found = await self._api.read(LEASE, self._namespace, self._name)
        except NotFoundError as error:
            raise LeaseLostError("the Lease was deleted") from error
        if (found.get("spec") or {}).get("holderIdentity") != self._identity:
            raise LeaseLostError("the Lease is held by another process")
        return found

    async def _create(self) -> Object:
        metadata = {"name": self._name, "namespace": self._namespace}
        body = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata}
        return await self._api.create(LEASE, self._namespace, {**body, "spec": self._spec(transitions=0)})

    async def _write(self, found: Object, spec: dict[str, Any]) -> Object:
        body = {"metadata": {"resourceVersion": found["metadata"]["resourceVersion"]}, "spec": spec}
        return await self._api.patch(LEASE, self._namespace, self._name, body, content_type=PatchType.MERGE)

    def _spec(self, *, transitions: int) -> dict[str, Any]:
        now = _now()
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": LEASE_SECONDS,
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }


def _transitions(found: Object) -> int:
    return int((found.get("spec") or {}).get("leaseTransitions") or 0)


def _now() -> str:
    # MicroTime: six digits, always.
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
