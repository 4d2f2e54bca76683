"""Every command and block of the documentation runs."""

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster.testing import Client

ROOT = Path(__file__).parents[2]
NODE = pytest.mark.skipif(os.geteuid() != 0, reason="its cluster has a node, which needs root")


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), flags=re.DOTALL)


def in_workspace(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run shell lines where `python` is the workspace's, as its activation does."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, **environment}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )


@NODE
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


@pytest.fixture(scope="module")
def demo() -> Iterator[tuple[str, subprocess.CompletedProcess[str]]]:
    """A cluster's name and what `make demo` said of it; the name spares a demo that is running."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    yield name, in_workspace(f"python scripts/demo.py {name}")
    in_workspace(f"python -m devcluster down --name {name}")


@NODE
def test_the_demo_answers_every_call_and_refuses_the_stranger(
    demo: tuple[str, subprocess.CompletedProcess[str]],
) -> None:
    _, done = demo

    assert done.returncode == 0, done.stderr
    for server in ("notification", "payments"):
        assert f"checkout → {server}: 200 of 200 answered" in done.stderr
    assert "refused: 403 INVALID_SERVICE_AUTH" in done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith(("NAMESPACE", "shop "))]
    assert len(table) == 3
    assert all(re.search(r"REST +True +Active", line) for line in table[1:])


@NODE
@pytest.mark.parametrize(
    ("page", "said"),
    [
        (
            "examples/01-rest-api-key/README.md",
            [
                "200 of 200 answered",
                "403 INVALID_SERVICE_AUTH",
                "NOTIFICATION_URL",
                "0 of 1 answered, 1 x PermissionDenied",
            ],
        ),
        (
            "examples/02-cross-namespace/README.md",
            ["RefNotPermitted", "200 of 200 answered", "0 of 1 answered, 1 x InvalidServiceAuth"],
        ),
        (
            "examples/03-grpc/README.md",
            [
                "200 of 200 answered by 2 Pods",
                "item-1 item-2 item-3",
                "'cents': '200'",
                "PermissionDenied: ",
                "UNAUTHENTICATED INVALID_SERVICE_AUTH",
            ],
        ),
        (
            "examples/04-graphql/README.md",
            [
                "200 of 200 answered",
                '{"products": [{"name": "kettle"}, {"name": "teapot"}]}',
                '{"review": {"stars": 5}}',
                "GraphQLError NOT_FOUND",
                "PermissionDenied\n" * 3,
            ],
        ),
        (
            "examples/05-existing-service/README.md",
            [
                "200 of 200 answered\n" * 2,
                "http://notification-service.office.svc:8080\nslk\n",
                "x-service-auth",
                "0 of 1 answered, 1 x 403 INVALID_SERVICE_AUTH",
            ],
        ),
        (
            "examples/06-fastapi/README.md",
            ["200 of 200 taken", "1 of 2 taken, 1 x 409 the inventory answers 409", "403 INVALID_SERVICE_AUTH"],
        ),
    ],
)
def test_the_shell_blocks_of_an_example_s_page_run_one_after_the_other(
    demo: tuple[str, subprocess.CompletedProcess[str]], page: str, said: list[str]
) -> None:
    name, _ = demo
    # Those of the cluster; what runs on a laptop, tests/unit/sdk/test_examples.py runs.
    lines = [text for text in blocks(page, "sh") if "localhost" not in text]
    script = "\n".join([f'eval "$(python -m devcluster env --name {name})"', *lines])

    done = in_workspace(script, DEVCLUSTER_NAME=name)

    assert done.returncode == 0, done.stderr
    told = done.stdout + done.stderr
    assert [words for words in said if words not in told] == []


@NODE
def test_the_readme_s_arrow_is_the_one_that_runs(demo: tuple[str, subprocess.CompletedProcess[str]]) -> None:
    (arrow,) = blocks("README.md", "yaml")
    link = yaml.safe_load(arrow)
    show = f"kubectl get slink {link['metadata']['name']} -n {link['metadata']['namespace']} -o json"

    done = in_workspace(f'eval "$(python -m devcluster env --name {demo[0]})"; {show}')

    spec = json.loads(done.stdout)["spec"]
    assert {key: spec[key] for key in link["spec"]} == {**link["spec"], "server": spec["server"]}
    assert link["spec"]["server"].items() <= spec["server"].items()


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
    script = blocks("CONTRIBUTING.md", "sh")[2]
    script = script.replace("--name work", f"--name {cluster_name}")
    script = script.replace("--devcluster work", f"--devcluster {cluster_name}").replace(" --node", "")

    done = in_workspace(script)

    assert done.returncode == 0, done.stderr + done.stdout
    assert " passed" in done.stdout
