"""A Secret of ours is read back without the right to read Secrets; of any other, only that it is not ours is known."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from devcluster.testing import ApiCalls, Client, wait_until
from servicelink_operator.cluster.api import Api, Object, PatchType
from servicelink_operator.cluster.errors import ApiError, ForbiddenError
from servicelink_operator.cluster.kinds import SECRET
from servicelink_operator.cluster.secrets import FOREIGN, ReadBudget, read_secret

OPERATOR = """
apiVersion: v1
kind: ServiceAccount
metadata: {{name: writer, namespace: {namespace}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: writer, namespace: {namespace}}}
rules: [{{apiGroups: [""], resources: [secrets], verbs: [create, patch, delete]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: writer, namespace: {namespace}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: writer}}
subjects: [{{kind: ServiceAccount, name: writer, namespace: {namespace}}}]
"""
GUARD = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: {namespace}-guard}}
spec:
  failurePolicy: Fail
  matchConstraints:
    namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {namespace}}}}}
    resourceRules: [{{apiGroups: [""], apiVersions: [v1], operations: [UPDATE], resources: [secrets]}}]
  validations:
  - expression: oldObject.type == "servicebinding.io/servicelink"
    messageExpression: '"not ours: " + string(oldObject.data["password"])'
    reason: {reason}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: {namespace}-guard}}
spec: {{policyName: {namespace}-guard, validationActions: [Deny]}}
"""
LABELS = {"app.kubernetes.io/managed-by": "servicelink"}


def secret(name: str, type_: str = "servicebinding.io/servicelink", **labels: str) -> Object:
    data = {"password": base64.b64encode(b"open sesame").decode()}
    return {"metadata": {"name": name, "labels": labels}, "type": type_, "data": data}


@pytest.fixture
async def writer(
    cluster: Client, namespace: str, as_service_account: Callable[[str, str], Client]
) -> AsyncIterator[Api]:
    """A client that may create, patch and delete Secrets of the namespace, and nothing else."""
    cluster.apply(OPERATOR.format(namespace=namespace))
    made = await Api.connect(str(as_service_account(namespace, "writer").kubeconfig))
    yield made
    await made.close()


@pytest.fixture(params=["Invalid", "Forbidden"])
def guard(request: pytest.FixtureRequest, cluster: Client, namespace: str, api: Api) -> Iterator[str]:
    """An admission policy that lets nobody change a foreign Secret, in force."""
    manifest = GUARD.format(namespace=namespace, reason=request.param)
    cluster.apply(manifest)
    probe = ("patch", "secret", "probe", f"--namespace={namespace}", "--patch={}", "--dry-run=server", "--type=merge")
    cluster.kubectl("create", "secret", "generic", "probe", f"--namespace={namespace}")
    wait_until(lambda: _is_refused(cluster, probe))
    yield f"{namespace}-guard"
    cluster.kubectl("delete", "--filename=-", stdin=manifest)


def _is_refused(cluster: Client, words: tuple[str, ...]) -> bool:
    try:
        cluster.kubectl(*words)
    except Exception as error:  # noqa: BLE001 (whatever kubectl says, only the policy's refusal counts)
        return "ValidatingAdmissionPolicy" in str(error)
    return False


async def test_our_secret_is_read_without_the_right_to_get_it(writer: Api, namespace: str) -> None:
    created = await writer.create(SECRET, namespace, secret("ours", **LABELS))

    found = await read_secret(writer, namespace, "ours")

    assert found is not None
    assert found is not FOREIGN
    assert found["data"] == created["data"]
    assert found["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]
    with pytest.raises(ForbiddenError):
        await writer.read(SECRET, namespace, "ours")


async def test_an_absent_secret_is_none(writer: Api, namespace: str) -> None:
    assert await read_secret(writer, namespace, "absent") is None


@pytest.mark.parametrize(
    "theirs", [secret("theirs"), secret("theirs", "Opaque", **LABELS), secret("theirs", "Opaque")], ids=str
)
async def test_a_foreign_secret_is_foreign_also_without_the_guard(theirs: Object, writer: Api, namespace: str) -> None:
    await writer.create(SECRET, namespace, theirs)

    assert await read_secret(writer, namespace, "theirs") is FOREIGN


async def test_a_foreign_secret_that_the_guard_keeps_is_foreign(writer: Api, guard: str, namespace: str) -> None:
    await writer.create(SECRET, namespace, secret("theirs", "Opaque", **LABELS))

    assert await read_secret(writer, namespace, "theirs") is FOREIGN


async def test_the_guard_is_named_and_what_it_says_is_not_repeated(writer: Api, guard: str, namespace: str) -> None:
    await writer.create(SECRET, namespace, secret("theirs", "Opaque", **LABELS))

    with pytest.raises(ApiError) as refused:
        await writer.patch(SECRET, namespace, "theirs", {}, content_type=PatchType.MERGE)

    assert refused.value.policy == guard
    assert refused.value.message == f"patch secrets: refused by ValidatingAdmissionPolicy '{guard}'"


async def test_a_missing_right_to_patch_is_not_taken_for_foreign(
    namespace: str, as_service_account: Callable[[str, str], Client]
) -> None:
    nobody = await Api.connect(str(as_service_account(namespace, "default").kubeconfig))

    with pytest.raises(ForbiddenError):
        await read_secret(nobody, namespace, "any")
    await nobody.close()


async def test_a_read_is_one_dry_run_and_changes_nothing(
    writer: Api, namespace: str, api_calls: Callable[[str], AbstractContextManager[ApiCalls]]
) -> None:
    await writer.create(SECRET, namespace, secret("ours", **LABELS))

    with api_calls(f"system:serviceaccount:{namespace}:writer") as calls:
        await read_secret(writer, namespace, "ours")

    assert calls.dry_runs == {("patch", "secrets"): 1}
    assert calls.mutating == 0


async def test_the_budget_lets_a_second_s_worth_through_at_once_and_spreads_the_rest() -> None:
    budget, started = ReadBudget(10), time.monotonic()

    await asyncio.gather(*(budget.take() for _ in range(10)))
    burst = time.monotonic() - started
    await asyncio.gather(*(budget.take() for _ in range(5)))
    spread = time.monotonic() - started

    assert burst < 0.3
    assert spread == pytest.approx(0.5, abs=0.2)
