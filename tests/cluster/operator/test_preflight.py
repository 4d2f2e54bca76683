"""What is missing is named in words, with what mends it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster.testing import Client
from servicelink_operator.cluster.api import Api
from servicelink_operator.cluster.kinds import CUSTOM_RESOURCE_DEFINITION
from servicelink_operator.cluster.preflight import (
    GUARDS,
    find_crd_problem,
    observe_crds,
    observe_guards,
    observe_rights,
    wants_rights,
)

CRDS = Path(__file__).parents[3] / "crds"
GUARD = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: {name}}}
spec:
  failurePolicy: {failure}
  matchConstraints:
    namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: nowhere}}}}
    resourceRules: [{{apiGroups: [""], apiVersions: [v1], operations: [UPDATE], resources: [secrets]}}]
  validations: [{{expression: "true"}}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: {name}}}
spec: {{policyName: {name}, validationActions: [{action}]}}
"""


@pytest.fixture
def crds(cluster: Client) -> None:
    cluster.kubectl("apply", "--server-side", f"--filename={CRDS}")
    cluster.kubectl("wait", f"--filename={CRDS}", "--for=condition=Established", "--timeout=30s")


@pytest.fixture
def guards(cluster: Client, namespace: str, api: Api) -> Iterator[Callable[..., Api]]:
    """`guards(failure, action)` installs all policies, the one about links so, and answers the client to look with."""
    names = {what: f"{namespace}-guard-{what}" for what in GUARDS}

    def install(failure: str, action: str) -> Api:
        chosen = dict.fromkeys(GUARDS, ("Fail", "Deny")) | {"links": (failure, action)}
        for what, name in names.items():
            cluster.apply(GUARD.format(name=name, failure=chosen[what][0], action=chosen[what][1]))
        return api

    yield install
    kinds = "validatingadmissionpolicy,validatingadmissionpolicybinding"
    cluster.kubectl("delete", kinds, *names.values(), "--ignore-not-found")


async def test_the_crds_of_this_release_are_accepted(crds: None, api: Api) -> None:
    assert await observe_crds(api) is None


async def test_a_crd_of_another_release_is_said_with_what_it_lacks(crds: None, api: Api) -> None:
    found = await api.read(CUSTOM_RESOURCE_DEFINITION, None, "servicelinks.servicelink.dev")
    schema = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del schema["properties"]["spec"]["properties"]["rotation"]
    del schema["properties"]["status"]["default"]

    problem = find_crd_problem(found, ("spec.client.name", "spec.rotation.overlap"))

    assert problem is not None
    assert "lacks spec.rotation.overlap, the default of status" in problem
    assert "kubectl apply" in problem


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"status": {"conditions": [{"type": "Established", "status": "False"}]}}, "not established"),
        ({"spec": {"versions": [{"name": "v1alpha1", "served": False}]}}, "does not serve v1alpha1"),
    ],
)
async def test_a_crd_that_does_not_serve_is_said(crds: None, api: Api, change: dict[str, Any], said: str) -> None:
    found = await api.read(CUSTOM_RESOURCE_DEFINITION, None, "servicelinks.servicelink.dev")

    assert said in str(find_crd_problem({**found, **change}, ()))


async def test_an_administrator_misses_no_right_and_a_stranger_every_one(
    api: Api, namespace: str, as_service_account: Callable[[str, str], Client]
) -> None:
    stranger = await Api.connect(str(as_service_account(namespace, "default").kubeconfig), frozen=True)

    assert await observe_rights(api, namespace) == ()
    missing = await observe_rights(stranger, namespace)
    crds = await observe_crds(stranger)
    await stranger.close()

    assert missing == tuple(str(right) for right in wants_rights(namespace))
    assert "patch deployments.apps" in missing
    assert "patch servicelinks.servicelink.dev/status" in missing
    assert f"create leases.coordination.k8s.io in {namespace}" in missing
    assert "may not be read" in str(crds)


async def test_one_missing_right_is_named(
    cluster: Client, api: Api, namespace: str, as_service_account: Callable[[str, str], Client]
) -> None:
    wanted = [right for right in wants_rights(namespace) if str(right) != "patch cronjobs.batch"]
    rules = [
        {
            "apiGroups": [right.kind.group],
            "resources": [f"{right.kind.plural}/{right.subresource}".rstrip("/")],
            "verbs": [right.verb],
        }
        for right in wanted
    ]
    subject = {"kind": "ServiceAccount", "name": "default", "namespace": namespace}
    group = "rbac.authorization.k8s.io"
    manifests = [
        {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": namespace}, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": namespace},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": namespace},
            "subjects": [subject],
        },
    ]
    cluster.apply(yaml.safe_dump_all(manifests))
    operator = await Api.connect(str(as_service_account(namespace, "default").kubeconfig))

    missing = await observe_rights(operator, namespace)
    await operator.close()
    cluster.kubectl("delete", "clusterrole,clusterrolebinding", namespace)

    assert missing == ("patch cronjobs.batch",)


async def test_guards_that_deny_are_accepted(guards: Callable[..., Api], namespace: str) -> None:
    api = guards("Fail", "Deny")

    assert await observe_guards(api, namespace) is None


@pytest.mark.parametrize(("failure", "action"), [("Ignore", "Deny"), ("Fail", "Audit")])
async def test_a_guard_that_does_not_hold_is_said(
    failure: str, action: str, guards: Callable[..., Api], namespace: str
) -> None:
    api = guards(failure, action)

    problem = str(await observe_guards(api, namespace))
    assert problem.startswith("GuardMissing")
    assert f"{namespace}-guard-links" in problem


async def test_a_missing_guard_is_named(api: Api, namespace: str) -> None:
    problem = str(await observe_guards(api, namespace))

    assert "GuardMissing" in problem
    assert f"{namespace}-guard-secrets" in problem
