"""What users cannot have the operator do for them: patch workloads that they may not patch themselves."""

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from devcluster.testing import Client, CommandFailedError, wait_until

if TYPE_CHECKING:
    from installation import Product
    from tests.cluster.product.conftest import Shop, Writer

LINK = "checkout-to-notification"
OURS = "apiGroups: [servicelink.dev], resources: [servicelinks, servicelinkpolicies], verbs: ['*']"
MAY_PATCH_CHECKOUT = "apiGroups: [apps], resources: [deployments], resourceNames: [checkout], verbs: [patch]"
MAY_PATCH_ALL = "apiGroups: [apps], resources: [deployments, statefulsets, daemonsets], verbs: [patch]"
MAY_PATCH_JOBS = "apiGroups: [batch], resources: [cronjobs], verbs: [patch]"
ROLE = """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: {user}}}
rules: [{rules}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: {user}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {user}}}
subjects: [{{kind: ServiceAccount, name: {user}}}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {user}}}
"""
EDITOR = """
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: editor}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}
subjects: [{kind: ServiceAccount, name: editor}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: editor}
"""
Join = Callable[..., Client]


@pytest.fixture
def join(shop: "Shop", product: "Product") -> Join:
    """`join(*rules)` makes a user of the shop with these rules of a Role."""

    def make(*rules: str) -> Client:
        user = f"user-{uuid.uuid4().hex[:8]}"
        shop.apply(ROLE.format(user=user, rules=", ".join(f"{{{rule}}}" for rule in rules)))
        return product.admin.as_service_account(shop.namespace, user)

    return make


def apply(user: Client, shop: "Shop", document: str) -> str:
    """Apply as that user, and answer the refusal ("": none)."""
    try:
        user.apply(document, f"--namespace={shop.namespace}", "--server-side")
    except CommandFailedError as error:
        return error.stderr
    return ""


def test_a_link_needs_the_right_to_patch_its_client(shop: "Shop", write: "Writer", join: Join) -> None:
    shop.apply(write.workload(), write.workload("other"), write.service())
    stranger, owner = join(OURS), join(OURS, MAY_PATCH_CHECKOUT)

    refused = apply(stranger, shop, write.link())

    assert "servicelink-guard-links" in refused
    assert "must be allowed to patch deployments.apps/checkout" in refused
    assert "spec.binding.inject to None" in refused
    assert "servicelink-guard-links" in apply(owner, shop, write.link("x", client="kind: Deployment, name: other"))
    assert apply(owner, shop, write.link()) == ""
    shop.settle(LINK)


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet", "CronJob"])
def test_a_link_needs_the_right_for_each_kind_of_client(shop: "Shop", write: "Writer", join: Join, kind: str) -> None:
    group = "batch" if kind == "CronJob" else "apps"
    owner = join(OURS, f"apiGroups: [{group}], resources: [{kind.lower()}s], resourceNames: [checkout], verbs: [patch]")
    link = write.link(client=f"kind: {kind}, name: checkout")

    assert "servicelink-guard-links" in apply(join(OURS, MAY_PATCH_ALL.replace(f"{kind.lower()}s", "x")), shop, link)
    assert apply(owner, shop, link) == ""


def test_a_link_that_injects_nothing_needs_no_such_right(shop: "Shop", write: "Writer", join: Join) -> None:
    shop.apply(write.workload(), write.service())
    stranger = join(OURS)

    assert apply(stranger, shop, write.link(more="binding: {inject: None}")) == ""
    assert "servicelink-guard-links" in apply(stranger, shop, write.link())


def test_a_link_that_injects_is_not_taken_out_by_who_may_not_patch_its_client(
    shop: "Shop", write: "Writer", join: Join
) -> None:
    """Neither without its binding, nor by what this release does not do yet."""
    stranger, owner = join(OURS), join(OURS, MAY_PATCH_CHECKOUT)
    shop.apply(write.workload(), write.service())
    assert apply(owner, shop, write.link()) == ""
    shop.settle(LINK)
    before = shop.pod_spec("checkout")

    for inject in ("None", "Admission"):
        refused = apply(stranger, shop, write.link(more=f"binding: {{inject: {inject}}}"))
        assert "servicelink-guard-links" in refused
        assert "must be allowed to patch deployments.apps/checkout" in refused
        assert "set spec.binding.inject to None" not in refused
    assert shop.pod_spec("checkout") == before
    assert apply(owner, shop, write.link(more="binding: {inject: None}")) == ""
    wait_until(lambda: "volumes" not in shop.pod_spec("checkout"))


