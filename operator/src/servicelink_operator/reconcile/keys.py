"""Keys: what a reconcile is about. A key names what is written; it carries no news, so that none can be lost."""

from dataclasses import dataclass
from enum import StrEnum

from servicelink_core.api.links import ServiceRef, WorkloadRef


class Writes(StrEnum):
    """What a reconcile of the key writes; each object has one writer."""

    LINK = "link"
    SERVER = "server"
    WORKLOAD = "workload"
    POLICY = "policy"


@dataclass(frozen=True, slots=True)
class Key:
    """What to reconcile; `kind` is a workload's."""

    writes: Writes
    namespace: str
    name: str
    kind: str = ""

    def __str__(self) -> str:
        middle = f"{self.kind}/" if self.kind else ""
        return f"{self.writes}/{self.namespace}/{middle}{self.name}"


def link_key(namespace: str, name: str) -> Key:
    """Answer a link's key."""
    return Key(Writes.LINK, namespace, name)


def policy_key(namespace: str, name: str) -> Key:
    """Answer a policy's key."""
    return Key(Writes.POLICY, namespace, name)


def server_key(ref: ServiceRef) -> Key:
    """Answer a server's key."""
    return Key(Writes.SERVER, ref.namespace, ref.name)


def workload_key(ref: WorkloadRef) -> Key:
    """Answer a workload's key."""
    return Key(Writes.WORKLOAD, ref.namespace, ref.name, ref.kind)
