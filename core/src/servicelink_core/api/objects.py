"""Kubernetes' own objects, as far as decisions need them: Services and workloads."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from servicelink_core.api.fields import Body
from servicelink_core.api.links import ServiceRef, WorkloadRef

HEADLESS = "None"
EXTERNAL_NAME = "ExternalName"


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a Service; `target` is the Pods' port, a number or the name of a container's port."""

    name: str
    number: int
    target: int | str


@dataclass(frozen=True, slots=True)
class Service:
    """A Service; an empty selector means that its Pods are not known to Kubernetes."""

    ref: ServiceRef
    type: str
    headless: bool
    ports: tuple[ServicePort, ...]
    selector: Mapping[str, str]

    def selects(self, workload: "Workload") -> bool:
        """Answer whether the workload's Pods stand behind it."""
        if not self.selector or workload.ref.namespace != self.ref.namespace:
            return False
        return all(workload.pod_labels.get(key) == value for key, value in self.selector.items())


def parse_service(body: Body) -> Service:
    """Parse a Service as the API server answers it."""
    metadata, spec = body["metadata"], body.get("spec") or {}
    return Service(
        ref=ServiceRef(metadata["namespace"], metadata["name"]),
        type=spec.get("type", "ClusterIP"),
        headless=spec.get("clusterIP") == HEADLESS,
        ports=tuple(
            ServicePort(port.get("name", ""), port["port"], port.get("targetPort") or port["port"])
            for port in spec.get("ports") or ()
        ),
        selector=spec.get("selector") or {},
    )


class Rollout(StrEnum):
    """How far a workload's Pods are with its present template."""

    DONE = "Done"
    PENDING = "Pending"
    FAILED = "Failed"
    PAUSED = "Paused"
    SCALED_TO_ZERO = "ScaledToZero"


@dataclass(frozen=True, slots=True)
class Workload:
    """A Deployment, StatefulSet, DaemonSet or CronJob; `template` is its pod template as the API server answers it."""

    ref: WorkloadRef
    uid: str
    resource_version: str
    deleting: bool
    annotations: Mapping[str, str]
    labels: Mapping[str, str]
    template: Body
    rollout: Rollout

    @property
    def pod_labels(self) -> Mapping[str, str]:
        """Answer the labels that its Pods get."""
        labels: Mapping[str, str] = (self.template.get("metadata") or {}).get("labels") or {}
        return labels

    @property
    def containers(self) -> tuple[Body, ...]:
        """Answer its containers, without init containers."""
        return tuple((self.template.get("spec") or {}).get("containers") or ())

    @property
    def volumes(self) -> tuple[Body, ...]:
        """Answer its volumes."""
        return tuple((self.template.get("spec") or {}).get("volumes") or ())

    def ports_named(self, name: str) -> Iterator[int]:
        """Answer the numbers of its containers' ports of that name."""
        for container in self.containers:
            for port in container.get("ports") or ():
                if port.get("name") == name:
                    yield int(port["containerPort"])


# Where the pod template stands in each kind.
TEMPLATE_PATHS = {
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}


def parse_workload(kind: str, body: Body) -> Workload:
    """Parse a workload of that kind as the API server answers it."""
    metadata = body["metadata"]
    template: Any = body
    for step in TEMPLATE_PATHS[kind]:
        template = template.get(step) or {}
    return Workload(
        ref=WorkloadRef(metadata["namespace"], kind, metadata["name"]),
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        deleting="deletionTimestamp" in metadata,
        annotations=metadata.get("annotations") or {},
        labels=metadata.get("labels") or {},
        template=template,
        rollout=_parse_rollout(kind, body),
    )


def _parse_rollout(kind: str, body: Body) -> Rollout:
    if kind == "CronJob":
        return Rollout.PAUSED if body["spec"].get("suspend") else Rollout.DONE
    status = body.get("status") or {}
    if kind == "DaemonSet":
        wanted, updated = status.get("desiredNumberScheduled", 0), status.get("updatedNumberScheduled", 0)
        available = status.get("numberAvailable", 0)
    else:
        wanted, updated = body["spec"].get("replicas", 1), status.get("updatedReplicas", 0)
        available = status.get("availableReplicas", 0)
        if wanted == 0:
            return Rollout.SCALED_TO_ZERO
    if body["spec"].get("paused"):
        return Rollout.PAUSED
    if status.get("observedGeneration", 0) < body["metadata"].get("generation", 0):
        return Rollout.PENDING
    if any(one.get("reason") == "ProgressDeadlineExceeded" for one in status.get("conditions") or ()):
        return Rollout.FAILED
    # Old Pods that are still there count as replicas and not as updated ones.
    total = status.get("replicas", wanted) if kind != "DaemonSet" else wanted
    done = wanted == updated == available and total == wanted
    return Rollout.DONE if done else Rollout.PENDING
