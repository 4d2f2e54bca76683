"""pytest fixtures for tests on a real cluster.

One run has one cluster of each level, started when the first test asks for it and shared by the workers of
pytest-xdist: all name it alike, and `up` holds a lock. It goes with the process that started pytest, also when that is
killed.
With `--devcluster NAME` a cluster that is running already is used, and left running.
"""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial

import pytest

from devcluster import host, lifecycle, testing
from devcluster.cluster import Cluster
from devcluster.errors import DevclusterError
from devcluster.progress import Progress
from devcluster.testing import ApiCalls, Client

# Set by the process that started pytest and inherited by its workers: its own id.
OWNER = "DEVCLUSTER_TEST_OWNER"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--devcluster`."""
    parser.addoption("--devcluster", metavar="NAME", help="use this running cluster, and leave it running")


def pytest_configure(config: pytest.Config) -> None:
    """Name this run, once for all its workers."""
    os.environ.setdefault(OWNER, str(os.getpid()))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Take this run's clusters down, if this is the process that started it."""
    if os.environ.get(OWNER) == str(os.getpid()):
        del os.environ[OWNER]
        for cluster in (_own_cluster(level, str(os.getpid())) for level in ("control", "node")):
            if cluster.folder.exists():
                lifecycle.down(cluster, Progress.on_stderr())


def _own_cluster(level: str, owner: str) -> Cluster:
    return Cluster(f"test-{owner}-{level}")


def _up(config: pytest.Config, level: str, *flags: str) -> Client:
    given = config.getoption("--devcluster")
    if given:
        cluster = Cluster(given)
        if level == "node" and not cluster.require_record().node:
            raise DevclusterError(f"cluster '{given}' has no node", mend="start one with --node")
        return Client(cluster, cluster.kubeconfig)
    owner = os.environ[OWNER]
    cluster = _own_cluster(level, owner)
    # A process of its own: what `up` starts must not be this process's children.
    command = [
        sys.executable,
        "-m",
        "devcluster",
        "up",
        f"--name={cluster.name}",
        "--audit",
        f"--while={owner}",
        *flags,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DevclusterError("the test cluster did not start", evidence=done.stderr)
    return Client(cluster, cluster.kubeconfig)


@pytest.fixture(scope="session")
def control_plane(pytestconfig: pytest.Config) -> Client:
    """A cluster without a node, shared by the whole run; the client is its administrator."""
    return _up(pytestconfig, "control")


@pytest.fixture(scope="session")
def node_cluster(pytestconfig: pytest.Config) -> Client:
    """A cluster that runs Pods, shared by the whole run; skips where a node cannot run, saying why."""
    if not pytestconfig.getoption("--devcluster"):
        try:
            host.require_linux_root("a node")
        except DevclusterError as error:
            pytest.skip(str(error))
    return _up(pytestconfig, "node", "--node")


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Client:
    """The cluster of this test: the node cluster if the test names `node_cluster`, else the control plane."""
    level = "node_cluster" if "node_cluster" in request.fixturenames else "control_plane"
    client: Client = request.getfixturevalue(level)
    return client


@pytest.fixture
def namespace(cluster: Client) -> Iterator[str]:
    """A namespace of this test's own, deleted after it (without waiting for the deletion to finish)."""
    name = f"t-{uuid.uuid4().hex[:10]}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def kubectl(cluster: Client) -> Callable[..., str]:
    """`kubectl(*arguments, stdin=None)` as the administrator; answers standard output."""
    return cluster.kubectl


@pytest.fixture
def helm(cluster: Client) -> Callable[..., str]:
    """`helm(*arguments)` as the administrator; answers standard output."""
    return cluster.helm


@pytest.fixture
def as_service_account(cluster: Client) -> Callable[[str, str], Client]:
    """`as_service_account(namespace, name)` answers a client with that ServiceAccount's rights."""
    return cluster.as_service_account


@pytest.fixture
def api_calls(cluster: Client) -> Callable[[str], AbstractContextManager[ApiCalls]]:
    """`with api_calls(user) as calls:` counts that user's calls while the block runs."""
    return partial(testing.api_calls, cluster)


@pytest.fixture
def wait_until() -> Callable[..., object]:
    """`wait_until(predicate, deadline=30)` answers the first true answer, or fails showing the last one."""
    return testing.wait_until
