"""What the caches hold, parsed once per version, and found by what refers to it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from servicelink_core.api.fields import Invalid
from servicelink_core.api.links import Link, ServiceRef, WorkloadRef, parse_link
from servicelink_core.api.names import MANAGED, MANAGED_BY, MANAGER, VERIFIER_PREFIX
from servicelink_core.api.objects import TEMPLATE_PATHS, Service, Workload, parse_service, parse_workload
from servicelink_core.api.policies import Policy, parse_policy
from servicelink_core.claims import claims_of
from servicelink_operator.cluster.api import Api
from servicelink_operator.cluster.cache import Object
from servicelink_operator.cluster.informers import Informer
from servicelink_operator.cluster.kinds import (
    CONFIG_MAP,
    NAMESPACE,
    SERVICE,
    SERVICE_LINK,
    SERVICE_LINK_POLICY,
    WORKLOADS,
    Kind,
)
from servicelink_operator.cluster.scope import AnyInformer, NamespaceReader, ScopedInformer
from servicelink_operator.reconcile.packed import pack_link, unpack_spec, unpack_status

T = TypeVar("T")
OnChange = Callable[[Kind, Object | None, Object | None], None]


class Caches:
    """The informers of all kinds, of the namespaces in `scope` or, where that is empty, of all."""

    def __init__(self, api: Api, scope: frozenset[str], on_change: OnChange) -> None:
        self.scope = scope
        self._parsed: dict[tuple[str, str], tuple[object, Any]] = {}

        def changed(kind: Kind, old: Object | None, new: Object | None) -> None:
            on_change(kind, old, new)
            if new is None and old is not None:
                self._parsed.pop(_identity(old), None)

        def informer(kind: Kind, **options: Any) -> AnyInformer:
            if not scope:
                return Informer(api, kind, on_change=changed, **options)
            if kind == NAMESPACE:
                return NamespaceReader(api, sorted(scope), on_change=changed, **options)
            each = {name: Informer(api, kind, namespace=name, on_change=changed, **options) for name in sorted(scope)}
            return ScopedInformer(kind, each)

        self.links = informer(SERVICE_LINK, trim=pack_link)
        self.policies = informer(SERVICE_LINK_POLICY)
        self.services = informer(SERVICE, trim=_trim_service)
        self.namespaces = informer(NAMESPACE, trim=_trim_namespace)
        self.config_maps = informer(CONFIG_MAP, label_selector=f"{MANAGED_BY}={MANAGER}")
        self.workloads = {name: informer(kind) for name, kind in WORKLOADS.items()}
        self._declare_indices()

    def _declare_indices(self) -> None:
        self.links.index("server", lambda body: [self._ends_of(body)[1]])
        self.links.index("server-namespace", lambda body: [self._ends_of(body)[1].namespace])
        self.links.index("client", lambda body: [self._ends_of(body)[0]])
        self.links.index("claim", self._claims_of)
        for informer in (self.links, self.policies, self.services, self.config_maps):
            informer.index("namespace", lambda body: [_namespace(body)])
        # A Service stands under one pair of its selector, and a workload under all pairs that its Pods carry: whoever
        # is selected is among the few with that pair.
        self.services.index("pair", lambda body: [(_namespace(body), pair) for pair in _selector_of(body)[:1]])
        self.config_maps.index("verifier", lambda body: [verifier_of(body)])
        for kind, informer in self.workloads.items():
            informer.index("namespace", lambda body: [_namespace(body)])
            informer.index("pair", _pairs_of_pods(kind))

    @property
    def informers(self) -> tuple[AnyInformer, ...]:
        """Answer all informers."""
        return (
            *(self.links, self.policies, self.services, self.namespaces, self.config_maps),
            *self.workloads.values(),
        )

    def link(self, namespace: str, name: str) -> Link | Invalid | None:
        """Answer a link, parsed."""
        body = self.links.find(namespace, name)
        return None if body is None else self.parse_link(body)

    def parse_link(self, body: Object) -> Link | Invalid:
        """Answer a link of the cache, parsed; its status is no part of it."""
        return self._parse(
            body, lambda packed: parse_link({**packed, "spec": unpack_spec(packed)}), _spec_version(body)
        )

    def status_of(self, namespace: str, name: str) -> Object:
        """Answer the status of a link as it is known; empty where there is no such link."""
        body = self.links.find(namespace, name)
        return {} if body is None else unpack_status(body)

    def links_to(self, ref: ServiceRef) -> tuple[Link, ...]:
        """Answer the links to a Service."""
        return self._links(self.links.by_index("server", ref))

    def links_into(self, namespace: str) -> tuple[Link, ...]:
        """Answer the links to Services of a namespace."""
        return self._links(self.links.by_index("server-namespace", namespace))

    def links_from(self, ref: WorkloadRef) -> tuple[Link, ...]:
        """Answer the links of which a workload is the client."""
        return self._links(self.links.by_index("client", ref))

    def links_of(self, namespace: str) -> tuple[Link, ...]:
        """Answer the links of a namespace."""
        return self._links(self.links.by_index("namespace", namespace))

    def rivals_of(self, link: Link) -> tuple[Link, ...]:
        """Answer the links that could claim what a link claims."""
        same = (body for claim in claims_of(link) for body in self.links.by_index("claim", claim))
        found = {other.uid: other for other in self._links(same)}
        found.pop(link.uid, None)
        return tuple(found.values())

    def policy(self, namespace: str, name: str) -> Policy | Invalid | None:
        """Answer a policy, parsed."""
        body = self.policies.find(namespace, name)
        return None if body is None else self._parse(body, parse_policy, _spec_version(body))

    def policies_of(self, namespace: str) -> tuple[Policy, ...]:
        """Answer the policies of a namespace that can be parsed."""
        bodies = self.policies.by_index("namespace", namespace)
        found = (self._parse(body, parse_policy, _spec_version(body)) for body in bodies)
        return tuple(policy for policy in found if isinstance(policy, Policy))

    def policies_for(self, ref: ServiceRef) -> tuple[Policy, ...]:
        """Answer the policies that select a Service, whether or not it exists."""
        return tuple(policy for policy in self.policies_of(ref.namespace) if policy.selects(ref.name))

    def service(self, ref: ServiceRef) -> Service | None:
        """Answer a Service, parsed."""
        body = self.services.find(ref.namespace, ref.name)
        return None if body is None else self._parse(body, parse_service)

    def services_of(self, namespace: str) -> tuple[Service, ...]:
        """Answer the Services of a namespace."""
        return tuple(self._parse(body, parse_service) for body in self.services.by_index("namespace", namespace))

    def services_over(self, workload: Workload) -> Iterator[Service]:
        """Answer the Services that select a workload's Pods."""
        for pair in workload.pod_labels.items():
            for body in self.services.by_index("pair", (workload.ref.namespace, pair)):
                service = self._parse(body, parse_service)
                if service.selects(workload):
                    yield service

    def workload(self, ref: WorkloadRef) -> Workload | None:
        """Answer a workload, parsed."""
        informer = self.workloads.get(ref.kind)
        body = informer.find(ref.namespace, ref.name) if informer else None
        return None if body is None else self.parse_workload(ref.kind, body)

    def parse_workload(self, kind: str, body: Object) -> Workload:
        """Answer a workload of the cache, parsed."""
        return self._parse(body, lambda found: parse_workload(kind, found))

    def workloads_behind(self, service: Service) -> tuple[Workload, ...]:
        """Answer the workloads whose Pods stand behind a Service."""
        pair = next(iter(sorted(service.selector.items())), None)
        if pair is None:
            return ()
        found = (
            self.parse_workload(kind, body)
            for kind, informer in self.workloads.items()
            for body in informer.by_index("pair", (service.ref.namespace, pair))
        )
        return tuple(workload for workload in found if service.selects(workload))

    def verifier_shards(self, ref: ServiceRef) -> tuple[Object, ...]:
        """Answer a verifier's ConfigMaps, shard 0 first."""
        return self.config_maps.by_index("verifier", (ref.namespace, ref.name))

    def is_departing(self, namespace: str) -> bool:
        """Answer whether a namespace is gone or being deleted, and all in it with it; one out of scope is neither."""
        body = self.namespaces.find("", namespace)
        if body is None:
            return not self.scope
        return "deletionTimestamp" in body["metadata"]

    def count_links(self, ready: str) -> int:
        """Answer how many links have a condition Ready of this status; one without conditions is Unknown."""
        return sum(body["status"].ready == ready for body in self.links.items())

    def _links(self, bodies: Iterable[Object]) -> tuple[Link, ...]:
        return tuple(link for link in map(self.parse_link, bodies) if isinstance(link, Link))

    def _ends_of(self, body: Object) -> tuple[WorkloadRef, ServiceRef]:
        """Answer client and server of a link, as far as it says so where it cannot be parsed."""
        link = self.parse_link(body)
        if isinstance(link, Link):
            return link.client, link.server
        spec, namespace = unpack_spec(body), _namespace(body)
        client, server = (spec.get(name) or {} for name in ("client", "server"))
        return (
            WorkloadRef(namespace, client.get("kind", ""), client.get("name", "")),
            ServiceRef(server.get("namespace") or namespace, server.get("name", "")),
        )

    def _claims_of(self, body: Object) -> tuple[tuple[str, ...], ...]:
        link = self.parse_link(body)
        return claims_of(link) if isinstance(link, Link) else ()

    def _parse(self, body: Object, parse: Callable[[Object], T], version: object = None) -> T:
        version = version or body["metadata"]["resourceVersion"]
        return self._remember(_identity(body), version, lambda: parse(body))

    def _remember(self, what: tuple[str, str], version: object, make: Callable[[], T]) -> T:
        """Answer what was made of that version, making it once."""
        known = self._parsed.get(what)
        if known is None or known[0] != version:
            known = (version, make())
            self._parsed[what] = known
        found: T = known[1]
        return found


