"""A bare client: it makes the writes that an operator made, as fast as they are taken, and decides nothing."""

import time
from dataclasses import dataclass

from load import SPREAD, Body, each, link, workload

from devcluster.testing import Client
from servicelink_operator.cluster.api import Api, PatchType
from servicelink_operator.cluster.kinds import CONFIG_MAP, SECRET, SERVICE_LINK, WORKLOADS

_CONDITIONS = (
    *("Accepted", "Permitted", "Resolved", "Issued", "Injected", "RolledOut"),
    *("Healthy", "Rotated", "Ready"),
)


@dataclass(frozen=True, slots=True)
class Writes:
    """So many links with their Secrets, so many statuses of each, and writes that links share."""

    links: int
    statuses: int
    verifiers: int
    workloads: int


async def make_writes(admin: Client, api: Api, namespace: str, writes: Writes) -> tuple[float, float]:
    """Make them in a new namespace; answer the seconds and the CPU seconds that it took. No operator may be running."""
    admin.kubectl("create", "namespace", namespace)
    await each(range(SPREAD), lambda n: api.create(CONFIG_MAP, namespace, _named(f"map-{n}")))
    await each(range(SPREAD), lambda n: api.create(WORKLOADS["Deployment"], namespace, workload(f"client-{n}")))

    async def write_link(number: int) -> None:
        await api.create(SERVICE_LINK, namespace, link(number, "None"))
        data = {f"key-{n}": "c29tZXRoaW5n" * 4 for n in range(10)}
        await api.create(SECRET, namespace, {**_named(f"link-{number}"), "data": data})
        for again in range(writes.statuses):
            await _apply_status(api, namespace, number, again)

    async def write_verifier(number: int) -> None:
        body = {"data": {"shard": "x" * 3000 + str(number)}}
        await api.patch(CONFIG_MAP, namespace, f"map-{number % SPREAD}", body, content_type=PatchType.MERGE)

    async def write_workload(number: int) -> None:
        body = {"metadata": {"annotations": {"written": str(number)}}}
        name = f"client-{number % SPREAD}"
        await api.patch(WORKLOADS["Deployment"], namespace, name, body, content_type=PatchType.MERGE)

    started, used = time.monotonic(), time.process_time()
    await each(range(writes.links), write_link)
    await each(range(writes.verifiers), write_verifier)
    await each(range(writes.workloads), write_workload)
    return time.monotonic() - started, time.process_time() - used


def _named(name: str) -> Body:
    return {"metadata": {"name": name}}


async def _apply_status(api: Api, namespace: str, number: int, again: int) -> None:
    name = f"link-{number}"
    said = [_condition(kind, f"{again}") for kind in _CONDITIONS]
    body = {
        "apiVersion": SERVICE_LINK.api_version,
        "kind": SERVICE_LINK.kind,
        **_named(name),
        "status": {"observedGeneration": 1, "conditions": said},
    }
    await api.patch(SERVICE_LINK, namespace, name, body, content_type=PatchType.APPLY, subresource="status", force=True)


def _condition(kind: str, message: str) -> Body:
    return {
        "type": kind,
        "status": "True",
        "reason": "Bare",
        "message": message,
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
