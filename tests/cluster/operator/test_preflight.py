"""What is missing is named in words, with what mends it."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from devcluster.testing import Client, wait_until
from servicelink_operator.cluster.api import Api
from servicelink_operator.cluster.preflight import (
    find_crd_problem,
    observe_crds,
    observe_rights,
    wants_rights,
)

CRDS = Path(__file__).parents[3] / "crds"


@pytest.fixture
def crds(cluster: Client) -> None:
    cluster.kubectl("apply", "--server-side", f"--filename={CRDS}")
    cluster.kubectl("wait", f"--filename={CRDS}", "--for=condition=Established", "--timeout=30s")
    wait_until(lambda: "ServiceLink" in cluster.kubectl("get", "--raw", "/openapi/v3/apis/servicelink.dev/v1alpha1"))


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