def verifier_of(body: Mapping[str, Any]) -> tuple[str, str]:
    """Answer namespace and name of the Service that a ConfigMap is a verifier of, by its name (`names.verifier_name`).

    The name is "" where it is none. Not by its label: one that somebody has changed is to be missed, and put right.
    """
    name = str(body["metadata"]["name"])
    service = name.removeprefix(VERIFIER_PREFIX).partition(".")[0] if name.startswith(VERIFIER_PREFIX) else ""
    return _namespace(body), service


def labels_of(body: Mapping[str, Any]) -> Mapping[str, str]:
    """Answer an object's labels."""
    labels: Mapping[str, str] = body["metadata"].get("labels") or {}
    return labels


def is_managed(body: Mapping[str, Any]) -> bool:
    """Answer whether a workload carries additions of ours."""
    return MANAGED in labels_of(body)


def _identity(body: Object) -> tuple[str, str]:
    return body["kind"], body["metadata"]["uid"]


def _spec_version(body: Object) -> tuple[object, object]:
    """Answer what changes with the spec of one of our kinds, and with its end, and not with its status."""
    metadata = body["metadata"]
    return metadata.get("generation"), metadata.get("deletionTimestamp")


def _namespace(body: Mapping[str, Any]) -> str:
    return str(body["metadata"]["namespace"])


def _selector_of(body: Mapping[str, Any]) -> list[tuple[str, str]]:
    return sorted((body["spec"].get("selector") or {}).items())


def _pairs_of_pods(kind: str) -> Callable[[Object], list[tuple[str, tuple[str, str]]]]:
    path = TEMPLATE_PATHS[kind]

    def pairs(body: Object) -> list[tuple[str, tuple[str, str]]]:
        template: Any = body
        for step in path:
            template = template.get(step) or {}
        labels = (template.get("metadata") or {}).get("labels") or {}
        return [(_namespace(body), pair) for pair in labels.items()]

    return pairs


def _trim_service(body: Object) -> Object:
    body["metadata"].pop("managedFields", None)
    body.pop("status", None)
    return body


def _trim_namespace(body: Object) -> Object:
    return {**body, "metadata": {key: body["metadata"][key] for key in _KEPT if key in body["metadata"]}}


_KEPT = ("name", "uid", "resourceVersion", "labels", "deletionTimestamp")
