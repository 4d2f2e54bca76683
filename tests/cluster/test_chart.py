"""What the API server says of the chart: that it takes all of it, and that the strictest namespace admits the Pods."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from charts import CHART, Helm, Manifest, only

from devcluster.testing import Client, CommandFailedError

NAMESPACED = ("--set=watch.namespaces={default,kube-public}",)
UNGUARDED = ("--set=guards.enabled=false,operator.requireGuards=false",)
HIGHLY_AVAILABLE = (f"--values={CHART / 'values-ha.yaml'}",)


def test_a_namespace_that_enforces_the_restricted_standard_admits_the_operator(
    cluster: Client, namespace: str, helm4: Helm
) -> None:
    """Pod Security judges Pods, not Deployments: so the Pod that the Deployment would make is sent."""
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    manifests = helm4.render(namespace=namespace)
    cluster.apply(yaml.safe_dump(only("ServiceAccount", manifests)))
    template = only("Deployment", manifests)["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {**template["metadata"], "name": "operator"}}
    loose = {**pod, "spec": {**pod["spec"], "securityContext": {}}}

    def create(body: Manifest) -> str:
        return cluster.kubectl(
            "create", "--dry-run=server", f"--namespace={namespace}", "--filename=-", stdin=yaml.safe_dump(body)
        )

    assert "created" in create(pod)
    with pytest.raises(CommandFailedError, match="violates PodSecurity"):
        create(loose)


@pytest.fixture(params=["helm", "helm3"])
def any_helm(request: pytest.FixtureRequest, tool: Callable[[str], Path]) -> Helm:
    """Each helm that installs the chart."""
    return Helm(tool(request.param))


@pytest.mark.parametrize(
    ("objects", "flags"),
    [
        pytest.param(21, (), id="as it is"),
        pytest.param(22, HIGHLY_AVAILABLE, id="with two replicas"),
        pytest.param(27, NAMESPACED, id="in two namespaces"),
        pytest.param(13, (*NAMESPACED, *UNGUARDED), id="in two namespaces without guards"),
    ],
)
def test_the_api_server_takes_all_of_it_as_it_is(
    cluster: Client, any_helm: Helm, flags: tuple[str, ...], objects: int
) -> None:
    """Strict: a field that the API server does not know would be dropped without a word."""
    text = any_helm.template("--set=crds.enabled=false", *flags, release="taken", namespace="default")

    said = cluster.apply(text, "--dry-run=server", "--validate=strict")

    assert said.count("(server dry run)") == objects
    assert "deployment.apps/taken-servicelink created" in said
