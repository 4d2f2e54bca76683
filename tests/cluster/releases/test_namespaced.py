"""An operator of named namespaces: who can install it, what it may do there, and how two of them live side by side."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from charts import ROOT
from installation import SYSTEM, Product
from releases import LINK, Release, standing

from devcluster.testing import Client, CommandFailedError, wait_until
from servicelink_operator.cluster.api import Api
from servicelink_operator.cluster.guards import Guarded, observe_guards, observe_username
from servicelink_operator.cluster.preflight import observe_crds, observe_rights, wants_rights

NO_PODS = "--set=replicas=0"
NOTHING_CLUSTER_WIDE = "--set=crds.enabled=false,guards.enabled=false,operator.requireGuards=false"
# Kubernetes' own role `admin` in a namespace, and there all of our kinds, of which that role knows nothing.
ADMIN = """
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: installer, namespace: {namespace}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: admin}}
subjects: [{{kind: ServiceAccount, name: installer, namespace: {home}}}]
"""
OF_LINKS = """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: installer, namespace: {namespace}}}
rules: [{{apiGroups: [servicelink.dev], resources: ["*"], verbs: ["*"]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: installer-of-links, namespace: {namespace}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: installer}}
subjects: [{{kind: ServiceAccount, name: installer, namespace: {home}}}]
"""
ENDS = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: checkout}
spec:
  replicas: 0
  selector: {matchLabels: {app: checkout}}
  template: {metadata: {labels: {app: checkout}}, spec: {containers: [{name: app, image: a}]}}
---
apiVersion: v1
kind: Service
metadata: {name: notification}
spec: {selector: {app: notification}, ports: [{port: 80}]}
---
"""
TENANT = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: tenant}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: tenant}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: admin}
subjects: [{kind: ServiceAccount, name: tenant}]
"""


@dataclass(frozen=True, slots=True)
class Place:
    """A cluster with our kinds, which its administrator has installed, and two namespaces of users."""

    admin: Client
    shop: str
    payments: str


def in_namespaces(*names: str) -> str:
    return f"--set=watch.namespaces={{{','.join(names)}}}"


@pytest.fixture
def place(admin: Client, make_namespace: Callable[[str], str]) -> Place:
    """The cluster, ready for who may not change it as a whole."""
    crds = f"--filename={ROOT / 'crds'}"
    admin.kubectl("apply", "--server-side", crds)
    admin.kubectl("wait", crds, "--for=condition=Established", "--timeout=30s")
    return Place(admin, make_namespace("shop"), make_namespace("payments"))


@pytest.fixture
def installer(place: Place, release: Release) -> Release:
    """The release as somebody makes it who has the role `admin` in its namespace, in shop and in payments."""
    place.admin.kubectl("create", "serviceaccount", "installer", f"--namespace={release.system}")
    for namespace in (release.system, place.shop, place.payments):
        place.admin.apply(ADMIN.format(namespace=namespace, home=release.system))
    return release.by(place.admin.as_service_account(release.system, "installer"))


def let_give_links(place: Place, installer: Release) -> None:
    """Give the installer the rights on our kinds, without which it cannot give them to the operator."""
    for namespace in (place.shop, place.payments):
        place.admin.apply(OF_LINKS.format(namespace=namespace, home=installer.system))


@asynccontextmanager
async def operator_of(place: Place, release: Release) -> AsyncIterator[Api]:
    """The API server as a release's operator sees it."""
    api = await Api.connect(str(place.admin.as_service_account(release.system, release.name).kubeconfig))
    try:
        yield api
    finally:
        await api.close()


async def guarded(place: Place, release: Release, api: Api) -> Guarded:
    """Answer whom the guards of a release for shop are to be about."""
    return Guarded(release.name, await observe_username(api), frozenset({place.shop}))


def test_who_administers_only_its_namespaces_installs_changes_and_uninstalls_it(
    place: Place, installer: Release
) -> None:
    let_give_links(place, installer)

    installer.install(NO_PODS, NOTHING_CLUSTER_WIDE, in_namespaces(place.shop))
    first = installer.manifests()
    installer.upgrade(NO_PODS, NOTHING_CLUSTER_WIDE, in_namespaces(place.payments))
    second = installer.manifests()

    assert {one["metadata"]["namespace"] for one in first} == {installer.system, place.shop}
    assert len(standing(place.admin, second)) > 5
    assert standing(place.admin, [one for one in first if one["metadata"]["namespace"] == place.shop]) == set()

    installer.uninstall()

    assert standing(place.admin, second) == set()


def test_who_has_no_rights_on_links_cannot_give_them_to_the_operator(place: Place, installer: Release) -> None:
    with pytest.raises(CommandFailedError, match="attempting to grant RBAC permissions not currently held"):
        installer.install(NO_PODS, NOTHING_CLUSTER_WIDE, in_namespaces(place.shop))


