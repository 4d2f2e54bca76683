"""What kubectl wait, Flux and Helm make of an object: kstatus' generic rules.

After sigs.k8s.io/cli-utils, pkg/kstatus: `status/generic.go` and `status/core.go` (GenericStatus), in their order.
"""

from typing import Any


def kstatus(body: dict[str, Any]) -> str:
    """Answer Current, InProgress, Failed or Terminating."""
    if "deletionTimestamp" in body["metadata"]:
        return "Terminating"
    status = body.get("status", {})
    if "observedGeneration" in status and status["observedGeneration"] != body["metadata"]["generation"]:
        return "InProgress"
    conditions = {one["type"]: one["status"] for one in status.get("conditions", ())}
    if conditions.get("Reconciling") == "True":
        return "InProgress"
    if conditions.get("Stalled") == "True":
        return "Failed"
    if conditions.get("Ready") in ("False", "Unknown"):
        return "InProgress"
    return "Current"
