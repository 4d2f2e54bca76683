"""The tool on a bad day: each thing that can be missing or broken is named, with the mend."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from devcluster.cluster import Cluster
from devcluster.testing import Client

Devcluster = Callable[..., Any]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")


def fake_program(folder: Path, name: str, script: str) -> Path:
    """A program that stands in for a broken one of this host."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def path_without(folder: Path, *names: str) -> str:
    """A PATH with links to every program on this one but those."""
    for directory in os.environ["PATH"].split(":"):
        for path in Path(directory).iterdir() if Path(directory).is_dir() else ():
            if path.name not in names and not (folder / path.name).exists():
                (folder / path.name).symlink_to(path)
    return str(folder)


def test_without_go_it_says_so(devcluster: Devcluster, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()

    said = devcluster("tool", "pause", PATH=path_without(programs, "go"), XDG_CACHE_HOME=str(tmp_path))

    assert said.code == 1
    assert "no `go` on PATH" in said.err
    assert "install Go 1.26.0 or newer" in said.err


def test_too_old_a_go_is_named_with_the_version_wanted(devcluster: Devcluster, tmp_path: Path) -> None:
    fake_program(tmp_path, "go", "echo go version go1.21.3 linux/amd64")

    said = devcluster("tool", "pause", PATH=f"{tmp_path}:{os.environ['PATH']}", XDG_CACHE_HOME=str(tmp_path))

    assert said.code == 1
    assert "needs Go 1.26.0" in said.err
    assert "go1.21.3" in said.err


def test_a_build_that_fails_shows_its_last_lines(devcluster: Devcluster, tmp_path: Path) -> None:
    said = devcluster(
        "tool", "kubeconform", GOPROXY="off", GOMODCACHE=str(tmp_path / "modules"), XDG_CACHE_HOME=str(tmp_path)
    )

    assert said.code == 1
    assert "building kubeconform 0.8.0 failed" in said.err
    assert "GOPROXY=off" in said.err
    assert "goes on from there" in said.err


@needs_root
def test_a_full_disk_is_named_before_the_build(devcluster: Devcluster, tmp_path: Path) -> None:
    small = ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o size=10m tmpfs {tmp_path} && exec "$@"', "sh")

    said = devcluster("tool", "pause", under=small, XDG_CACHE_HOME=str(tmp_path))

    assert said.code == 1
    assert "needs 6 GiB of disk, 0.0 GiB are free" in said.err
    assert "XDG_CACHE_HOME" in said.err


def test_a_program_missing_for_a_node_is_named_with_the_command_that_installs_it(
    devcluster: Devcluster, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("without root the missing root is what is named")

    path = path_without(tmp_path, "runc", "iptables")
    hidden = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /usr/sbin && exec "$@"', "sh")
    said = devcluster("up", "--node", "--name=bare", under=hidden, PATH=path)

    assert said.code == 1
    assert "runc, iptables" in said.err
    assert re.search(r"apt-get install .*iptables.* runc", said.err)


def test_a_component_that_dies_while_starting_shows_its_last_lines(
    devcluster: Devcluster, cluster_name: str, tmp_path: Path
) -> None:
    fake_program(tmp_path, "etcd", "echo the disk is made of cheese; exit 3")

    said = devcluster("up", "--name", cluster_name, KUBEBUILDER_ASSETS=str(tmp_path))

    assert said.code == 1
    assert "etcd ended with 3 while starting" in said.err
    assert "the disk is made of cheese" in said.err
    assert "Traceback" not in said.err
    assert "unfinished" in devcluster("status").out
    # The next try starts over by itself.
    assert devcluster("up", "--name", cluster_name).code == 0


def test_a_program_in_the_assets_of_another_version_is_passed_over_and_named(
    devcluster: Devcluster, cluster_name: str, tmp_path: Path
) -> None:
    fake_program(tmp_path, "kubectl", "echo Client Version: v1.20.0")

    said = devcluster("tool", "kubectl", KUBEBUILDER_ASSETS=str(tmp_path))

    assert said.code == 0
    assert str(tmp_path) not in said.out
    assert "is not Kubernetes 1.37.2: not used" in said.err


def test_programs_are_found_in_the_assets_folder(devcluster: Devcluster, tmp_path: Path) -> None:
    built = devcluster("tool", "kubectl").out.strip()
    shutil.copy(built, tmp_path / "kubectl")

    said = devcluster("tool", "kubectl", KUBEBUILDER_ASSETS=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))

    assert said.out.strip() == str(tmp_path / "kubectl")


def test_an_unknown_kubernetes_version_is_answered_with_the_known_ones(devcluster: Devcluster) -> None:
    said = devcluster("up", "--kubernetes-version", "1.2.3")

    assert said.code == 1
    assert "use one of 1.37.2, 1.36.3" in said.err


def test_a_node_without_root_is_refused_with_the_way_out(devcluster: Devcluster) -> None:
    nobody = ("unshare", "--user", "--map-user=65534", "--map-group=65534")

    said = devcluster("up", "--node", "--name=rootless", under=nobody)

    assert said.code == 1
    assert "needs root" in said.err
    assert "a control plane needs no root" in said.err


def test_a_kubeconfig_that_leads_nowhere_is_refused(devcluster: Devcluster, cluster_name: str, tmp_path: Path) -> None:
    missing = devcluster("up", "--name", cluster_name, "--kubeconfig", str(tmp_path / "none"))

    assert missing.code == 1
    assert "there is no file" in missing.err


def test_kind_without_docker_says_what_is_missing(devcluster: Devcluster, cluster_name: str, tmp_path: Path) -> None:
    path = path_without(tmp_path, "kind", "docker")

    said = devcluster("up", "--name", cluster_name, "--provider=kind", PATH=path)

    assert said.code == 1
    assert "missing: kind, docker" in said.err
    assert "--provider native needs neither" in said.err


def test_an_unknown_component_is_answered_with_the_known_ones(devcluster: Devcluster, control_plane: Client) -> None:
    said = devcluster("logs", "--name", control_plane.cluster.name, "kubelet")

    assert said.code == 1
    assert "name one of etcd, kube-apiserver, kube-controller-manager" in said.err


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "{}", "[]", '{"provider": "somebody"}', "[" * 100_000),
        '{"provider": "native", "kubernetes_version": 5, "node": true, "audit": true}',
    ],
    ids=range(7),
)
def test_a_broken_record_is_a_cluster_that_was_not_finished(
    devcluster: Devcluster, cluster_name: str, text: str
) -> None:
    folder = Cluster(cluster_name).folder
    folder.mkdir(parents=True)
    (folder / "cluster.json").write_text(text)

    assert "unfinished" in devcluster("status").out
    assert devcluster("down", "--name", cluster_name).code == 0
    assert not folder.exists()


