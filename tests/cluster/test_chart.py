"""What the chart installs: few rights, Pods that the strictest namespace admits, nothing for a misspelled value."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster.testing import Client, CommandFailedError

CHART = Path(__file__).parents[2] / "charts" / "servicelink"
CLUSTER_SCOPED = {
    *("ClusterRole", "ClusterRoleBinding"),
    *("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"),
}

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]


@pytest.fixture
def render(helm: Callable[..., str]) -> Render:
    """`render(*flags, release=, namespace=)` answers what `helm install` would send."""

    def rendered(*flags: str, release: str = "servicelink", namespace: str = "servicelink-system") -> list[Manifest]:
        text = helm("template", release, str(CHART), f"--namespace={namespace}", *flags)
        return [manifest for manifest in yaml.safe_load_all(text) if manifest]

    return rendered


def of(kind: str, manifests: list[Manifest]) -> Manifest:
    found = [manifest for manifest in manifests if manifest["kind"] == kind]
    assert len(found) == 1
    return found[0]


def test_a_namespace_that_enforces_the_restricted_standard_admits_the_operator(
    cluster: Client, namespace: str, render: Render
) -> None:
    """Pod Security judges Pods, not Deployments: so the Pod that the Deployment would make is sent."""
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    manifests = render(namespace=namespace)
    cluster.apply(yaml.safe_dump(of("ServiceAccount", manifests)))
    template = of("Deployment", manifests)["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {**template["metadata"], "name": "operator"}}
    loose = {**pod, "spec": {**pod["spec"], "securityContext": {}}}

    def create(body: Manifest) -> str:
        return cluster.kubectl(
            "create", "--dry-run=server", f"--namespace={namespace}", "--filename=-", stdin=yaml.safe_dump(body)
        )

    assert "created" in create(pod)
    with pytest.raises(CommandFailedError, match="violates PodSecurity"):
        create(loose)


def test_the_root_file_system_is_read_only(render: Render) -> None:
    (container,) = of("Deployment", render())["spec"]["template"]["spec"]["containers"]

    assert container["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize("program", ["helm", "helm3"])
def test_the_api_server_takes_all_of_it_as_it_is(
    cluster: Client, namespace: str, program: str, devcluster: Callable[..., Any]
) -> None:
    """Strict: a field that the API server does not know would be dropped without a word."""
    tool = devcluster("tool", program).out.strip()
    flags = (f"--namespace={namespace}", "--set=crds.enabled=false", "--kube-version=1.37.0")
    words = [tool, "template", f"{namespace}-servicelink", str(CHART), *flags]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout

    said = cluster.apply(text, "--dry-run=server", "--validate=strict")

    assert said.count("(server dry run)") == 21
    assert f"deployment.apps/{namespace}-servicelink created" in said


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("operator.propagationWiat=60s", "'propagationWiat' not allowed"),
        ("imgae.tag=dev", "'imgae' not allowed"),
        ("operator.propagationWait=1 minute", "/operator/propagationWait"),
        ("operator.workers=0", "/operator/workers"),
        ("operator.logLevel=verbose", "/operator/logLevel"),
        ("guards.enabled=false", "set operator.requireGuards=false, too"),
        ("replicas=2,operator.leaderElect=false", "several would write"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(render: Render, flag: str, said: str) -> None:
    with pytest.raises(CommandFailedError) as refused:
        render("--set", flag)

    assert said in refused.value.stderr


def test_two_releases_share_no_name(render: Render) -> None:
    one, two = (
        {
            (manifest["kind"], manifest["metadata"]["name"])
            for manifest in render("--set=crds.enabled=false", release=name)
        }
        for name in ("servicelink", "second")
    )

    assert {kind for kind, _ in one} > CLUSTER_SCOPED
    assert not one & two


def test_the_guards_are_about_the_release_s_own_service_account(render: Render) -> None:
    manifests = render("--set=serviceAccount.name=mine", release="second", namespace="there")
    of_users = ("-links", "-policies")
    policies = [manifest for manifest in manifests if manifest["kind"] == "ValidatingAdmissionPolicy"]
    policies = [policy for policy in policies if not policy["metadata"]["name"].endswith(of_users)]

    assert len(policies) == 4
    assert of("ServiceAccount", manifests)["metadata"]["name"] == "mine"
    assert of("Deployment", manifests)["spec"]["template"]["spec"]["serviceAccountName"] == "mine"
    for policy in policies:
        conditions = [condition["expression"] for condition in policy["spec"]["matchConditions"]]
        assert any("'system:serviceaccount:there:mine'" in expression for expression in conditions)


def test_values_reach_the_operator_as_its_variables(render: Render) -> None:
    flags = ("--set=operator.minOverlap=1m,operator.freeze=true", "--set-json=operator.secretReadsPerSecond=2.5")
    deployment = of("Deployment", render(*flags, "--set=replicas=3"))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    variables = {variable["name"]: variable.get("value") for variable in container["env"]}

    assert deployment["spec"]["replicas"] == 3
    assert variables["SERVICELINK_MIN_OVERLAP"] == "1m"
    assert variables["SERVICELINK_SECRET_READS_PER_SECOND"] == "2.5"
    assert variables["SERVICELINK_FREEZE"] == "true"
    assert variables["SERVICELINK_GUARDS_PREFIX"] == "servicelink"