async def test_the_operator_has_its_rights_in_its_namespaces_and_elsewhere_none(
    place: Place, by_helm_4: Release
) -> None:
    by_helm_4.install(NO_PODS, NOTHING_CLUSTER_WIDE, in_namespaces(place.shop))

    async with operator_of(place, by_helm_4) as api:
        there, elsewhere = [
            await observe_rights(api, by_helm_4.system, frozenset({name})) for name in (place.shop, place.payments)
        ]
        crds, guards = await observe_crds(api), await observe_guards(api, await guarded(place, by_helm_4, api))

    assert there == ()
    assert len(elsewhere) == len(wants_rights(by_helm_4.system, frozenset({place.payments}))) - 3, "but for the Lease"
    assert crds is None
    assert guards is not None
    assert "GuardMissing" in guards


def test_the_operator_reads_the_namespace_it_serves_and_no_other(place: Place, by_helm_4: Release) -> None:
    """A get of a Namespace is a request in that namespace, which a Role can grant; a list is one of the cluster."""
    by_helm_4.install(NO_PODS, NOTHING_CLUSTER_WIDE, in_namespaces(place.shop))
    operator = place.admin.as_service_account(by_helm_4.system, by_helm_4.name)

    assert operator.kubectl_json("get", "namespace", place.shop)["metadata"]["name"] == place.shop
    with pytest.raises(CommandFailedError, match=f'namespaces "{place.payments}" is forbidden'):
        operator.kubectl("get", "namespace", place.payments)
    with pytest.raises(CommandFailedError, match="at the cluster scope"):
        operator.kubectl("get", "namespaces", f"--field-selector=metadata.name={place.shop}")


def test_an_operator_serves_its_namespaces_with_its_roles_alone(
    place: Place, by_helm_4: Release, tmp_path: Path
) -> None:
    release = replace(by_helm_4, name="servicelink", system=SYSTEM)
    place.admin.kubectl("create", "namespace", SYSTEM)
    release.install(NO_PODS, NOTHING_CLUSTER_WIDE, in_namespaces(place.shop))
    product = Product(place.admin, place.admin.as_service_account(SYSTEM, "servicelink"), tmp_path)
    for namespace in (place.shop, place.payments):
        place.admin.apply(ENDS + LINK, f"--namespace={namespace}")

    operator = product.start(f"--watch-namespaces={place.shop}", "--require-guards=false")
    try:
        place.admin.kubectl("wait", "slink", "--all", f"--namespace={place.shop}", "--for=condition=Ready")
        assert operator.is_ready(), operator.readiness()[1]
        unserved = place.admin.kubectl_json("get", "slink", "checkout-to-notification", f"--namespace={place.payments}")
        assert "conditions" not in unserved["status"]
    finally:
        operator.kill()


async def test_the_guards_are_seen_by_an_operator_of_some_namespaces(place: Place, by_helm_4: Release) -> None:
    by_helm_4.install(NO_PODS, "--set=crds.enabled=false", in_namespaces(place.shop))

    async with operator_of(place, by_helm_4) as api:
        assert await observe_guards(api, await guarded(place, by_helm_4, api)) is None


def test_two_operators_each_write_the_verifiers_of_their_namespaces_and_nobody_else_does(
    place: Place, by_helm_4: Release, make_namespace: Callable[[str], str]
) -> None:
    other = replace(by_helm_4, name=f"{by_helm_4.name}-2", system=make_namespace("system"))
    for release, namespace in ((by_helm_4, place.shop), (other, place.payments)):
        release.install(NO_PODS, "--set=crds.enabled=false", in_namespaces(namespace))
        place.admin.apply(TENANT, f"--namespace={namespace}")

    for release, namespace in ((by_helm_4, place.shop), (other, place.payments)):
        wait_until_refused(place.admin.as_service_account(namespace, "tenant"), namespace, release)
        assert write_verifier(place.admin.as_service_account(release.system, release.name), namespace) == ""


def wait_until_refused(tenant: Client, namespace: str, release: Release) -> None:
    """Write verifiers until the release's guard refuses one: a policy takes a moment to come into force."""
    wait_until(lambda: f"{release.name}-guard-verifiers" in write_verifier(tenant, namespace))


def write_verifier(user: Client, namespace: str) -> str:
    """Write a verifier as that user, and answer the refusal ("": none)."""
    body = """{
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"generateName": "servicelink-verifier-", "labels": {"app.kubernetes.io/managed-by": "servicelink"}}
    }"""
    try:
        user.kubectl("create", "--filename=-", f"--namespace={namespace}", stdin=body)
    except CommandFailedError as error:
        return error.stderr
    return ""
