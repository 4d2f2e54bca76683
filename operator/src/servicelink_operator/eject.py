"""Taking every binding and verifier out of all workloads again: what comes before an uninstallation.

A running operator would put back what is taken out, so this asks for a frozen one. Each change restarts Pods: no more
workloads are changed at a time than the operator itself would roll out.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from itertools import product

from servicelink_core.api.names import INJECTED, MANAGED, VOLUME_PREFIX
from servicelink_core.api.objects import Rollout, Workload, parse_workload
from servicelink_core.template import parse_record
from servicelink_core.workload import plan_ejection
from servicelink_operator.cluster.api import Api, Object, PatchType
from servicelink_operator.cluster.errors import ApiError, NotFoundError
from servicelink_operator.cluster.kinds import WORKLOADS, Kind
from servicelink_operator.settings import Settings

_MANY = 1000
_LOOK_EVERY = 1.0
# As long as a Deployment's own progressDeadlineSeconds is by default.
_LONGEST_ROLLOUT = 600.0


async def eject(settings: Settings) -> int:
    """Take all out, telling each workload, and answer the exit code: 1 where one could not be changed."""
    if not settings.freeze:
        say("Error: a running operator would put everything back; freeze it first (--set operator.freeze=true)")
        return 2
    api = await Api.connect(settings.kubeconfig)
    try:
        return await _eject_all(api, settings)
    except ApiError as error:
        say(f"Error: {error}")
        return 1
    finally:
        await api.close()


async def _eject_all(api: Api, settings: Settings) -> int:
    gate = asyncio.Semaphore(settings.rollouts_at_a_time or _MANY)

    async def one(workload: Workload) -> bool:
        async with gate:
            return await _eject(api, workload)

    found = [workload async for workload in _observe_ours(api, settings)]
    done = await asyncio.gather(*map(one, found))
    say(
        f"{sum(done)} of {len(found)} workloads are as their owners wrote them; links and their Secrets are still there"
    )
    return 0 if all(done) else 1


async def _observe_ours(api: Api, settings: Settings) -> AsyncIterator[Workload]:
    """Answer the workloads with additions of ours; by label alone one that somebody unlabelled would be passed over."""
    everywhere: list[str | None] = [None]
    for namespace, kind in product(sorted(settings.scope) or everywhere, WORKLOADS.values()):
        async for body in _list(api, kind, namespace):
            workload = parse_workload(kind.kind, body)
            if MANAGED in workload.labels or INJECTED in workload.annotations:
                yield workload


async def _list(api: Api, kind: Kind, namespace: str | None) -> AsyncIterator[Object]:
    continue_: str | None = None
    while continue_ != "":
        page = await api.list_page(kind, namespace=namespace, continue_=continue_)
        for body in page["items"]:
            yield body
        continue_ = page["metadata"].get("continue") or ""


async def _eject(api: Api, workload: Workload) -> bool:
    ref, patch = workload.ref, plan_ejection(workload)
    # Conflicts with what the operator adds, so nobody else calls a volume so.
    left = [one["name"] for one in workload.volumes if one["name"].startswith(VOLUME_PREFIX)]
    if left and not parse_record(workload):
        say(f"{ref.kind} {ref}: its record of what is ours is gone; take out by hand volumes {', '.join(left)}")
        return False
    try:
        if patch is not None:
            await api.patch(WORKLOADS[ref.kind], ref.namespace, ref.name, patch, content_type=PatchType.STRATEGIC)
            await _wait_for_rollout(api, workload)
    except NotFoundError:
        return True
    except ApiError as error:
        say(f"{ref.kind} {ref}: {error}; run this again")
        return False
    say(f"{ref.kind} {ref}: taken out")
    return True


async def _wait_for_rollout(api: Api, workload: Workload) -> None:
    """Wait until Pods run the new template, or do not need to; for ten minutes at most."""
    ref, until = workload.ref, time.monotonic() + _LONGEST_ROLLOUT
    while time.monotonic() < until:
        body = await api.read(WORKLOADS[ref.kind], ref.namespace, ref.name)
        if parse_workload(ref.kind, body).rollout is not Rollout.PENDING:
            return
        await asyncio.sleep(_LOOK_EVERY)
    say(f"{ref.kind} {ref}: still rolling out; kubectl rollout status {ref.kind.lower()} {ref.name} -n {ref.namespace}")


def say(line: str) -> None:
    """Tell who runs this."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
