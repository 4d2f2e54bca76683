"""What the operator cannot do with its own rights, on a real API server: touch Secrets and ConfigMaps of others.

The chart is installed as it is, but for one thing: the guard that keeps others from verifiers is bound to this module's
namespace, since other tests of the same cluster write verifiers as somebody else.
"""

import asyncio
import base64
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster.testing import Client, CommandFailedError
from servicelink_operator.cluster.api import Api, Object, PatchType
from servicelink_operator.cluster.errors import ApiError, ForbiddenError, NotFoundError
from servicelink_operator.cluster.guards import Guarded, observe_guards, observe_username
from servicelink_operator.cluster.kinds import CONFIG_MAP, SECRET, Kind
from servicelink_operator.cluster.preflight import observe_crds, observe_rights
from servicelink_operator.cluster.secrets import FOREIGN, read_secret

ROOT = Path(__file__).parents[2]
CRDS = ROOT / "crds"
OURS = {"app.kubernetes.io/managed-by": "servicelink"}
BINDING = "servicebinding.io/servicelink"
PASSWORD = base64.b64encode(b"open sesame").decode()
PAIR = {"tls.crt": PASSWORD, "tls.key": PASSWORD}
UNLABEL = {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}}
Labels = dict[str, str] | None
TENANT = """
apiVersion: v1
kind: ServiceAccount
metadata: {{name: tenant, namespace: {tenant_namespace}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: tenant, namespace: {namespace}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: admin}}
subjects: [{{kind: ServiceAccount, name: tenant, namespace: {tenant_namespace}}}]
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """A release without Pods in `namespace`, and a namespace of links, `shop`; kubeconfigs of who is in them.

    `doomed` is a namespace that is not there yet; nobody but the operator writes verifiers there, either.
    """

    release: str
    namespace: str
    shop: str
    doomed: str
    operator: Path
    tenant: Path


@pytest.fixture(scope="module")
def installed(control_plane: Client) -> Iterator[Installed]:
    mark = uuid.uuid4().hex[:8]
    release, namespace, shop, doomed = f"servicelink-{mark}", f"t-{mark}", f"t-{mark}-shop", f"t-{mark}-doomed"
    for name in (namespace, shop):
        control_plane.kubectl("create", "namespace", name)
    control_plane.kubectl("apply", "--server-side", f"--filename={CRDS}")
    control_plane.kubectl("wait", f"--filename={CRDS}", "--for=condition=Established", "--timeout=30s")
    manifests = yaml.safe_dump_all(rendered(control_plane, release, namespace, [shop, doomed]))
    control_plane.apply(manifests)
    control_plane.apply(TENANT.format(namespace=shop, tenant_namespace=shop))
    operator = control_plane.as_service_account(namespace, release)
    tenant = control_plane.as_service_account(shop, "tenant")
    yield Installed(release, namespace, shop, doomed, operator.kubeconfig, tenant.kubeconfig)
    control_plane.kubectl("delete", "--filename=-", "--wait=false", stdin=manifests)
    control_plane.kubectl("delete", "namespace", namespace, shop, "--wait=false")


def rendered(client: Client, release: str, namespace: str, guarded: list[str]) -> list[Object]:
    flags = (f"--namespace={namespace}", "--skip-tests", "--set=crds.enabled=false,replicas=0")
    text = client.helm("template", release, str(ROOT / "charts" / "servicelink"), *flags)
    manifests = [manifest for manifest in yaml.safe_load_all(text) if manifest]
    of_these = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": guarded}
    for manifest in manifests:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        if (kind, name) == ("ValidatingAdmissionPolicyBinding", f"{release}-guard-verifiers"):
            manifest["spec"]["matchResources"] = {"namespaceSelector": {"matchExpressions": [of_these]}}
    return manifests


@dataclass(frozen=True, slots=True)
class Shop:
    """The namespace `name` of links, and the API server as each who is about: the guards are in force."""

    installed: Installed
    operator: Api
    tenant: Api
    admin: Api

    @property
    def name(self) -> str:
        """The namespace."""
        return self.installed.shop

    def guard(self, what: str) -> str:
        """Name a guard as the API server does."""
        return f"{self.installed.release}-guard-{what}"

    async def patch(self, kind: Kind, name: str, body: Object, *, dry_run: bool = False) -> Object:
        """Patch as the operator."""
        return await self.operator.patch(kind, self.name, name, body, content_type=PatchType.MERGE, dry_run=dry_run)


@pytest.fixture
async def shop(installed: Installed, control_plane: Client) -> AsyncIterator[Shop]:
    paths = (installed.operator, installed.tenant, control_plane.kubeconfig)
    operator, tenant, admin = [await Api.connect(str(path)) for path in paths]
    made = Shop(installed, operator, tenant, admin)
    await until_refused(operator, made.name, SECRET, made.guard("secrets"))
    await until_refused(operator, made.name, CONFIG_MAP, made.guard("configmaps"))
    await until_refused(tenant, made.name, CONFIG_MAP, made.guard("verifiers"))
    yield made
    for api in (operator, tenant, admin):
        await api.close()


async def until_refused(api: Api, namespace: str, kind: Kind, policy: str) -> None:
    """Create what no guard admits until one refuses it: a policy takes a moment to come into force."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            await api.create(kind, namespace, thing(unique("servicelink-verifier-probe")))
        except ForbiddenError as error:
            if error.policy == policy:
                return
        await asyncio.sleep(0.1)
    pytest.fail(f"{policy} is not in force after 30 s")


