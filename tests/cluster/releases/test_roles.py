"""The roles for users, on the API server: who reads links and policies, who writes them; and nobody writes a status."""

from collections.abc import Callable

import pytest
from releases import LINK, Release

from devcluster.testing import Client, CommandFailedError, wait_until

KINDS = "servicelinks,servicelinkpolicies"
OTHER_LINK = LINK.replace("checkout-to-notification", "web-to-notification")
UNINJECTED = OTHER_LINK.replace("protocol:", "binding: {inject: None}, protocol:")
STATUS = '--patch={"status": {"mode": "Enforce"}}'
USER = """
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {user}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: {user}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {role}}}
subjects: [{{kind: ServiceAccount, name: {user}}}]
"""


class User:
    """Somebody in the shop with one ClusterRole there."""

    def __init__(self, client: Client, shop: str) -> None:
        self._client = client
        self._here = f"--namespace={shop}"

    def read(self) -> str:
        """List links and policies."""
        return self._do("get", KINDS)

    def write(self, link: str = UNINJECTED) -> str:
        """Create a link, as a dry run."""
        return self._do("create", "--filename=-", "--dry-run=server", stdin=link)

    def write_status(self) -> str:
        """Patch a link's status."""
        return self._do("patch", "slink", "checkout-to-notification", "--subresource=status", "--type=merge", STATUS)

    def _do(self, verb: str, *words: str, stdin: str | None = None) -> str:
        """Answer the refusal ("": none)."""
        try:
            self._client.kubectl(verb, self._here, *words, stdin=stdin)
        except CommandFailedError as error:
            return error.stderr
        return ""


@pytest.fixture
def as_role(admin: Client, by_helm_4: Release, shop: str) -> Callable[[str], User]:
    """`as_role(name)` answers a user with that ClusterRole; {name} in it is the release's. There is a link to read."""
    by_helm_4.install("--set=replicas=0")
    admin.apply(LINK, f"--namespace={shop}")

    def bind(role: str) -> User:
        role = role.format(name=by_helm_4.name)
        admin.apply(USER.format(user=role, role=role), f"--namespace={shop}")
        return User(admin.as_service_account(shop, role), shop)

    return bind


def test_whoever_views_a_namespace_reads_its_links_and_writes_none(as_role: Callable[[str], User]) -> None:
    viewer = as_role("view")

    # A controller adds the chart's role to Kubernetes' own.
    wait_until(lambda: viewer.read() == "")
    assert 'cannot create resource "servicelinks"' in viewer.write()


def test_whoever_edits_a_namespace_reads_its_links_and_writes_none(as_role: Callable[[str], User]) -> None:
    editor = as_role("edit")

    wait_until(lambda: editor.read() == "")
    assert 'cannot create resource "servicelinks"' in editor.write()


def test_the_viewer_s_role_reads_and_writes_nothing(as_role: Callable[[str], User]) -> None:
    viewer = as_role("{name}-viewer")

    assert viewer.read() == ""
    assert 'cannot create resource "servicelinks"' in viewer.write()
    assert 'cannot patch resource "servicelinks/status"' in viewer.write_status()


def test_the_editor_s_role_writes_links_but_no_status_and_patches_no_workload_by_them(
    as_role: Callable[[str], User], by_helm_4: Release
) -> None:
    editor = as_role("{name}-editor")

    assert editor.read() == ""
    assert editor.write() == ""
    assert 'cannot patch resource "servicelinks/status"' in editor.write_status()
    # A policy takes a moment to come into force.
    wait_until(lambda: f"{by_helm_4.name}-guard-links" in editor.write(OTHER_LINK))
