"""The command line: `python -m devcluster …`. Answers go to standard output, progress and errors to standard error."""

import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from devcluster import accounts, host, images, lifecycle, processes
from devcluster.build import Programs
from devcluster.cluster import DEFAULT_NAME, Cluster, Provider, known_clusters
from devcluster.errors import DevclusterError
from devcluster.programs import CONTROL_PLANE_PROGRAMS, NODE_PROGRAMS, TOOLS, kubernetes_versions, programs
from devcluster.progress import Progress

# The kernel's own limit on 64 bits.
MAX_PID = 2**22


class Commands(click.Group):
    """A group whose commands end with the mend instead of a stack trace when its user can mend something."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; exit code 1 with the problem on standard error."""
        # A plain `su` leaves /usr/sbin off PATH; under a strict umask, Pods could not read their images.
        os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
        os.umask(0o022)
        try:
            return super().invoke(ctx)
        except (DevclusterError, OSError) as error:
            click.secho(f"Error: {error}", err=True)
            ctx.exit(1)


def _cluster(_context: click.Context, _parameter: click.Parameter, name: str) -> Cluster:
    try:
        return Cluster(name)
    except DevclusterError as error:
        raise click.BadParameter(f"{error.problem}; {error.mend}") from error


def name_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add `--name`, given to the command as `cluster`."""
    return click.option(
        "--name",
        "cluster",
        default=DEFAULT_NAME,
        envvar="DEVCLUSTER_NAME",
        show_default=True,
        show_envvar=True,
        callback=_cluster,
        help="Which cluster; several can run at once.",
    )(command)


def version_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add `--kubernetes-version`."""
    known = kubernetes_versions()
    return click.option(
        "--kubernetes-version", help=f"Which Kubernetes to build: {', '.join(known)}; default {known[0]}."
    )(command)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run a real Kubernetes, built from source, for development and tests."""


@main.command()
@name_option
@version_option
@click.option(
    "--node", "with_node", is_flag=True, help="Also run Pods: scheduler, containerd, kubelet, DNS (root, Linux)."
)
@click.option("--provider", type=click.Choice(["native", "kind"]), help="Who runs it; default native.")
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="Use the cluster of this file's current context.")
@click.option("--audit", is_flag=True, help="Keep the API server's audit log, so that calls can be counted.")
@click.option(
    "--while", "while_pid", type=click.IntRange(1, MAX_PID), metavar="PID", help="Take it down at this process's end."
)
def up(
    *,
    cluster: Cluster,
    kubernetes_version: str | None,
    with_node: bool,
    provider: str | None,
    kubeconfig: Path | None,
    audit: bool,
    while_pid: int | None,
) -> None:
    """Start a cluster, or answer with the one running under that name."""
    if kubeconfig and provider:
        raise click.UsageError(
            "--provider and --kubeconfig exclude each other: a given cluster is run by somebody else"
        )
    if (kubeconfig or provider == Provider.KIND) and audit:
        raise click.UsageError("--audit needs the native provider: only its API server's log can be read here")
    chosen = Provider.KUBECONFIG if kubeconfig else Provider(provider or Provider.NATIVE)
    wish = lifecycle.Wish(chosen, kubernetes_version, with_node, audit, given_kubeconfig=kubeconfig, owner=while_pid)
    progress, started = Progress.on_stderr(), time.monotonic()
    record = lifecycle.up(cluster, wish, progress)
    level = "one node, ready" if record.node else "control plane ready"
    progress.say("cluster", f"Kubernetes {record.kubernetes_version}, {level} after {time.monotonic() - started:.1f} s")
    name = "" if cluster.name == DEFAULT_NAME else f" --name {cluster.name}"
    progress.say("next", f'eval "$(python -m devcluster env{name})" && kubectl get namespaces')


@main.command()
@name_option
@click.option("--all", "every", is_flag=True, help="Every cluster of this user.")
@click.option("--after", type=click.IntRange(1, MAX_PID), metavar="PID", help="Wait until that process has ended.")
def down(*, cluster: Cluster, every: bool, after: int | None) -> None:
    """Take a cluster down; nothing of it stays."""
    if after is not None:
        lifecycle.wait_for_end(after)
    progress = Progress.on_stderr()
    for one in known_clusters() if every else [cluster]:
        existed = lifecycle.down(one, progress)
        progress.say("down", f"'{one.name}' is gone" if existed else f"there was no cluster '{one.name}'")


@main.command()
def status() -> None:
    """List the clusters and their components."""
    table = Table("NAME", "PROVIDER", "KUBERNETES", "LEVEL", "STATE", "COMPONENTS", box=None, pad_edge=False)
    for cluster in known_clusters():
        record, alive = cluster.read_record(), sorted(processes.components(cluster.folder))
        if record is None:
            table.add_row(cluster.name, "-", "-", "-", "unfinished", " ".join(alive))
            continue
        level = "node" if record.node else "control plane"
        state = "running" if lifecycle.is_whole(cluster, record) else "broken" if alive else "stopped"
        table.add_row(cluster.name, record.provider, record.kubernetes_version, level, state, " ".join(alive))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@main.command()
@name_option
@click.option("--service-account", metavar="NAMESPACE/NAME", help="Speak as this ServiceAccount, for 12 hours.")
def kubeconfig(*, cluster: Cluster, service_account: str | None) -> None:
    """Print the path of the cluster's kubeconfig."""
    cluster.require_record()
    if service_account is None:
        click.echo(cluster.kubeconfig)
        return
    namespace, slash, name = service_account.partition("/")
    if not (namespace and slash and name):
        raise click.BadParameter(f"'{service_account}' is not NAMESPACE/NAME", param_hint="--service-account")
    click.echo(accounts.service_account_kubeconfig(cluster, namespace, name))


