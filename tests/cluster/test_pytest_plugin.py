"""The fixtures share one cluster per run, and no run leaves one behind."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from devcluster.cluster import Cluster
from devcluster.testing import wait_until

Devcluster = Callable[..., Any]

SHARED_TEST = """
def test_{name}(control_plane, namespace):
    control_plane.kubectl("create", "configmap", "{name}", "--namespace=default")
    print("cluster", control_plane.cluster.name)
"""


def test_the_workers_of_one_run_share_one_cluster_that_ends_with_it(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"test_{name}.py").write_text(SHARED_TEST.format(name=name))
    env = {key: value for key, value in os.environ.items() if key != "DEVCLUSTER_TEST_OWNER"}

    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-n2", "--dist=loadfile", "-rP", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stdout
    names = set(re.findall(r"cluster (test-\d+-control)", run.stdout))
    assert len(names) == 1
    assert not Cluster(names.pop()).folder.exists()


def test_a_killed_run_leaves_no_cluster(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import signal\n"
        "def test_it(control_plane):\n"
        "    print(control_plane.cluster.name, flush=True)\n"
        "    signal.pause()\n"
    )
    env = {key: value for key, value in os.environ.items() if key != "DEVCLUSTER_TEST_OWNER"}
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        name = next(found[0] for line in run.stdout if (found := re.search(r"test-\d+-control", line)))
        run.kill()

    wait_until(lambda: not Cluster(name).folder.exists(), deadline=20)
