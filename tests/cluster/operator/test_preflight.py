"""What is missing is named in words, with what mends it."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from devcluster.testing import Client, wait_until
from servicelink_operator.cluster.api import Api
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
    wait_until(lambda: "ServiceLink" in cluster.kubectl("get", "--raw", "/openapi/v3/apis/servicelink.dev/v1alpha1"))


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


@pytest.fixture
def older_crd(cluster: Client, crds: None) -> Iterator[None]:
    """The definition of links as a release before this one had it."""
    older = yaml.safe_load((CRDS / "servicelink.dev_servicelinks.yaml").read_text())
    schema = older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    del schema["spec"]["properties"]["binding"]["properties"]["secretName"]
    del schema["status"]["default"]
    cluster.apply(yaml.safe_dump(older), "--server-side", "--force-conflicts")
    yield
    cluster.kubectl("apply", "--server-side", "--force-conflicts", f"--filename={CRDS}")


async def test_a_crd_of_another_release_is_said_with_what_it_lacks(older_crd: None, api: Api) -> None:
    """The API server publishes the schema of a changed definition a moment later."""
    said = None
    async with asyncio.timeout(20):
        while said is None:
            said = await observe_crds(api)

    assert "lacks spec.binding.secretName, the default of status" in said
    assert "kubectl apply" in said


def test_a_kind_that_is_not_served_is_said() -> None:
    assert "is not installed, or does not serve v1alpha1" in str(find_crd_problem(None, ()))


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
    assert crds is None


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