def thing(name: str, labels: Labels = None, **fields: Any) -> Object:
    return {"metadata": {"name": name, "labels": labels or {}}, **fields}


def secret(name: str, labels: Labels = None, type_: str = "Opaque") -> Object:
    return thing(name, labels, type=type_, data={"password": PASSWORD})


def unique(prefix: str = "it") -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


async def refused(call: Awaitable[object]) -> ApiError:
    with pytest.raises(ForbiddenError) as found:
        await call
    return found.value


async def test_the_chart_grants_every_right_that_the_operator_asks_for(shop: Shop) -> None:
    assert await observe_rights(shop.operator, shop.installed.namespace) == ()
    assert await observe_crds(shop.operator) is None
    scope = frozenset({shop.name, shop.installed.doomed})
    guarded = Guarded(shop.installed.release, await observe_username(shop.operator), scope)
    assert await observe_guards(shop.operator, guarded) is None


async def test_no_secret_is_got_listed_or_watched(shop: Shop) -> None:
    """Not even its own; and by RBAC, not by a guard, which sees no reads."""
    own = unique()
    await shop.operator.create(SECRET, shop.name, secret(own, OURS, BINDING))

    async def watch() -> None:
        await anext(shop.operator.watch(SECRET, resource_version="0", timeout_seconds=1))

    for call in (shop.operator.read(SECRET, shop.name, own), shop.operator.list_page(SECRET), watch()):
        assert (await refused(call)).policy is None


FOREIGN_SECRETS = [
    pytest.param(None, "Opaque", id="of nobody's"),
    pytest.param(OURS, "Opaque", id="with our label and another type"),
    pytest.param(None, BINDING, id="with our type and no label"),
    pytest.param({"app.kubernetes.io/managed-by": "Helm"}, BINDING, id="with our type and another label"),
]


@pytest.mark.parametrize(("labels", "type_"), FOREIGN_SECRETS)
async def test_a_foreign_secret_is_neither_read_nor_labelled_nor_overwritten_nor_deleted(
    shop: Shop, labels: Labels, type_: str
) -> None:
    name = unique()
    before = await shop.admin.create(SECRET, shop.name, secret(name, labels, type_))

    errors = [
        await refused(shop.patch(SECRET, name, {}, dry_run=True)),
        await refused(shop.patch(SECRET, name, {"metadata": {"labels": OURS}}, dry_run=True)),
        await refused(shop.patch(SECRET, name, {"metadata": {"labels": OURS}})),
        await refused(shop.patch(SECRET, name, {"data": {"password": PASSWORD}})),
        await refused(shop.operator.delete(SECRET, shop.name, name)),
    ]

    assert {error.policy for error in errors} == {shop.guard("secrets")}
    assert await read_secret(shop.operator, shop.name, name) is FOREIGN
    assert await shop.admin.read(SECRET, shop.name, name) == before


