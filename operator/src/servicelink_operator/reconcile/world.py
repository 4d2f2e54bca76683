"""The world as the caches hold it, parsed: everything that plans are made from is observed here.

Nothing in this module writes, and nothing but the reading of a client's imported variables asks the API server.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from servicelink_contract.verifier import LinkEntry, Mode
from servicelink_core.api.fields import Invalid, parse_time
from servicelink_core.api.links import Link, ServiceRef, WorkloadRef, parse_link
from servicelink_core.api.names import MANAGED, MANAGED_BY, MANAGER, VERIFIER_OF
from servicelink_core.api.objects import EXTERNAL_NAME, Service, Workload, parse_service, parse_workload
from servicelink_core.api.policies import Policy, parse_policy
from servicelink_core.brake import Removals
from servicelink_core.claims import claims_of
from servicelink_core.conflicts import Imported
from servicelink_core.limits import Excess
from servicelink_core.link import Arrow, Assessment, Limits, assess_link
from servicelink_core.policy import PolicyWorld
from servicelink_core.posture import judge_posture
from servicelink_core.render.verifier import parse_standing
from servicelink_core.rotation import BindingFacts, SecretView, StandingVerifier, presume_facts
from servicelink_core.server import Caller, ServerWorld
from servicelink_core.workload import MountedService, Use, WorkloadWorld
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
from servicelink_operator.reconcile.keys import link_key
from servicelink_operator.reconcile.memory import Memory
from servicelink_operator.reconcile.usage import UsageBook, is_accepted

T = TypeVar("T")
OnChange = Callable[[Kind, Object | None, Object | None], None]


class World:
    """The informers and what is read off them; `memory` holds what no informer can tell, `clock` is the loop's."""

    def __init__(
        self, api: Api, memory: Memory, limits: Limits, on_change: OnChange, *, clock: Callable[[], float]
    ) -> None:
        self.memory = memory
        self._limits = limits
        self._usage = UsageBook(limits.quota)
        self._clock = clock
        self._parsed: dict[tuple[str, str], tuple[str, Any]] = {}

        def changed(kind: Kind, old: Object | None, new: Object | None) -> None:
            if kind == SERVICE_LINK:
                self._usage.changed(old, new)
            on_change(kind, old, new)
            if new is None and old is not None:
                self._forget(old)

        def informer(kind: Kind, **options: Any) -> AnyInformer:
            if not limits.scope:
                return Informer(api, kind, on_change=changed, **options)
            names = sorted(limits.scope)
            if kind == NAMESPACE:
                return NamespaceReader(api, names, on_change=changed, **options)
            each = {name: Informer(api, kind, namespace=name, on_change=changed, **options) for name in names}
            return ScopedInformer(kind, each)

        self.links = informer(SERVICE_LINK)
        self.policies = informer(SERVICE_LINK_POLICY)
        self.services = informer(SERVICE, trim=_trim_service)
        self.namespaces = informer(NAMESPACE, trim=_trim_namespace)
        self.config_maps = informer(CONFIG_MAP, label_selector=f"{MANAGED_BY}={MANAGER}")
        self.workloads = {name: informer(kind, trim=_trim_workload) for name, kind in WORKLOADS.items()}
        self._declare_indices()

    def _declare_indices(self) -> None:
        self.links.index("server", lambda body: [_server_of(body)])
        self.links.index("server-namespace", lambda body: [_server_of(body).namespace])
        self.links.index("client", lambda body: [_client_of(body)])
        self.links.index("claim", _claims_of)
        self.links.index("namespace", lambda body: [_namespace(body)])
        self.policies.index("namespace", lambda body: [_namespace(body)])
        self.services.index("namespace", lambda body: [_namespace(body)])
        self.config_maps.index("verifier", lambda body: [_verifier_of(body)])
        self.config_maps.index("namespace", lambda body: [_namespace(body)])
        for workloads in self.workloads.values():
            workloads.index("namespace", lambda body: [_namespace(body)])

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
        return None if body is None else self._parse(body, parse_link)

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
        return None if body is None else self._parse(body, parse_policy)

    def policies_of(self, namespace: str) -> tuple[Policy, ...]:
        """Answer the policies of a namespace that can be parsed."""
        found = (self._parse(body, parse_policy) for body in self.policies.by_index("namespace", namespace))
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
        found = (
            self.parse_workload(kind, body)
            for kind, informer in self.workloads.items()
            for body in informer.by_index("namespace", service.ref.namespace)
        )
        return tuple(workload for workload in found if service.selects(workload))

    def verifier_shards(self, ref: ServiceRef) -> tuple[Object, ...]:
        """Answer a verifier's ConfigMaps, shard 0 first."""
        return self.config_maps.by_index("verifier", (ref.namespace, ref.name))

    def standing(self, ref: ServiceRef) -> StandingVerifier:
        """Answer a verifier as it stands."""
        if ref in self.memory.conflicts:
            return StandingVerifier(None, conflict=True)
        shards = self.verifier_shards(ref)
        versions = ",".join(body["metadata"]["resourceVersion"] for body in shards)
        found: StandingVerifier = self._remember(("verifier", str(ref)), versions, lambda: parse_standing(shards))
        left_out = self.memory.left_out.get(ref)
        return replace(found, left_out=left_out) if left_out else found

    def secret_of(self, link: Link) -> SecretView | BindingFacts:
        """Answer what is known of a link's Secret; after a start, what status and verifier together say of it."""
        known = self.memory.secret_of(link.uid)
        if known is not SecretView.UNREAD:
            return known
        status = (self.links.find(link.namespace, link.name) or {}).get("status") or {}
        credential = status.get("credential") or {}
        if (status.get("binding") or {}).get("name") != link.binding.secret_name or "issuedAt" not in credential:
            return known
        issued_at = parse_time(credential["issuedAt"])
        presumed = presume_facts(credential.get("id"), issued_at, self.standing(link.server).entry_of(link.uid))
        return presumed or known

    def assess(self, link: Link, now: dt.datetime) -> Assessment:
        """Answer what is so about a link."""
        return assess_link(self._arrow(link), self._limits, now)

    def observe_server(
        self, ref: ServiceRef, now: dt.datetime, installation: str | None, gone: frozenset[str] = frozenset()
    ) -> ServerWorld:
        """Answer all that decides about one server; `gone` are UIDs of links that the API server does not have."""
        links, standing = self.links_to(ref), self.standing(ref)
        return ServerWorld(
            ref=ref,
            exists=self.service(ref) is not None,
            policies=self.policies_for(ref),
            standing=standing,
            callers=tuple(Caller(self.assess(link, now), self.secret_of(link)) for link in links),
            gone=gone,
            removals=self._observe_removals(unseen_entries(standing, links), installation),
        )

    def _observe_removals(self, unseen: Sequence[LinkEntry], installation: str | None) -> Removals:
        """Answer what decides whether entries may go; all verifiers are gone through only where some could."""
        namespaces = {entry.link.partition("/")[0] for entry in unseen}
        return Removals(
            installation=installation,
            vanished=self._count_vanished() if unseen else 0,
            living=len(self.links),
            departing=frozenset(filter(self.is_departing, namespaces)),
            confirmed=self._limits.confirmed,
        )

    def _count_vanished(self) -> int:
        """Answer how many links are gone: those whose entries stand, or, of late, also those whose entries went."""
        standing = sum(1 for entry in self.entries() if self._has_vanished(entry))
        return max(standing, self.memory.crowd(self._clock()))

    def _has_vanished(self, entry: LinkEntry) -> bool:
        if entry.held_since is not None or self.is_departing(entry.link.partition("/")[0]):
            return False
        body = self.links.find(*entry.link.split("/", 1))
        return body is None or body["metadata"]["uid"] != entry.uid

    def is_departing(self, namespace: str) -> bool:
        """Answer whether a namespace is gone or being deleted, and all in it with it; one out of scope is neither."""
        body = self.namespaces.find("", namespace)
        if body is None:
            return not self._limits.scope
        return "deletionTimestamp" in body["metadata"]

    def entries(self) -> Iterator[LinkEntry]:
        """Answer the entries of all verifiers."""
        for ref in {ServiceRef(*_verifier_of(body)) for body in self.config_maps.items()}:
            verifier = self.standing(ref).verifier
            yield from verifier.links if verifier else ()

    def observe_workload(
        self, workload: Workload, imported: Imported, now: dt.datetime, gone: frozenset[str] = frozenset()
    ) -> WorkloadWorld:
        """Answer all that decides about one workload; `gone` names links that the API server does not have."""
        uses = tuple(Use(self.assess(link, now), self.secret_of(link)) for link in self.links_from(workload.ref))
        return WorkloadWorld(workload, uses, tuple(self._services_over(workload)), imported, gone)

    def observe_policy(self, policy: Policy, now: dt.datetime) -> PolicyWorld:
        """Answer all that a policy's status tells."""
        others = tuple(one for one in self.policies_of(policy.namespace) if one.uid != policy.uid)
        links = tuple(
            link.full_name
            for link in self.links_into(policy.namespace)
            if policy.selects(link.server.name) and self.assess(link, now).consent.given
        )
        return PolicyWorld(policy, others, links, self._count_held_by(policy))

    def _count_held_by(self, policy: Policy) -> int:
        refs = {ServiceRef(*_verifier_of(body)) for body in self.config_maps.by_index("namespace", policy.namespace)}
        verifiers = (self.standing(ref).verifier for ref in refs if policy.selects(ref.name))
        return sum(1 for one in verifiers if one for entry in one.links if entry.held_since is not None)

    def _services_over(self, workload: Workload) -> Iterator[MountedService]:
        """Answer the Services that select the workload's Pods, and whether their verifier is to be mounted."""
        for service in self.services_of(workload.ref.namespace):
            if service.type == EXTERNAL_NAME or not service.selects(workload):
                continue
            posture = judge_posture(
                service.ref.name, self.policies_for(service.ref), self.standing(service.ref).verifier
            )
            sticky = posture.policy is None and posture.mode is Mode.ENFORCE
            yield MountedService(service.ref.name, wanted=posture.injects, sticky=sticky)

    def _arrow(self, link: Link) -> Arrow:
        namespace = self.namespaces.find("", link.namespace) or {"metadata": {}}
        service, rivals = self.service(link.server), self.rivals_of(link)
        return Arrow(
            link=link,
            namespace_labels=_labels(namespace),
            terminating="deletionTimestamp" in namespace["metadata"],
            rivals=rivals,
            settled=frozenset(one.uid for one in (link, *rivals) if self._has_settled(one)),
            policies=self.policies_for(link.server),
            service=service,
            behind=self.workloads_behind(service) if service else (),
            client=self.workload(link.client),
            standing=self.standing(link.server),
            secret=self.secret_of(link),
            excess=self._excess(link),
            failure=self.memory.refusals.get(link_key(link.namespace, link.name), ""),
        )

    def _excess(self, link: Link) -> Excess | None:
        body = self.links.find(link.namespace, link.name)
        if body is None or not self._usage.is_crowded(link.namespace):
            return None
        return self._usage.find_excess(body, self.links.by_index("namespace", link.namespace))

    def _has_settled(self, link: Link) -> bool:
        body = self.links.find(link.namespace, link.name)
        return body is not None and is_accepted(body)

    def _links(self, bodies: Iterable[Object]) -> tuple[Link, ...]:
        found = (self._parse(body, parse_link) for body in bodies)
        return tuple(link for link in found if isinstance(link, Link))

    def _parse(self, body: Object, parse: Callable[[Object], T]) -> T:
        metadata = body["metadata"]
        return self._remember((body["kind"], metadata["uid"]), metadata["resourceVersion"], lambda: parse(body))

    def _remember(self, what: tuple[str, str], version: str, make: Callable[[], T]) -> T:
        """Answer what was made of that version, making it once."""
        known = self._parsed.get(what)
        if known is None or known[0] != version:
            known = (version, make())
            self._parsed[what] = known
        found: T = known[1]
        return found

    def count_held(self) -> int:
        """Answer how many entries of verifiers the brake holds."""
        return sum(1 for entry in self.entries() if entry.held_since is not None)

    def count_links(self, ready: str) -> int:
        """Answer how many links have a condition Ready of this status; one without conditions is Unknown."""
        return sum(_ready_of(body) == ready for body in self.links.items())

    def _forget(self, body: Object) -> None:
        """Drop what was made of an object that is gone."""
        self._parsed.pop((body["kind"], body["metadata"]["uid"]), None)