def test_a_cache_that_cannot_be_written_is_named(devcluster: Devcluster) -> None:
    said = devcluster("up", "--name=nowhere", XDG_CACHE_HOME="/proc")

    assert said.code == 1
    assert "/proc/servicelink" in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize("command", [("tool", "pause"), ("build",)])
def test_every_command_answers_an_unknown_version_with_the_known_ones(
    devcluster: Devcluster, command: tuple[str, ...]
) -> None:
    said = devcluster(*command, "--kubernetes-version", "9.9.9")

    assert said.code == 1
    assert "use one of 1.37.2, 1.36.3" in said.err


def test_an_owner_that_is_not_running_is_refused(devcluster: Devcluster, cluster_name: str) -> None:
    said = devcluster("up", "--name", cluster_name, "--while=4194304")

    assert said.code == 1
    assert "there is no such process" in said.err


def test_the_watcher_of_a_failed_up_spares_the_next_cluster(
    devcluster: Devcluster, cluster_name: str, tmp_path: Path
) -> None:
    """It fails before there is a folder: at a build, for want of Go."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "bin").mkdir()
    without_go = {"PATH": path_without(tmp_path / "bin", "go"), "XDG_CACHE_HOME": f"{tmp_path}/cache"}
    with subprocess.Popen(["sleep", "300"]) as owner:
        failed = devcluster("up", "--name", cluster_name, f"--while={owner.pid}", **without_go)
        devcluster("down", "--name", cluster_name, XDG_CACHE_HOME=f"{tmp_path}/cache")
        watchers = [process for process in psutil.process_iter() if f"--after={owner.pid}" in words(process)]
        owner.kill()

    assert failed.code == 1
    assert not watchers


def words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_another_kubeconfig_under_a_taken_name_is_refused(
    devcluster: Devcluster, control_plane: Client, cluster_name: str, tmp_path: Path
) -> None:
    assert devcluster("up", "--name", cluster_name, "--kubeconfig", str(control_plane.kubeconfig)).code == 0
    other = tmp_path / "other"
    other.write_text(control_plane.kubeconfig.read_text().replace("server: https://127", "server: https://128"))

    said = devcluster("up", "--name", cluster_name, "--kubeconfig", str(other))

    assert said.code == 1
    assert "already stands for another cluster" in said.err


@needs_root
@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("FROM alpine:3\n", "nothing is known here to stand for FROM alpine:3"),
        ("FROM debian:bookworm-slim AS built\nRUN exit 7\nFROM built\n", "buildah build failed"),
        ("FROM registry.example/library/debian:bookworm-slim\nRUN exit 7\n", "buildah build failed"),
    ],
)
def test_an_image_that_cannot_be_built_says_why(devcluster: Devcluster, tmp_path: Path, text: str, answer: str) -> None:
    """Under a name of its own, and with stages and registries in its FROM lines as elsewhere."""
    (tmp_path / "Containerfile").write_text(text)

    said = devcluster("image", "build", "-f", str(tmp_path / "Containerfile"), "-t", "refused:dev", str(tmp_path))

    assert said.code == 1
    assert answer in said.err