@pytest.mark.parametrize(
    ("labels", "type_"),
    [*FOREIGN_SECRETS, pytest.param(OURS, "kubernetes.io/tls", id="a certificate under another name")],
)
async def test_no_other_secret_is_created(shop: Shop, labels: Labels, type_: str) -> None:
    body = {**secret(unique(), labels, type_), "data": PAIR}

    assert (await refused(shop.operator.create(SECRET, shop.name, body))).policy == shop.guard("secrets")


async def test_no_token_of_a_service_account_is_created(shop: Shop) -> None:
    """The token controller would fill it in, for any ServiceAccount of the namespace."""
    metadata = {"name": unique(), "labels": OURS, "annotations": {"kubernetes.io/service-account.name": "tenant"}}
    body = {"metadata": metadata, "type": "kubernetes.io/service-account-token"}

    assert (await refused(shop.operator.create(SECRET, shop.name, body))).policy == shop.guard("secrets")


async def test_its_own_secret_is_created_read_back_whole_changed_and_deleted(shop: Shop) -> None:
    name = unique()
    created = await shop.operator.create(SECRET, shop.name, secret(name, OURS, BINDING))

    found = await read_secret(shop.operator, shop.name, name)
    changed = await shop.patch(SECRET, name, {"data": {"password": None}})
    await shop.operator.delete(SECRET, shop.name, name)

    assert found == created
    assert created["data"] == {"password": PASSWORD}
    assert "data" not in changed
    assert name not in {one["metadata"]["name"] for one in (await shop.admin.list_page(SECRET))["items"]}


async def test_its_own_secret_cannot_lose_its_label(shop: Shop) -> None:
    name = unique()
    await shop.operator.create(SECRET, shop.name, secret(name, OURS, BINDING))

    error = await refused(shop.patch(SECRET, name, UNLABEL))

    assert error.policy == shop.guard("secrets")


async def test_a_server_s_certificate_is_created_and_read_back(shop: Shop) -> None:
    name = unique("servicelink-tls")
    await shop.operator.create(SECRET, shop.name, {**secret(name, OURS, "kubernetes.io/tls"), "data": PAIR})

    found = await shop.patch(SECRET, name, {}, dry_run=True)

    assert found["data"] == PAIR


@pytest.mark.parametrize(
    ("prefix", "labels"),
    [
        pytest.param("settings", None, id="of nobody's"),
        pytest.param("settings", OURS, id="with our label and another name"),
        pytest.param("servicelink-verifier", None, id="with our name and no label"),
    ],
)
async def test_a_foreign_config_map_is_not_written(shop: Shop, prefix: str, labels: Labels) -> None:
    name = unique(prefix)
    before = await shop.admin.create(CONFIG_MAP, shop.name, thing(name, labels, data={"a": "1"}))

    errors = [
        await refused(shop.operator.create(CONFIG_MAP, shop.name, thing(unique(prefix), labels))),
        await refused(shop.patch(CONFIG_MAP, name, {"metadata": {"labels": OURS}, "data": {"a": "2"}})),
        await refused(shop.operator.delete(CONFIG_MAP, shop.name, name)),
    ]

    assert {error.policy for error in errors} == {shop.guard("configmaps")}
    assert await shop.admin.read(CONFIG_MAP, shop.name, name) == before


