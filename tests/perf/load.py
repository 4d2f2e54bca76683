"""The load: objects that are made, some at a time, by a client that waits until links are Ready."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from devcluster.testing import Client
from servicelink_operator.cluster.api import Api
from servicelink_operator.cluster.informers import Informer
from servicelink_operator.cluster.kinds import SERVICE, SERVICE_LINK, SERVICE_LINK_POLICY, WORKLOADS

SPREAD = 100
_AT_A_TIME = 32
Body = dict[str, Any]


async def each(things: Iterable[Any], work: Callable[[Any], Awaitable[Any]]) -> None:
    """Work on all things, some at a time."""
    gate = asyncio.Semaphore(_AT_A_TIME)

    async def one(thing: Any) -> None:
        async with gate:
            await work(thing)

    await asyncio.gather(*map(one, things))


def workload(name: str) -> Body:
    labels = {"app": name}
    pod = {"containers": [{"name": "app", "image": "a"}]}
    template = {"metadata": {"labels": labels}, "spec": pod}
    # No Pod ever runs here, and that a rollout has failed would be a change of status ten minutes later.
    patience = {"progressDeadlineSeconds": 1_000_000}
    return {"metadata": {"name": name}, "spec": {"selector": {"matchLabels": labels}, "template": template, **patience}}


def service(name: str) -> Body:
    spec = {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]}
    return {"metadata": {"name": name}, "spec": spec}


def link(number: int, inject: str) -> Body:
    spec = {
        "client": {"kind": "Deployment", "name": f"client-{number % SPREAD}"},
        "server": {"name": f"server-{number * 7 % SPREAD}"},
        "protocol": "REST",
        "binding": {"envPrefix": f"L{number}", "inject": inject},
    }
    head = {"apiVersion": SERVICE_LINK.api_version, "kind": SERVICE_LINK.kind}
    return {**head, "metadata": {"name": f"link-{number}"}, "spec": spec}


async def prepare(admin: Client, api: Api, namespace: str, mode: str | None) -> None:
    """Make the namespace, its clients and servers, and a policy over all of them."""
    admin.kubectl("create", "namespace", namespace)
    names = range(SPREAD)
    await each(names, lambda n: api.create(WORKLOADS["Deployment"], namespace, workload(f"client-{n}")))
    await each(names, lambda n: api.create(SERVICE, namespace, service(f"server-{n}")))
    if mode is not None:
        head = {"apiVersion": SERVICE_LINK_POLICY.api_version, "kind": SERVICE_LINK_POLICY.kind}
        policy = {**head, "metadata": {"name": "all"}, "spec": {"services": ["*"], "mode": mode}}
        await api.create(SERVICE_LINK_POLICY, namespace, policy)


@asynccontextmanager
async def watching(api: Api, kind: Any, namespace: str, seen: Callable[[Body], None]) -> AsyncIterator[None]:
    """Call `seen` for every object of a kind that comes or changes."""
    watch = Informer(
        api, kind, namespace=namespace, on_change=lambda _kind, _old, new: seen(new) if new is not None else None
    )
    task = asyncio.create_task(watch.run())
    await watch.wait_synced()
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def is_ready(body: Body) -> bool:
    conditions = body.get("status", {}).get("conditions", ())
    return any((one["type"], one["status"]) == ("Ready", "True") for one in conditions)


async def burst(api: Api, namespace: str, count: int, inject: str) -> float:
    """Create links at once, and answer the seconds until the last is Ready."""
    ready: set[str] = set()
    complete = asyncio.Event()

    def seen(body: Body) -> None:
        if is_ready(body):
            ready.add(body["metadata"]["name"])
        if len(ready) == count:
            complete.set()

    async with watching(api, SERVICE_LINK, namespace, seen):
        started = time.monotonic()
        await each(range(count), lambda number: api.create(SERVICE_LINK, namespace, link(number, inject)))
        await asyncio.wait_for(complete.wait(), 600)
        return time.monotonic() - started
