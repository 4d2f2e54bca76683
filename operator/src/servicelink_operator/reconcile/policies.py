"""The reconcile of a policy: its status."""

import datetime as dt
from dataclasses import dataclass

from servicelink_core.api.fields import Invalid
from servicelink_core.policy import settle_invalid_policy, settle_policy
from servicelink_operator.cluster.api import Api, PatchType
from servicelink_operator.cluster.kinds import SERVICE_LINK_POLICY
from servicelink_operator.reconcile.keys import Key
from servicelink_operator.reconcile.world import World


@dataclass(frozen=True, slots=True)
class PolicyReconciler:
    """Reconciles one policy at a time."""

    api: Api
    world: World

    async def reconcile(self, key: Key) -> None:
        """Write one policy's status, if it is another one now."""
        policy = self.world.policy(key.namespace, key.name)
        if policy is None:
            return
        previous = (self.world.policies.find(key.namespace, key.name) or {}).get("status") or {}
        now = dt.datetime.now(dt.UTC)
        if isinstance(policy, Invalid):
            status = settle_invalid_policy(policy.generation, policy.problems, previous, now)
        else:
            status = settle_policy(self.world.observe_policy(policy, now), previous, now)
        if status == previous:
            return
        body = {
            "apiVersion": SERVICE_LINK_POLICY.api_version,
            "kind": SERVICE_LINK_POLICY.kind,
            "metadata": {"name": key.name, "namespace": key.namespace, "uid": policy.uid},
            "status": status,
        }
        answer = await self.api.patch(
            SERVICE_LINK_POLICY,
            key.namespace,
            key.name,
            body,
            content_type=PatchType.APPLY,
            subresource="status",
            force=True,
        )
        self.world.policies.store(answer)
