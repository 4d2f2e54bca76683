"""Setting a case's world up from its `in.yaml`, and writing down what the core answers.

`in.yaml` holds objects as the API server would answer them, without what it would add; that is added here, always
alike. `secrets` says what is known of each link's binding Secret, `verifiers` what stands in each server's, `injected`
which workloads carry what their links want. Then `lost` variables are taken out of workloads, `unseen` links are out of
sight, and `gone` ones deleted for certain.
"""

from dataclasses import replace
from typing import Any, cast

from yamls import parse_yaml

from kstatus import kstatus
from servicelink_contract.rules import Protocol
from servicelink_contract.verifier import KeyEntry, LinkEntry, Mode, Verifier
from servicelink_core.api.durations import parse_duration
from servicelink_core.api.fields import Invalid, parse_time, render_time
from servicelink_core.api.links import Link, ServiceRef, WorkloadRef
from servicelink_core.api.objects import TEMPLATE_PATHS, Workload
from servicelink_core.conditions import Findings, settle_invalid, settle_link
from servicelink_core.limits import DEFAULT_QUOTA
from servicelink_core.link import Limits
from servicelink_core.policy import settle_invalid_policy, settle_policy
from servicelink_core.render.verifier import render_config_maps
from servicelink_core.rotation import BindingFacts, SecretView
from servicelink_core.server import plan_server
from servicelink_core.workload import Injected, Injection, Use, judge_injection, plan_workload
from servicelink_operator.cluster.api import Api
from servicelink_operator.reconcile.keys import link_key, workload_key
from servicelink_operator.reconcile.memory import Memory
from servicelink_operator.reconcile.world import World

Body = dict[str, Any]
_API_VERSIONS = {
    **dict.fromkeys(("ServiceLink", "ServiceLinkPolicy"), "servicelink.dev/v1alpha1"),
    **dict.fromkeys(("Deployment", "StatefulSet", "DaemonSet"), "apps/v1"),
    "CronJob": "batch/v1",
    "Service": "v1",
    "Namespace": "v1",
}