def _namespace(body: Mapping[str, Any]) -> str:
    return str(body["metadata"]["namespace"])


def _labels(body: Mapping[str, Any]) -> Mapping[str, str]:
    labels: Mapping[str, str] = body["metadata"].get("labels") or {}
    return labels


def _verifier_of(body: Mapping[str, Any]) -> tuple[str, str]:
    """Answer namespace and name of the Service that a ConfigMap is about; the name "" where it does not say."""
    return _namespace(body), _labels(body).get(VERIFIER_OF, "")


def _ready_of(body: Mapping[str, Any]) -> str:
    conditions = (body.get("status") or {}).get("conditions") or ()
    return next((str(one["status"]) for one in conditions if one["type"] == "Ready"), "Unknown")


def _server_of(body: Mapping[str, Any]) -> ServiceRef:
    server = body["spec"].get("server") or {}
    return ServiceRef(server.get("namespace") or _namespace(body), server.get("name", ""))


def _client_of(body: Mapping[str, Any]) -> WorkloadRef:
    client = body["spec"].get("client") or {}
    return WorkloadRef(_namespace(body), client.get("kind", ""), client.get("name", ""))


def _claims_of(body: Object) -> tuple[tuple[str, ...], ...]:
    link = parse_link(body)
    return claims_of(link) if isinstance(link, Link) else ()


def unseen_entries(standing: StandingVerifier, links: Iterable[Link]) -> list[LinkEntry]:
    """Answer the entries of a verifier that are of none of these links."""
    seen = {link.uid for link in links}
    return [entry for entry in (standing.verifier.links if standing.verifier else ()) if entry.uid not in seen]


def is_managed(body: Mapping[str, Any]) -> bool:
    """Answer whether a workload carries additions of ours."""
    return MANAGED in _labels(body)


def _trim_workload(body: Object) -> Object:
    body["metadata"].pop("managedFields", None)
    return body


def _trim_service(body: Object) -> Object:
    body["metadata"].pop("managedFields", None)
    body.pop("status", None)
    return body


def _trim_namespace(body: Object) -> Object:
    return {**body, "metadata": {key: body["metadata"][key] for key in _KEPT if key in body["metadata"]}}


_KEPT = ("name", "uid", "resourceVersion", "labels", "deletionTimestamp")
