"""The commands of the tool on a good day."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from devcluster import kubeconfig
from devcluster.cluster import Cluster
from devcluster.processes import components
from devcluster.programs import CONTROL_PLANE_PROGRAMS
from devcluster.testing import Client, wait_until

Devcluster = Callable[..., Any]


def test_a_second_up_answers_with_the_running_cluster(devcluster: Devcluster, control_plane: Client) -> None:
    name = control_plane.cluster.name
    before = control_plane.kubeconfig.read_text()

    said = devcluster("up", "--name", name)

    assert said.code == 0
    assert "is running already" in said.err
    assert control_plane.kubeconfig.read_text() == before


def test_a_second_up_that_wants_more_says_what_is_lacking(devcluster: Devcluster, control_plane: Client) -> None:
    said = devcluster("up", "--name", control_plane.cluster.name, "--kubernetes-version", "1.36.3")

    assert said.code == 1
    assert "it is Kubernetes 1.37.2" in said.err
    assert "down --name" in said.err


def test_a_control_plane_needs_no_root(devcluster: Devcluster, control_plane: Client) -> None:
    """As the user nobody, on programs and in a folder that nobody may use."""
    if os.geteuid() != 0:
        pytest.skip("every other test shows it, since this is not root")
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs")
    if subprocess.run([*nobody, sys.executable, "-c", "import devcluster"], check=False).returncode != 0:
        pytest.skip(f"nobody may not read {sys.executable} or the repository")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "programs").mkdir()
        for program in CONTROL_PLANE_PROGRAMS:
            shutil.copy2(control_plane.cluster.bin / program, folder / "programs" / program)
        (folder / "cache").mkdir()
        os.chown(folder / "cache", 65534, 65534)
        environment = {"KUBEBUILDER_ASSETS": f"{folder}/programs", "XDG_CACHE_HOME": f"{folder}/cache", "HOME": name}

        said = devcluster("up", "--name=nobody", under=nobody, **environment)
        uids = {process.uids().real for process in psutil.process_iter() if name in " ".join(process.cmdline())}
        devcluster("down", "--name=nobody", under=nobody, **environment)

    assert said.code == 0, said.err
    assert "control plane ready" in said.err
    assert uids == {65534}


def test_the_next_cluster_of_a_name_outlives_the_owner_of_the_last(devcluster: Devcluster, cluster_name: str) -> None:
    with subprocess.Popen(["sleep", "300"]) as owner:
        assert devcluster("up", "--name", cluster_name, f"--while={owner.pid}").code == 0
        watcher = components(Cluster(cluster_name).folder)["watcher"]
        devcluster("down", "--name", cluster_name)
        assert devcluster("up", "--name", cluster_name).code == 0
        assert not watcher.is_running()
        owner.kill()

    assert "running" in status_line(devcluster, cluster_name)


def test_a_running_cluster_can_be_given_an_owner(devcluster: Devcluster, cluster_name: str) -> None:
    assert devcluster("up", "--name", cluster_name).code == 0
    with subprocess.Popen(["sleep", "300"]) as owner:
        assert devcluster("up", "--name", cluster_name, f"--while={owner.pid}").code == 0
        owner.kill()

    wait_until(lambda: not Cluster(cluster_name).folder.exists(), deadline=20)


def test_keys_are_their_owner_s_alone(control_plane: Client, devcluster: Devcluster) -> None:
    folder = control_plane.cluster.folder
    devcluster("kubeconfig", "--name", control_plane.cluster.name, "--service-account", "default/default")
    secret = [*folder.glob("**/*.key"), *folder.glob("*kubeconfig*"), *folder.glob("accounts/*")]

    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(secret) > 8
    assert {oct(path.stat().st_mode & 0o777) for path in secret} == {"0o600"}


def test_a_cluster_whose_processes_are_gone_is_started_anew(devcluster: Devcluster, cluster_name: str) -> None:
    assert devcluster("up", "--name", cluster_name).code == 0
    pid = subprocess.run(
        ["pgrep", "--full", f"{cluster_name}/bin/kube-apiserver"], capture_output=True, text=True, check=True
    ).stdout
    os.kill(int(pid), 9)
    wait_until(lambda: "running" not in status_line(devcluster, cluster_name))

    said = devcluster("up", "--name", cluster_name)

    assert said.code == 0
    assert "clearing what an earlier" in said.err


def status_line(devcluster: Devcluster, name: str) -> str:
    lines: list[str] = devcluster("status").out.splitlines()
    return next(line for line in lines if line.startswith(name))


def test_a_given_kubeconfig_is_used_and_its_cluster_left_alone(
    devcluster: Devcluster, control_plane: Client, cluster_name: str
) -> None:
    said = devcluster("up", "--name", cluster_name, "--kubeconfig", str(control_plane.kubeconfig))

    assert said.code == 0, said.err
    adopted = Cluster(cluster_name)
    assert "kubeconfig" in status_line(devcluster, cluster_name)
    assert kubeconfig.current_cluster(adopted.kubeconfig) == kubeconfig.current_cluster(control_plane.kubeconfig)
    assert "is a cluster of your own" in devcluster("load", "--name", cluster_name, __file__).err
    devcluster("down", "--name", cluster_name)
    assert "default" in control_plane.kubectl("get", "namespaces")


def test_the_log_of_a_component_is_printed(devcluster: Devcluster, control_plane: Client) -> None:
    said = devcluster("logs", "--name", control_plane.cluster.name, "kube-apiserver", "--lines=3")

    assert said.code == 0
    assert len(said.out.splitlines()) == 3


def test_env_puts_kubectl_helm_and_the_kubeconfig_in_place(devcluster: Devcluster, control_plane: Client) -> None:
    lines = devcluster("env", "--name", control_plane.cluster.name).out

    shown = subprocess.run(
        ["sh", "-ec", f"{lines}\nkubectl get namespace default --output=name\nhelm version --short"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert shown.stdout.startswith("namespace/default\nv4.3.1")


def test_a_service_account_gets_a_kubeconfig_of_its_own(devcluster: Devcluster, control_plane: Client) -> None:
    said = devcluster("kubeconfig", "--name", control_plane.cluster.name, "--service-account", "default/default")

    assert said.code == 0, said.err
    who = Client(control_plane.cluster, Path(said.out.strip())).kubectl("auth", "whoami")
    assert "system:serviceaccount:default:default" in who


@pytest.mark.parametrize(
    ("tool", "arguments", "answer"),
    [
        ("kubectl", ["version", "--client"], "v1.37.2"),
        ("helm", ["version", "--short"], "v4.3.1"),
        ("helm3", ["version", "--short"], "v3.22.0"),
        ("kubeconform", ["-v"], "v0.8.0"),
        ("promtool", ["--version"], "0.315.0"),
        ("helm-unittest", ["--help"], "unittest"),
        ("grpcurl", ["-version"], "v1.9.4"),
    ],
)
def test_every_tool_is_built_and_runs(devcluster: Devcluster, tool: str, arguments: list[str], answer: str) -> None:
    path = devcluster("tool", tool).out.strip()

    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)

    assert answer in done.stdout + done.stderr