class Stage:
    """One case: its world, and the time at which it is looked at."""

    def __init__(self, text: str) -> None:
        case = parse_yaml(text)
        self.now = parse_time(case["now"])
        self._imported = {name: frozenset(keys) for name, keys in case.get("imported", {}).items()}
        self._version = 1
        # None: a definition of our kinds is being deleted.
        self._installation = case.get("installation", "")
        # No informer of this world is ever run, so that nothing asks the API.
        self.world = World(cast("Api", None), Memory(), _limits(case), lambda *_: None, clock=lambda: 0.0)
        for body in case["objects"]:
            self._store(body)
        for ref, verifier in case.get("verifiers", {}).items():
            self._store_verifier(ServiceRef(*ref.split("/")), verifier)
        for name, known in case.get("secrets", {}).items():
            self._remember_secret(name, known)
        for name in case.get("injected", ()):
            self._inject(WorkloadRef(*name.split("/")))
        for name, variables in case.get("lost", {}).items():
            self._lose(WorkloadRef(*name.split("/")), frozenset(variables))
        self._remember(case)
        self._gone = frozenset(case.get("gone", ()))
        for name in (*case.get("unseen", ()), *self._gone):
            namespace, link = name.split("/")
            self.world.links.forget(namespace, link, f"uid-of-servicelink-{link}")

    def answer(self) -> Body:
        """Answer what the core says of everything in this world."""
        links = {name: self._answer_link(link) for name, link in self._links().items()}
        servers = {link.server for link in self._links().values() if isinstance(link, Link)}
        servers |= {ServiceRef(*_place(body)) for body in self.world.services.items()}
        servers |= {ServiceRef(_place(body)[0], _labels(body)) for body in self.world.config_maps.items()}
        return {
            "links": links,
            "verifiers": {str(ref): self._answer_server(ref) for ref in sorted(servers)},
            "workloads": {
                f"{kind}/{'/'.join(_place(body))}": self._answer_workload(self.world.parse_workload(kind, body))
                for kind, informer in self.world.workloads.items()
                for body in informer.items()
            },
            "policies": {"/".join(_place(body)): self._answer_policy(body) for body in self.world.policies.items()},
        }

    def _links(self) -> dict[str, Link | Invalid]:
        found = {"/".join(_place(body)): self.world.link(*_place(body)) for body in self.world.links.items()}
        return {name: link for name, link in found.items() if link is not None}

    def _answer_link(self, link: Link | Invalid) -> Body:
        namespace, name = link.name.split("/") if isinstance(link, Invalid) else (link.namespace, link.name)
        body = {"metadata": {"generation": link.generation}}
        previous = self.world.status_of(namespace, name)
        if isinstance(link, Invalid):
            settled = settle_invalid(link.generation, link.problems, previous, self.now)
            return {"status": settled.status, "kstatus": kstatus({**body, "status": settled.status})}
        assessment, client = self.world.assess(link, self.now), self.world.workload(link.client)
        use = Use(assessment, self.world.secret_of(link))
        injection = Injection(Injected.WAITING)
        if client is not None:
            injection = judge_injection(use, client, self._imported)
        standing = self.world.standing(link.server).entry_of(link.uid) is not None
        failure = self.world.memory.refusals.get(workload_key(link.client), "")
        pace = self.world.memory.paced.get(workload_key(link.client), "")
        findings = Findings(assessment, use.secret, client, injection, standing=standing, failure=failure, pace=pace)
        settled = settle_link(findings, previous, self.now)
        return {
            "secret": str(assessment.step),
            "stage": str(assessment.stage),
            "final": settled.final,
            "lookAgain": settled.look_again and render_time(settled.look_again),
            "status": settled.status,
            "kstatus": kstatus({**body, "status": settled.status}),
        }

    def _answer_server(self, ref: ServiceRef) -> Body | None:
        gone = frozenset(f"uid-of-servicelink-{name.split('/')[1]}" for name in self._gone)
        plan = plan_server(self.world.observe_server(ref, self.now, self._installation, gone), self.now)
        asks = [one.link for one in plan.unconfirmed]
        if plan.verifier is None:
            return {"verifier": None, "asks": asks}
        maps = render_config_maps(ref, plan.verifier, plan.enforced_since)
        return {
            "verifier": {body["metadata"]["name"]: parse_yaml(next(iter(body["data"].values()))) for body in maps},
            "enforcedSince": plan.enforced_since and render_time(plan.enforced_since),
            "asks": asks,
            **({"lookAgain": render_time(plan.look_again)} if plan.look_again else {}),
        }

    def _answer_workload(self, workload: Workload) -> Body:
        gone = frozenset(name.split("/")[1] for name in self._gone)
        plan = plan_workload(self.world.observe_workload(workload, self._imported, self.now, gone))
        return {"patch": plan.patch, "waits": plan.waits, "asks": list(plan.unconfirmed)}

    def _answer_policy(self, body: Body) -> Body:
        policy = self.world.policy(*_place(body))
        previous = body.get("status", {})
        assert policy is not None
        if isinstance(policy, Invalid):
            return settle_invalid_policy(policy.generation, policy.problems, previous, self.now)
        return settle_policy(self.world.observe_policy(policy, self.now), previous, self.now)

    def _store(self, body: Body) -> None:
        """Add what the API server would add, and take the object in."""
        self._version += 1
        kind, metadata = body["kind"], body["metadata"]
        added = {
            "uid": f"uid-of-{kind.lower()}-{metadata['name']}",
            "resourceVersion": str(self._version),
            "generation": 1,
            "creationTimestamp": "2026-11-01T00:00:00Z",
        }
        whole = {"apiVersion": _API_VERSIONS.get(kind, "v1"), **body, "metadata": {**added, **metadata}}
        informers = {informer.kind.kind: informer for informer in self.world.informers}
        informers[kind].store(whole)

    def _store_verifier(self, ref: ServiceRef, given: Body) -> None:
        links = [
            LinkEntry(
                link=one["link"],
                uid=one.get("uid", f"uid-of-servicelink-{one['link'].split('/')[1]}"),
                port=one.get("port", 8080),
                protocol=Protocol(one.get("protocol", "REST")),
                keys=tuple(KeyEntry(key["kid"], key["kid"] * 8, parse_time(key["since"])) for key in one["keys"]),
                installation=one.get("installation", ""),
                held_since=parse_time(one["heldSince"]) if "heldSince" in one else None,
            )
            for one in given["links"]
        ]
        verifier = Verifier(str(ref), Mode(given["mode"]), "x-service-auth", "/graphql", tuple(links))
        since = parse_time(given["enforcedSince"]) if "enforcedSince" in given else None
        for body in render_config_maps(ref, verifier, since):
            self._store(body)

    def _remember(self, case: Body) -> None:
        """Say what else lives in memory only."""
        memory = self.world.memory
        for name in case.get("conflicts", ()):
            memory.conflicts.add(ServiceRef(*name.split("/")))
        for name, message in case.get("refusals", {}).items():
            parts = name.split("/")
            key = link_key(*parts) if len(parts) == 2 else workload_key(WorkloadRef(*parts))
            memory.refusals[key] = message
        for name, why in case.get("paced", {}).items():
            memory.paced[workload_key(WorkloadRef(*name.split("/")))] = why
        for name, links in case.get("leftOut", {}).items():
            uids = frozenset(f"uid-of-servicelink-{link.split('/')[1]}" for link in links)
            memory.left_out[ServiceRef(*name.split("/"))] = uids

    def _remember_secret(self, link_name: str, known: str | Body) -> None:
        """Say what is known: Absent, Foreign, Unread, or a kid and candidate, whose hashes are the kid eight times."""
        link = self.world.link(*link_name.split("/"))
        assert isinstance(link, Link)
        if isinstance(known, str):
            self.world.memory.secrets[link.uid] = SecretView(known)
            return
        issued_at = known.get("issuedAt")
        self.world.memory.secrets[link.uid] = BindingFacts(
            link_uid=known.get("linkUid", link.uid),
            resource_version="7",
            kid=known.get("kid"),
            sha256=known["kid"] * 8 if "kid" in known else None,
            issued_at=parse_time(issued_at) if issued_at else None,
            candidate_kid=known.get("candidate"),
            candidate_sha256=known["candidate"] * 8 if "candidate" in known else None,
            content_hash=known.get("contentHash"),
            owner=known.get("owner", link.name),
            kid_secret=known.get("kidSecret", False),
        )

    def _inject(self, ref: WorkloadRef) -> None:
        """Bring a workload to where its patch would bring it (`$patch` lines aside: nothing is taken away here)."""
        workload = self.world.workload(ref)
        assert workload is not None
        patch = plan_workload(self.world.observe_workload(workload, self._imported, self.now)).patch
        assert patch is not None, f"{ref} waits for its links: say what is known of their Secrets and verifiers"
        body = self.world.workloads[ref.kind].find(ref.namespace, ref.name)
        assert body is not None
        target, source = body, patch
        for step in (*TEMPLATE_PATHS[ref.kind], "spec"):
            target, source = target[step], source[step]
        target.setdefault("volumes", []).extend(map(_without_directives, source.get("volumes", ())))
        for container in source["containers"]:
            into = next(one for one in target["containers"] if one["name"] == container["name"])
            for field in ("env", "volumeMounts"):
                into.setdefault(field, []).extend(map(_without_directives, container.get(field, ())))
        marks = {key: patch["metadata"][key] for key in ("annotations", "labels")}
        self._store({**body, "metadata": {**body["metadata"], **marks, "resourceVersion": str(self._version + 1)}})

    def _lose(self, ref: WorkloadRef, variables: frozenset[str]) -> None:
        """Take variables out of a workload as its user would, the annotation left as it is."""
        target = body = self.world.workloads[ref.kind].find(ref.namespace, ref.name)
        for step in (*TEMPLATE_PATHS[ref.kind], "spec"):
            target = target[step] if target is not None else None
        assert body is not None
        assert target is not None
        for container in target["containers"]:
            container["env"] = [one for one in container["env"] if one["name"] not in variables]
        self._store(body)


def _limits(case: Body) -> Limits:
    confirmed = case.get("confirmed")
    return Limits(
        propagation_wait=parse_duration(case.get("propagationWait", "150s")),
        min_overlap=parse_duration("5m"),
        confirmed=parse_time(confirmed) if confirmed else None,
        quota=replace(DEFAULT_QUOTA, **case.get("quota", {})),
        scope=frozenset(case.get("scope", ())),
    )


def _without_directives(item: Body) -> Body:
    return {key: value for key, value in item.items() if not key.startswith("$") and value is not None}


def _place(body: Body) -> tuple[str, str]:
    return body["metadata"]["namespace"], body["metadata"]["name"]


def _labels(body: Body) -> str:
    return str(body["metadata"]["labels"]["servicelink.dev/verifier-of"])