@pytest.mark.parametrize("name", ["servicelink-verifier-payments", "servicelink-authority"])
async def test_its_own_config_map_is_created_changed_and_deleted(shop: Shop, name: str) -> None:
    await shop.operator.create(CONFIG_MAP, shop.name, thing(name, OURS, data={"a": "1"}))

    changed = await shop.patch(CONFIG_MAP, name, {"data": {"a": "2"}})
    await shop.operator.delete(CONFIG_MAP, shop.name, name)

    assert changed["data"] == {"a": "2"}


async def test_nobody_else_writes_a_verifier(shop: Shop) -> None:
    """Not even who administers its namespace, and not beside it, where a server would mount it as a shard."""
    name, tenant = unique("servicelink-verifier"), shop.tenant
    before = await shop.operator.create(CONFIG_MAP, shop.name, thing(name, OURS, data={"a": "1"}))

    errors = [
        await refused(tenant.create(CONFIG_MAP, shop.name, thing(f"{name}.1"))),
        await refused(tenant.create(CONFIG_MAP, shop.name, thing(f"{name}.2", OURS))),
        await refused(tenant.patch(CONFIG_MAP, shop.name, name, {"data": {"a": "2"}}, content_type=PatchType.MERGE)),
        await refused(tenant.patch(CONFIG_MAP, shop.name, name, UNLABEL, content_type=PatchType.MERGE)),
        await refused(tenant.delete(CONFIG_MAP, shop.name, name)),
    ]

    assert {error.policy for error in errors} == {shop.guard("verifiers")}
    assert "only ServiceLink's operator writes it" in errors[0].message
    assert await shop.operator.read(CONFIG_MAP, shop.name, name) == before


async def test_what_stands_in_a_verifier_s_place_may_be_deleted(shop: Shop) -> None:
    name = unique("servicelink-verifier")
    await shop.admin.create(CONFIG_MAP, shop.name, thing(name))

    await shop.tenant.delete(CONFIG_MAP, shop.name, name)

    with pytest.raises(NotFoundError):
        await shop.admin.read(CONFIG_MAP, shop.name, name)


async def test_others_write_their_own_config_maps(shop: Shop) -> None:
    name = unique("settings")
    await shop.tenant.create(CONFIG_MAP, shop.name, thing(name, OURS, data={"a": "1"}))
    body = {"data": {"a": "2"}}

    changed = await shop.tenant.patch(CONFIG_MAP, shop.name, name, body, content_type=PatchType.MERGE)
    await shop.tenant.delete(CONFIG_MAP, shop.name, name)

    assert changed["data"] == {"a": "2"}


async def test_a_cluster_administrator_deletes_a_verifier(shop: Shop) -> None:
    name = unique("servicelink-verifier")
    await shop.operator.create(CONFIG_MAP, shop.name, thing(name, OURS))

    await shop.admin.delete(CONFIG_MAP, shop.name, name)

    with pytest.raises(NotFoundError):
        await shop.admin.read(CONFIG_MAP, shop.name, name)


async def test_a_namespace_with_a_verifier_can_be_deleted(shop: Shop, control_plane: Client) -> None:
    """The namespace controller deletes what others may not."""
    doomed = shop.installed.doomed
    control_plane.kubectl("create", "namespace", doomed)
    control_plane.apply(TENANT.format(namespace=doomed, tenant_namespace=shop.name))
    await shop.operator.create(CONFIG_MAP, doomed, thing("servicelink-verifier-payments", OURS))
    await until_refused(shop.tenant, doomed, CONFIG_MAP, shop.guard("verifiers"))

    control_plane.kubectl("delete", "namespace", doomed, "--timeout=30s")

    assert f"namespace/{doomed}" not in control_plane.kubectl("get", "namespaces", "--output=name").split()


async def test_a_refusal_teaches(shop: Shop, control_plane: Client) -> None:
    """As whoever tries it by hand reads it."""
    client = Client(control_plane.cluster, shop.installed.operator)
    body = yaml.safe_dump({"apiVersion": "v1", "kind": "Secret", **secret(unique())})

    with pytest.raises(CommandFailedError, match="writes only Secrets with the label"):
        client.kubectl("create", f"--namespace={shop.name}", "--filename=-", stdin=body)