def test_a_link_that_injects_nothing_may_change_without_that_right(shop: "Shop", write: "Writer", join: Join) -> None:
    stranger = join(OURS)

    assert apply(stranger, shop, write.link(more="binding: {inject: None}")) == ""
    assert apply(stranger, shop, write.link(more="binding: {inject: None, envPrefix: PATHS}")) == ""


def test_a_link_is_deleted_by_who_may_delete_it(shop: "Shop", write: "Writer", join: Join) -> None:
    """The right to patch its client is not asked for, or no namespace could be deleted."""
    shop.apply(write.workload(), write.service(), write.link())
    shop.settle(LINK)

    join(OURS).kubectl("delete", f"--namespace={shop.namespace}", "slink", LINK)

    wait_until(lambda: "volumes" not in shop.pod_spec("checkout"))


def test_a_link_may_be_labelled_without_that_right(shop: "Shop", write: "Writer", join: Join) -> None:
    shop.apply(write.workload(), write.service(), write.link())
    stranger = join(OURS)

    stranger.kubectl("label", f"--namespace={shop.namespace}", "slink", LINK, "team=shop")
    patch = '--patch={"spec": {"binding": {"envPrefix": "PATHS"}}}'
    with pytest.raises(CommandFailedError, match="servicelink-guard-links"):
        stranger.kubectl("patch", f"--namespace={shop.namespace}", "slink", LINK, "--type=merge", patch)


def test_a_policy_needs_the_right_to_patch_what_it_injects(shop: "Shop", write: "Writer", join: Join) -> None:
    shop.apply(write.workload("notification"), write.service())
    stranger, some, owner = join(OURS), join(OURS, MAY_PATCH_CHECKOUT), join(OURS, MAY_PATCH_ALL, MAY_PATCH_JOBS)

    for user in (stranger, some):
        refused = apply(user, shop, write.policy())
        assert "servicelink-guard-policies" in refused
        assert "must be allowed to patch all deployments" in refused
    assert apply(stranger, shop, write.policy(more="verifier: {inject: None}")) == ""
    assert "servicelink-guard-policies" in apply(stranger, shop, write.policy())
    assert apply(owner, shop, write.policy()) == ""
    refused = apply(stranger, shop, write.policy(more="verifier: {inject: None}"))
    assert "servicelink-guard-policies" in refused
    assert "set spec.verifier.inject to None" not in refused
    assert apply(owner, shop, write.policy(more="verifier: {inject: None}")) == ""
    assert apply(stranger, shop, write.policy("Enforce", more="verifier: {inject: None}")) == ""


def test_a_policy_that_decides_over_another_takes_its_verifier_out(shop: "Shop", write: "Writer", join: Join) -> None:
    """A known limit: the guard of one policy cannot look the other one up."""
    shop.apply(write.workload("notification"), write.service(), write.policy(services="'*'"))
    wait_until(lambda: "volumes" in shop.pod_spec("notification"))

    assert apply(join(OURS), shop, write.policy(more="verifier: {inject: None}", name="nearer")) == ""

    wait_until(lambda: "volumes" not in shop.pod_spec("notification"))


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet", "CronJob"])
def test_a_policy_needs_the_right_for_each_kind_behind_its_services(
    shop: "Shop", write: "Writer", join: Join, kind: str
) -> None:
    """The operator mounts a verifier into whatever a Service selects, and that may be a CronJob's Pods."""
    resource = f"{kind.lower()}s"
    rights = (right.replace(resource, "x") for right in (MAY_PATCH_ALL, MAY_PATCH_JOBS))

    refused = apply(join(OURS, *rights), shop, write.policy())

    assert "servicelink-guard-policies" in refused
    assert f"must be allowed to patch all {resource}" in refused


def test_whoever_edits_a_namespace_changes_no_verifier(shop: "Shop", write: "Writer", product: "Product") -> None:
    shop.apply(write.workload(), write.service(), write.link(), EDITOR)
    shop.settle(LINK)
    before = shop.read("configmap", "servicelink-verifier-notification")
    editor = product.admin.as_service_account(shop.namespace, "editor")

    for words in (
        ("patch", "configmap", "servicelink-verifier-notification", '--patch={"data": {"x": "y"}}'),
        ("delete", "configmap", "servicelink-verifier-notification"),
        ("create", "configmap", "servicelink-verifier-notification.1"),
    ):
        with pytest.raises(CommandFailedError, match="servicelink-guard-verifiers"):
            editor.kubectl(words[0], f"--namespace={shop.namespace}", *words[1:])

    assert shop.read("configmap", "servicelink-verifier-notification") == before
