"""Guards that stand and do not guard are said, with the field in which they differ from this release's."""

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import yaml
from charts import Helm

from devcluster.testing import Client
from servicelink_operator.cluster.api import Api, PatchType
from servicelink_operator.cluster.guards import Guarded, observe_guards, observe_username
from servicelink_operator.cluster.kinds import ADMISSION_POLICY, ADMISSION_POLICY_BINDING, Kind

NOWHERE = {"matchLabels": {"kubernetes.io/metadata.name": "nowhere"}}
ALL_SECRETS = [{"apiGroups": [""], "apiVersions": ["*"], "operations": ["*"], "resources": ["secrets"]}]
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Installed:
    """The chart without Pods, for one namespace of users; the API server as its operator and as the administrator."""

    guarded: Guarded
    api: Api
    admin: Api

    async def problem(self) -> str:
        """Answer what the operator says of its guards ("": nothing)."""
        return await observe_guards(self.api, self.guarded) or ""

    async def change(self, kind: Kind, what: str, spec: Body) -> None:
        """Change a guard, or its binding, as an administrator may."""
        name = f"{self.guarded.prefix}-guard-{what}"
        await self.admin.patch(kind, None, name, {"spec": spec}, content_type=PatchType.MERGE)


@pytest.fixture(scope="module")
def release(control_plane: Client, helm4: Helm) -> Iterator[tuple[str, str]]:
    """A release and its namespace, which is also that of its users."""
    mark = uuid.uuid4().hex[:8]
    name, namespace = f"servicelink-{mark}", f"t-{mark}"
    control_plane.kubectl("create", "namespace", namespace)
    flags = ("--set=crds.enabled=false,replicas=0", f"--set=watch.namespaces={{{namespace}}}")
    manifests = helm4.template(*flags, release=name, namespace=namespace)
    control_plane.apply(manifests)
    yield name, namespace
    control_plane.kubectl("delete", "--filename=-", "--wait=false", stdin=manifests)
    control_plane.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture
async def installed(release: tuple[str, str], control_plane: Client, helm4: Helm) -> AsyncIterator[Installed]:
    """The release, whose guards are as the chart has them before and after each test."""
    name, namespace = release
    operator = control_plane.as_service_account(namespace, name).kubeconfig
    api, admin = await Api.connect(str(operator)), await Api.connect(str(control_plane.kubeconfig))
    yield Installed(Guarded(name, await observe_username(api), frozenset({namespace})), api, admin)
    for one in (api, admin):
        await one.close()
    flags = ("--set=crds.enabled=false", f"--set=watch.namespaces={{{namespace}}}")
    rendered = helm4.render(*flags, release=name, namespace=namespace)
    guards = [one for one in rendered if one["kind"].startswith(ADMISSION_POLICY.kind)]
    control_plane.kubectl("replace", "--filename=-", stdin=yaml.safe_dump_all(guards))


async def test_guards_as_the_chart_has_them_are_accepted(installed: Installed) -> None:
    """With what the API server adds to them."""
    assert await installed.problem() == ""


@pytest.mark.parametrize(
    ("field", "spec"),
    [
        ("failurePolicy", {"failurePolicy": "Ignore"}),
        ("matchConstraints.namespaceSelector", {"matchConstraints": {"namespaceSelector": NOWHERE}}),
        ("matchConstraints.objectSelector", {"matchConstraints": {"objectSelector": NOWHERE}}),
        ("matchConstraints.excludeResourceRules", {"matchConstraints": {"excludeResourceRules": ALL_SECRETS}}),
        ("matchConstraints.matchPolicy", {"matchConstraints": {"matchPolicy": "Exact"}}),
        (
            "matchConstraints.resourceRules",
            {"matchConstraints": {"resourceRules": [{**ALL_SECRETS[0], "resources": ["pods"]}]}},
        ),
        ("matchConditions", {"matchConditions": [{"name": "never", "expression": "false"}]}),
        (
            "variables",
            {"variables": [{"name": name, "expression": "true"} for name in ("isOursAfterwards", "wasOursBefore")]},
        ),
        ("validations", {"validations": [{"expression": "true"}]}),
        ("paramKind", {"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}}),
    ],
)
async def test_a_policy_that_is_not_this_release_s_is_said(installed: Installed, field: str, spec: Body) -> None:
    await installed.change(ADMISSION_POLICY, "secrets", spec)

    problem = await installed.problem()
    assert problem.startswith(
        f"GuardMissing: ValidatingAdmissionPolicy {installed.guarded.prefix}-guard-secrets is not"
    )
    assert f"it differs in spec.{field};" in problem


@pytest.mark.parametrize(
    ("field", "spec"),
    [
        ("validationActions", {"validationActions": ["Audit"]}),
        ("policyName", {"policyName": "other"}),
        ("matchResources.namespaceSelector", {"matchResources": {"namespaceSelector": NOWHERE}}),
        ("matchResources.objectSelector", {"matchResources": {"objectSelector": NOWHERE}}),
        ("matchResources.excludeResourceRules", {"matchResources": {"excludeResourceRules": ALL_SECRETS}}),
        ("matchResources.resourceRules", {"matchResources": {"resourceRules": ALL_SECRETS}}),
        ("paramRef", {"paramRef": {"name": "x", "namespace": "default", "parameterNotFoundAction": "Allow"}}),
    ],
)
@pytest.mark.parametrize("what", ["secrets", "links"])
async def test_a_binding_that_lets_something_through_is_said(
    installed: Installed, what: str, field: str, spec: Body
) -> None:
    await installed.change(ADMISSION_POLICY_BINDING, what, spec)

    problem = await installed.problem()
    assert problem.startswith(f"GuardMissing: the binding {installed.guarded.prefix}-guard-{what} does not deny")
    assert f"by its spec.{field};" in problem


async def test_guards_of_users_that_leave_out_a_namespace_of_the_operator_s_are_said(installed: Installed) -> None:
    wider = replace(installed.guarded, scope=installed.guarded.scope | {"default"})

    for guarded in (wider, replace(installed.guarded, scope=frozenset())):
        assert "guard-verifiers does not deny all" in str(await observe_guards(installed.api, guarded))


async def test_guards_of_another_operator_are_said(installed: Installed) -> None:
    """As of one that runs under another ServiceAccount than the chart's."""
    other = replace(installed.guarded, username="system:serviceaccount:x:y")

    problem = str(await observe_guards(installed.api, other))
    assert "guard-secrets is not this release's, it differs in spec.matchConditions" in problem


async def test_a_missing_guard_is_named(installed: Installed) -> None:
    other = Guarded("nobody", installed.guarded.username)

    problem = str(await observe_guards(installed.admin, other))
    assert "GuardMissing" in problem
    assert "nobody-guard-secrets" in problem


async def test_guards_that_may_not_be_read_are_said(
    installed: Installed, namespace: str, as_service_account: Callable[[str, str], Client]
) -> None:
    stranger = await Api.connect(str(as_service_account(namespace, "default").kubeconfig))

    problem = str(await observe_guards(stranger, installed.guarded))
    await stranger.close()

    assert "may not be read" in problem
