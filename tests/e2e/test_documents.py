"""Every command and block of the documentation runs."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devcluster.testing import Client

ROOT = Path(__file__).parents[2]


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), flags=re.DOTALL)


def in_workspace(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run shell lines where `python` is the workspace's, as its activation does."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, **environment}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="the document's cluster has a node, which needs root")
def test_the_shell_blocks_of_the_cluster_s_page_run_one_after_the_other(cluster_name: str) -> None:
    script = "\n".join(blocks("devcluster/README.md", "sh"))

    done = in_workspace(script, DEVCLUSTER_NAME=cluster_name)

    assert done.returncode == 0, done.stderr
    assert re.search(r"devcluster-\S+ +Ready .* v1\.37\.", done.stdout)
    assert done.stdout.count("condition met") == 2
    assert "system:serviceaccount:shop:default" in done.stdout


def test_the_test_on_the_cluster_s_page_passes(control_plane: Client, tmp_path: Path) -> None:
    (block,) = blocks("devcluster/README.md", "python")
    (tmp_path / "test_page.py").write_text(block)

    done = in_workspace(
        f"python -m pytest -p no:cacheprovider --devcluster {control_plane.cluster.name} {tmp_path}/test_page.py"
    )

    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="the demo's cluster has a node, which needs root")
def test_the_demo_answers_every_call_and_refuses_the_stranger(cluster_name: str) -> None:
    """What `make demo` runs, under a name that spares a demo that is running."""
    done = in_workspace(f"python scripts/demo.py {cluster_name}")

    assert done.returncode == 0, done.stderr
    for server in ("notification", "payments"):
        assert f"checkout → {server}: 200 of 200 answered" in done.stderr
    assert "refused: 403 INVALID_SERVICE_AUTH" in done.stderr
    assert len(re.findall(r"REST +True +Active", done.stdout)) == 2


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_every_make_command_of_a_page_is_a_target_with_a_help_line(document: str) -> None:
    commands = {line.split("#")[0].strip() for block in blocks(document, "sh") for line in block.splitlines()}
    targets = {command.removeprefix("make ") for command in commands if command.startswith("make ")}
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert targets
    assert targets <= {line.split()[0] for line in shown.splitlines()}


def test_ci_runs_the_readme_s_test_command() -> None:
    assert "make test" in blocks("README.md", "sh")[0]
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("make test")


def test_the_way_to_reuse_a_cluster_works(devcluster: Callable[..., Any], cluster_name: str) -> None:
    script = blocks("CONTRIBUTING.md", "sh")[1].replace("uv run ", "").replace("pytest", "python -m pytest")
    script = script.replace("python python", "python").replace("--name work", f"--name {cluster_name}")
    script = script.replace("--devcluster work", f"--devcluster {cluster_name}").replace(" --node", "")

    done = in_workspace(script)

    assert done.returncode == 0, done.stderr + done.stdout
    assert " passed" in done.stdout
