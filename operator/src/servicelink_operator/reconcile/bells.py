"""Bells: which keys a change rings. A change is news only here; whoever is rung observes the world anew."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from servicelink_core.api.fields import Invalid
from servicelink_core.api.links import Inject, Link, ServiceRef, WorkloadRef
from servicelink_core.api.names import INJECTED
from servicelink_core.api.objects import Service, Workload, parse_service, parse_workload
from servicelink_core.api.policies import EVERY_SERVICE, Policy, parse_policy
from servicelink_core.render.injection import link_key as part_key
from servicelink_core.render.verifier import parse_standing
from servicelink_operator.cluster.cache import Object
from servicelink_operator.cluster.kinds import (
    CONFIG_MAP,
    NAMESPACE,
    SERVICE,
    SERVICE_LINK,
    SERVICE_LINK_POLICY,
    Kind,
)
from servicelink_operator.reconcile.caches import is_managed, verifier_of
from servicelink_operator.reconcile.keys import Key, link_key, policy_key, server_key, workload_key
from servicelink_operator.reconcile.queue import WorkQueue
from servicelink_operator.reconcile.world import World


class Bells:
    """Rings keys of a queue; silent until `open`, since what changes before is reconciled by the first round anyway."""

    def __init__(self, queue: WorkQueue) -> None:
        self._queue = queue
        self._world: World | None = None
        self._muted: Key | None = None

    def open(self, world: World) -> None:
        """Begin to ring."""
        self._world = world

    def ring(self, *keys: Key, after: float = 0.0) -> None:
        """Ring keys; a workload's waits for quiet."""
        for key in keys:
            if key != self._muted:
                self._queue.add(key, after)

    @contextmanager
    def muted(self, key: Key) -> Iterator[None]:
        """Do not ring a key: for what its own reconcile stores, which is no news to it."""
        self._muted = key
        yield
        self._muted = None

    def ring_workload(self, ref: WorkloadRef) -> None:
        """Ring a workload after some quiet, so that changes that come together make one patch."""
        if self._world is not None:
            key = workload_key(ref)
            if key != self._muted:
                pause = self._world.memory.ring_workload(key, asyncio.get_running_loop().time())
                self._queue.add(key, pause)

    def ring_recorded(self, link: str) -> None:
        """Ring the workloads whose templates carry the binding of a link (namespace/name), there or not."""
        namespace, _, name = link.partition("/")
        mark = f'"{part_key(name)}"'
        for kind, informer in self._world.workloads.items() if self._world is not None else ():
            for body in informer.by_index("namespace", namespace):
                if mark in (body["metadata"].get("annotations") or {}).get(INJECTED, ""):
                    self.ring_workload(WorkloadRef(namespace, kind, body["metadata"]["name"]))

    def changed(self, kind: Kind, old: Object | None, new: Object | None) -> None:
        """Ring what a change of an object is about."""
        world = self._world
        if world is None:
            return
        match kind:
            case _ if kind == SERVICE_LINK:
                self._link_changed(world, old, new)
            case _ if kind == SERVICE_LINK_POLICY:
                self._policy_changed(world, old, new)
            case _ if kind == SERVICE:
                self._service_changed(world, old, new)
            case _ if kind == NAMESPACE:
                self._namespace_changed(world, old, new)
            case _ if kind == CONFIG_MAP:
                self._verifier_changed(world, old, new)
            case _:
                self._workload_changed(world, kind.kind, old, new)

    def ring_everything(self, world: World) -> None:
        """Ring all folds: also of labelled workloads and verifiers to which no link refers any more."""
        servers = {link.server for link in self._all_links(world)}
        servers |= {ServiceRef(*_place(body)) for body in world.services.items()}
        servers |= {_server_of_verifier(body) for body in world.config_maps.items()}
        self.ring(*map(server_key, sorted(servers)))
        for kind, informer in world.workloads.items():
            for body in list(informer.items()):
                self.ring_workload(WorkloadRef(_place(body)[0], kind, _place(body)[1]))
        self.ring(*(policy_key(*_place(body)) for body in world.policies.items()))

    def ring_links(self, world: World) -> None:
        """Ring all links."""
        self.ring(*(link_key(*_place(body)) for body in world.links.items()))

    def _all_links(self, world: World) -> Iterable[Link]:
        found = (world.link(*_place(body)) for body in world.links.items())
        return [link for link in found if isinstance(link, Link)]

    def _link_changed(self, world: World, old: Object | None, new: Object | None) -> None:
        body = new or old
        assert body is not None
        self.ring(link_key(*_place(body)))
        if _only_status(old, new):
            return
        self.ring(*world.memory.crowded.get(_place(body)[0], ()))
        for link in (world.parse_link(one) for one in (old, new) if one is not None):
            if isinstance(link, Invalid):
                continue
            self.ring(server_key(link.server))
            if link.binding.inject is not Inject.NONE:
                self.ring_workload(link.client)
            self.ring(*(link_key(rival.namespace, rival.name) for rival in world.rivals_of(link)))
            self.ring(*(policy_key(one.namespace, one.name) for one in world.policies_for(link.server)), after=1.0)
        if new is None and old is not None:
            world.memory.forget_link(old["metadata"]["uid"])
            if not world.is_departing(old["metadata"]["namespace"]):
                world.memory.vanished(asyncio.get_running_loop().time())

    def _policy_changed(self, world: World, old: Object | None, new: Object | None) -> None:
        body = new or old
        assert body is not None
        if _only_status(old, new):
            return
        namespace = body["metadata"]["namespace"]
        self.ring(*(policy_key(one.namespace, one.name) for one in world.policies_of(namespace)))
        for policy in (parse_policy(one) for one in (old, new) if one is not None):
            if isinstance(policy, Policy):
                self._ring_services(world, namespace, policy.services)

    def _ring_services(self, world: World, namespace: str, names: tuple[str, ...]) -> None:
        links = world.links_into(namespace)
        if EVERY_SERVICE in names:
            refs = {service.ref for service in world.services_of(namespace)} | {link.server for link in links}
        else:
            refs = {ServiceRef(namespace, name) for name in names}
        for ref in refs:
            self._ring_service(world, ref, world.service(ref))

    def _ring_service(self, world: World, ref: ServiceRef, service: Service | None) -> None:
        self.ring(server_key(ref))
        self.ring(*(link_key(link.namespace, link.name) for link in world.links_to(ref)))
        for workload in world.workloads_behind(service) if service else ():
            self.ring_workload(workload.ref)

    def _service_changed(self, world: World, old: Object | None, new: Object | None) -> None:
        for body in (one for one in (old, new) if one is not None):
            service = parse_service(body)
            self._ring_service(world, service.ref, service)

    def _namespace_changed(self, world: World, old: Object | None, new: Object | None) -> None:
        body = new or old
        assert body is not None
        for link in world.links_of(body["metadata"]["name"]):
            self.ring(link_key(link.namespace, link.name), server_key(link.server))

    def _verifier_changed(self, world: World, old: Object | None, new: Object | None) -> None:
        """Ring the server, and only those links whose entry is another one now."""
        body = new or old
        assert body is not None
        ref = _server_of_verifier(body)
        self.ring(server_key(ref))
        before, after = (_entries(one) for one in (old, new))
        if _head(old) != _head(new):
            touched = {*before, *after} | {link.uid for link in world.links_to(ref)}
        else:
            touched = {uid for uid in {*before, *after} if before.get(uid) != after.get(uid)}
        for link in world.links_to(ref):
            if link.uid in touched:
                self.ring(link_key(link.namespace, link.name))
                self.ring_workload(link.client)

    def _workload_changed(self, world: World, kind: str, old: Object | None, new: Object | None) -> None:
        body = new or old
        assert body is not None
        workload, before = world.parse_workload(kind, body), None
        if old is not None and new is not None:
            before = parse_workload(kind, old)
        same_template = before is not None and before.template == workload.template
        if same_template and before is not None and before.rollout == workload.rollout and not _marks_moved(old, new):
            return
        for link in world.links_from(workload.ref):
            self.ring(link_key(link.namespace, link.name))
        if same_template and not _marks_moved(old, new):
            return
        if is_managed(body) or world.links_from(workload.ref) or self._stands_behind(world, workload):
            self.ring_workload(workload.ref)

    def _stands_behind(self, world: World, workload: Workload) -> bool:
        """Ring the servers whose Pods this workload runs, and answer whether there are any."""
        keys = [server_key(service.ref) for service in world.services_over(workload)]
        self.ring(*keys)
        return bool(keys)


def _place(body: Object) -> tuple[str, str]:
    return body["metadata"]["namespace"], body["metadata"]["name"]


def _only_status(old: Object | None, new: Object | None) -> bool:
    """Answer whether nothing but a status moved: a status is our own writing."""
    if old is None or new is None:
        return False
    names = ("uid", "generation", "deletionTimestamp")
    return all(old["metadata"].get(name) == new["metadata"].get(name) for name in names)


def _marks_moved(old: Object | None, new: Object | None) -> bool:
    if old is None or new is None:
        return True
    names = ("annotations", "labels", "uid", "deletionTimestamp")
    return any(old["metadata"].get(name) != new["metadata"].get(name) for name in names)


def _server_of_verifier(body: Object) -> ServiceRef:
    return ServiceRef(*verifier_of(body))


def _entries(body: Object | None) -> dict[str, object]:
    """Answer a shard's entries by link UID; a shard of several alone is no verifier, so all its links count."""
    verifier = parse_standing([body]).verifier if body is not None else None
    return {entry.uid: entry for entry in verifier.links} if verifier else {}


def _head(body: Object | None) -> object:
    verifier = parse_standing([body]).verifier if body is not None else None
    return (verifier.mode, verifier.header, verifier.graphql_path) if verifier else None