@main.command()
@name_option
def env(*, cluster: Cluster) -> None:
    """Print shell lines that put kubectl, helm and KUBECONFIG in place: eval "$(python -m devcluster env)"."""
    record = cluster.require_record()
    cluster.put_program("helm", Programs(record.built_version, Progress.on_stderr()).find("helm"))
    click.echo(f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}")
    click.echo(f'export PATH={shlex.quote(str(cluster.bin))}:"$PATH"')


@main.command()
@name_option
@click.argument("archive", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def load(*, cluster: Cluster, archive: Path) -> None:
    """Give the node the images of ARCHIVE (docker or OCI)."""
    with Progress.on_stderr().step("load", f"{archive.name} into '{cluster.name}'"):
        lifecycle.load(cluster, archive)


@main.command()
@version_option
@click.option("--tools", is_flag=True, help="The tools for tests and releases as well.")
def build(*, kubernetes_version: str | None, tools: bool) -> None:
    """Build the programs of both levels and print where each is."""
    found = Programs(kubernetes_version, Progress.on_stderr())
    for name in dict.fromkeys((*CONTROL_PLANE_PROGRAMS, *NODE_PROGRAMS, *(TOOLS if tools else ()))):
        click.echo(found.find(name))


@main.command()
@version_option
@click.argument("name", type=click.Choice(sorted(programs(kubernetes_versions()[0]))))
def tool(*, kubernetes_version: str | None, name: str) -> None:
    """Print the path of one program, built on first use."""
    click.echo(Programs(kubernetes_version, Progress.on_stderr()).find(name))


@main.command()
@name_option
@click.argument("component")
@click.option("--lines", type=click.IntRange(min=1), default=50, show_default=True, help="How many lines from the end.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what is written from now on.")
def logs(*, cluster: Cluster, component: str, lines: int, follow: bool) -> None:
    """Print the log of COMPONENT, such as kube-apiserver or kubelet."""
    path = processes.log_path(cluster.folder, component)
    if not path.exists():
        known = sorted(file.stem for file in path.parent.glob("*.log"))
        raise DevclusterError(
            f"cluster '{cluster.name}' has no component '{component}'",
            mend=f"name one of {', '.join(known)}"
            if known
            else f"start it: python -m devcluster up --name {cluster.name}",
        )
    if follow:
        os.execvp("tail", ["tail", f"--lines={lines}", "--follow", str(path)])
    click.echo("\n".join(processes.tail(path, lines)))


@main.group()
def image() -> None:
    """Build images without a registry."""


@image.command("build")
@click.option(
    "--file", "-f", "dockerfile", type=click.Path(exists=True, dir_okay=False, path_type=Path), default="Dockerfile"
)
@click.option("--tag", "-t", required=True, help="The image's name, such as servicelink:dev.")
@click.argument("context", type=click.Path(exists=True, file_okay=False, path_type=Path), default=".")
def build_image(*, dockerfile: Path, tag: str, context: Path) -> None:
    """Build an image from a Dockerfile and print the path of its archive, for `load`."""
    click.echo(images.build(dockerfile, tag, context, Progress.on_stderr()))


@main.command()
def packages() -> None:
    """Print the Debian packages that a node and image builds need and that are missing here."""
    click.echo(" ".join(host.missing_packages(host.NODE_PACKAGES | host.IMAGE_PACKAGES)))
