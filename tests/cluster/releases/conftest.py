"""A control plane to which the chart is installed, by helm 4 and helm 3, and that no other test uses.

Without a node there are no Pods, and without Pods nothing to wait for: what runs, the end-to-end tests show.
"""

import uuid
from collections.abc import Callable, Iterator

import pytest
from installation import start_cluster
from releases import Release

from devcluster.testing import Client

CLUSTER_WIDE = (
    *("clusterroles", "clusterrolebindings", "customresourcedefinitions"),
    *("validatingadmissionpolicies", "validatingadmissionpolicybindings"),
)


@pytest.fixture(scope="module")
def admin() -> Iterator[Client]:
    """A control plane of this module's own, as its administrator."""
    with start_cluster() as client:
        yield client


@pytest.fixture
def make_namespace(admin: Client) -> Iterator[Callable[[str], str]]:
    """`make_namespace(prefix)` makes a namespace and answers its name; all go after the test."""
    made: list[str] = []

    def make(prefix: str) -> str:
        made.append(f"{prefix}-{uuid.uuid4().hex[:6]}")
        admin.kubectl("create", "namespace", made[-1])
        return made[-1]

    yield make
    admin.kubectl("delete", "namespace", *made, "--wait=false")


@pytest.fixture
def shop(make_namespace: Callable[[str], str]) -> str:
    """A namespace of users."""
    return make_namespace("shop")


@pytest.fixture
def by_helm_4(admin: Client, make_namespace: Callable[[str], str]) -> Iterator[Release]:
    """A release to be made by the cluster's administrator; nothing of it stays after the test."""
    system = make_namespace("system")
    yield Release(admin, "helm", f"servicelink-{system}", system)
    admin.kubectl("delete", ",".join(CLUSTER_WIDE), f"--selector=app.kubernetes.io/instance=servicelink-{system}")
    admin.kubectl("delete", "customresourcedefinitions", "--all")


@pytest.fixture(params=["helm", "helm3"])
def release(by_helm_4: Release, request: pytest.FixtureRequest) -> Release:
    """The release, once with each helm."""
    return by_helm_4.with_program(request.param)
