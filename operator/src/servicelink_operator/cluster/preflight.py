"""What must be there before the operator can do its work: the CRDs and its rights; its guards are in guards.py.

Each check answers words for the readiness page, naming what is missing and how to mend it; none changes anything.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from servicelink_core.api import names
from servicelink_operator.cluster.api import Api, Object
from servicelink_operator.cluster.errors import NotFoundError, NotServedError
from servicelink_operator.cluster.kinds import (
    ACCESS_REVIEW,
    CONFIG_MAP,
    LEASE,
    NAMESPACE,
    SECRET,
    SERVICE,
    SERVICE_LINK,
    SERVICE_LINK_POLICY,
    WORKLOADS,
    Kind,
)

# Fields that this release writes or decides by; an older CRD would prune them without a word.
_FIELDS: Mapping[Kind, tuple[str, ...]] = {
    SERVICE_LINK: (
        "spec.client.name",
        "spec.server.name",
        "spec.rotation.overlap",
        "spec.binding.secretName",
        "status.observedGeneration",
        "status.mode",
        "status.credential.previous.id",
        "status.conditions",
    ),
    SERVICE_LINK_POLICY: (
        "spec.services",
        "spec.mode",
        "spec.allowFrom",
        "spec.revokedKids",
        "status.observedGeneration",
        "status.linkCount",
        "status.conditions",
    ),
}
_MEND_CRDS = "install the CRDs of this release: kubectl apply --server-side -f crds/"
_OBSERVE = ("get", "list", "watch")


@dataclass(frozen=True, slots=True)
class Right:
    """One thing that the operator must be allowed to do, in every namespace unless one is named."""

    verb: str
    kind: Kind
    subresource: str = ""
    namespace: str = ""

    def __str__(self) -> str:
        group = f".{self.kind.group}" if self.kind.group else ""
        tail = f"/{self.subresource}" if self.subresource else ""
        return f"{self.verb} {self.kind.plural}{group}{tail}" + (f" in {self.namespace}" if self.namespace else "")


def wants_rights(lease_namespace: str, scope: frozenset[str] = frozenset()) -> tuple[Right, ...]:
    """Answer the rights that the operator needs: what the chart's roles must grant."""
    lease = (Right(verb, LEASE, namespace=lease_namespace) for verb in ("get", "create", "patch"))
    if not scope:
        return (*_wanted(), *(Right(verb, NAMESPACE) for verb in _OBSERVE), *lease)
    own = (replace(right, namespace=name) for name in sorted(scope) for right in _wanted())
    # A Role can grant its own namespace, and only to be got.
    return (*own, *(Right("get", NAMESPACE, namespace=name) for name in sorted(scope)), *lease)


def _wanted() -> tuple[Right, ...]:
    """Answer the rights that are needed wherever links and servers are served."""
    return (
        *(Right(verb, kind) for kind in (SERVICE_LINK, SERVICE_LINK_POLICY) for verb in _OBSERVE),
        *(Right("patch", kind, "status") for kind in (SERVICE_LINK, SERVICE_LINK_POLICY)),
        *(Right(verb, SERVICE) for verb in _OBSERVE),
        *(Right(verb, CONFIG_MAP) for verb in (*_OBSERVE, "create", "patch", "delete")),
        # Neither get, list nor watch: see cluster/secrets.py.
        *(Right(verb, SECRET) for verb in ("create", "patch", "delete")),
        *(Right(verb, kind) for kind in WORKLOADS.values() for verb in (*_OBSERVE, "patch")),
    )


async def observe_crds(api: Api) -> str | None:
    """Answer what is wrong with the two CRDs, None when both are served as this release needs them."""
    try:
        schemas = await api.read_schemas(SERVICE_LINK)
    except (NotFoundError, NotServedError):
        schemas = {}
    for kind, fields in _FIELDS.items():
        if problem := find_crd_problem(_schema_of(kind, schemas), fields):
            return f"CRD {kind.plural}.{kind.group} {problem}"
    return None


def find_crd_problem(schema: Object | None, fields: tuple[str, ...]) -> str | None:
    """Answer in words why a kind's schema (None: not served) does not serve this release, None when it does."""
    if schema is None:
        return f"is not installed, or does not serve {names.VERSION}; {_MEND_CRDS}"
    missing = [path for path in fields if not _has_field(schema, path)]
    if _property(schema, "status").get("default") != {"observedGeneration": -1}:
        missing.append("the default of status")
    return f"is of another release, it lacks {', '.join(missing)}; {_MEND_CRDS}" if missing else None


def _schema_of(kind: Kind, schemas: Object) -> Object | None:
    wanted = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    found = (one for one in schemas.values() if wanted in one.get("x-kubernetes-group-version-kind", ()))
    return next(found, None)


async def observe_rights(
    api: Api, lease_namespace: str = "default", scope: frozenset[str] = frozenset()
) -> tuple[str, ...]:
    """Answer the rights that are missing, as `patch deployments.apps`; empty when all are there.

    `scope` are the namespaces in which they are needed; none: in all.
    """
    wanted = wants_rights(lease_namespace, scope)
    allowed = await asyncio.gather(*(_is_allowed(api, right) for right in wanted))
    return tuple(str(right) for right, is_allowed in zip(wanted, allowed, strict=True) if not is_allowed)


async def _is_allowed(api: Api, right: Right) -> bool:
    attributes = {
        "verb": right.verb,
        "group": right.kind.group,
        "resource": right.kind.plural,
        "subresource": right.subresource,
        "namespace": right.namespace,
        # A namespace is asked for by its name, which a Role in it can grant.
        **({"name": right.namespace} if right.kind == NAMESPACE and right.namespace else {}),
    }
    review = {"apiVersion": ACCESS_REVIEW.api_version, "kind": ACCESS_REVIEW.kind}
    answer = await api.create(ACCESS_REVIEW, None, {**review, "spec": {"resourceAttributes": attributes}})
    return bool(answer["status"]["allowed"])


def _has_field(schema: Mapping[str, Any], path: str) -> bool:
    for name in path.split("."):
        schema = _property(schema, name)
    return bool(schema)


def _property(schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = schema.get("properties", {}).get(name, {})
    return found
