"""The world as the caches hold it: everything that plans are made from is observed here.

Nothing in this module writes, and nothing asks the API server.
"""

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from servicelink_contract.verifier import LinkEntry, Mode
from servicelink_core.api.fields import parse_time
from servicelink_core.api.links import Link, ServiceRef
from servicelink_core.api.objects import EXTERNAL_NAME, Workload
from servicelink_core.api.policies import Policy
from servicelink_core.brake import Removals
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
from servicelink_operator.cluster.kinds import SERVICE_LINK, Kind
from servicelink_operator.reconcile.caches import Caches, OnChange, labels_of, verifier_of
from servicelink_operator.reconcile.keys import link_key
from servicelink_operator.reconcile.memory import Memory
from servicelink_operator.reconcile.packed import is_accepted
from servicelink_operator.reconcile.usage import UsageBook

# The default of a link's status in its definition: nobody has written one.
NEVER_OBSERVED = -1


class World(Caches):
    """The caches, and what is so; `memory` holds what no informer can tell, `clock` is the loop's."""

    def __init__(
        self, api: Api, memory: Memory, limits: Limits, on_change: OnChange, *, clock: Callable[[], float]
    ) -> None:
        self.memory = memory
        self._limits = limits
        self._usage = UsageBook(limits.quota)
        self._clock = clock

        def changed(kind: Kind, old: Object | None, new: Object | None) -> None:
            if kind == SERVICE_LINK:
                self._usage.changed(old, new)
            on_change(kind, old, new)

        super().__init__(api, limits.scope, changed)

    def standing(self, ref: ServiceRef) -> StandingVerifier:
        """Answer a verifier as it stands; while it cannot be read, as it was before somebody changed it."""
        if ref in self.memory.conflicts:
            return StandingVerifier(None, conflict=True)
        shards, place = self.verifier_shards(ref), ("verifier", str(ref))
        versions = ",".join(body["metadata"]["resourceVersion"] for body in shards)
        before = self._parsed.get(place)
        found: StandingVerifier = self._remember(place, versions, lambda: parse_standing(shards))
        if shards and found.verifier is None and before is not None:
            found = before[1]
            self._parsed[place] = (versions, found)
        left_out = self.memory.left_out.get(ref)
        return replace(found, left_out=left_out) if left_out else found

    def secret_of(self, link: Link) -> SecretView | BindingFacts:
        """Answer what is known of a link's Secret; after a start, what status and verifier together say of it."""
        known = self.memory.secret_of(link.uid)
        if known is not SecretView.UNREAD:
            return known
        status = self.status_of(link.namespace, link.name)
        if status.get("observedGeneration") == NEVER_OBSERVED:
            # A new link. Should there be a Secret all the same, creating it will say so.
            return SecretView.ABSENT
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
        namespaces = set(map(_namespace_of, unseen))
        # Of late links may also be gone whose entries went, which the memory counts.
        gone = self._count_vanished() if unseen else Counter[str]()
        return Removals(
            installation=installation,
            vanished=max(gone.total(), self.memory.crowd(self._clock())) if unseen else 0,
            living=len(self.links),
            emptied=frozenset(one for one in namespaces if gone[one] > len(self.links.by_index("namespace", one))),
            departing=frozenset(filter(self.is_departing, namespaces)),
            confirmed=self._limits.confirmed,
        )

    def _count_vanished(self) -> Counter[str]:
        """Answer how many links are gone whose entries stand, by namespace."""
        return Counter(_namespace_of(entry) for entry in self.entries() if self._has_vanished(entry))

    def _has_vanished(self, entry: LinkEntry) -> bool:
        if entry.held_since is not None or self.is_departing(_namespace_of(entry)):
            return False
        body = self.links.find(*entry.link.split("/", 1))
        return body is None or body["metadata"]["uid"] != entry.uid

    def entries(self) -> Iterator[LinkEntry]:
        """Answer the entries of all verifiers."""
        for ref in {ServiceRef(*verifier_of(body)) for body in self.config_maps.items()}:
            verifier = self.standing(ref).verifier
            yield from verifier.links if verifier else ()

    def observe_workload(
        self, workload: Workload, imported: Imported, now: dt.datetime, gone: frozenset[str] = frozenset()
    ) -> WorkloadWorld:
        """Answer all that decides about one workload; `gone` names links that the API server does not have."""
        uses = tuple(Use(self.assess(link, now), self.secret_of(link)) for link in self.links_from(workload.ref))
        return WorkloadWorld(workload, uses, tuple(self._mounted_over(workload)), imported, gone)

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
        refs = {ServiceRef(*verifier_of(body)) for body in self.config_maps.by_index("namespace", policy.namespace)}
        verifiers = (self.standing(ref).verifier for ref in refs if policy.selects(ref.name))
        return sum(1 for one in verifiers if one for entry in one.links if entry.held_since is not None)

    def _mounted_over(self, workload: Workload) -> Iterator[MountedService]:
        """Answer the Services that select the workload's Pods, and whether their verifier is to be mounted."""
        for service in sorted(self.services_over(workload), key=lambda one: one.ref):
            if service.type == EXTERNAL_NAME:
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
            namespace_labels=labels_of(namespace),
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
        if body is None:
            return None
        return self._usage.find_excess(body, lambda: self.links.by_index("namespace", link.namespace))

    def _has_settled(self, link: Link) -> bool:
        body = self.links.find(link.namespace, link.name)
        return body is not None and is_accepted(body)

    def count_held(self) -> int:
        """Answer how many entries of verifiers the brake holds."""
        return sum(1 for entry in self.entries() if entry.held_since is not None)


def _namespace_of(entry: LinkEntry) -> str:
    return entry.link.partition("/")[0]


def unseen_entries(standing: StandingVerifier, links: Iterable[Link]) -> list[LinkEntry]:
    """Answer the entries of a verifier that are of none of these links."""
    seen = {link.uid for link in links}
    return [entry for entry in (standing.verifier.links if standing.verifier else ()) if entry.uid not in seen]
