"""Releases of the chart, and what of them is in the cluster."""

from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from charts import CHART, Manifest

from devcluster.testing import Client

LINK = """
apiVersion: servicelink.dev/v1alpha1
kind: ServiceLink
metadata: {name: checkout-to-notification}
spec: {client: {kind: Deployment, name: checkout}, server: {name: notification}, protocol: REST}
"""


@dataclass(frozen=True, slots=True)
class Release:
    """A release `name` in the namespace `system`, as whoever makes it sees it, with one helm program or the other."""

    client: Client
    program: str
    name: str
    system: str

    def install(self, *flags: str, chart: Path = CHART) -> str:
        """Install, and answer what helm says."""
        return self._helm("install", self.name, str(chart), *flags)

    def install_or_upgrade(self, *flags: str) -> str:
        """Install, or upgrade to these flags, and answer what helm says."""
        return self._helm("upgrade", self.name, str(CHART), "--install", *flags)

    def upgrade(self, *flags: str, chart: Path = CHART) -> str:
        """Upgrade, and answer what helm says."""
        return self._helm("upgrade", self.name, str(chart), *flags)

    def uninstall(self) -> str:
        """Uninstall, and answer what helm says."""
        return self._helm("uninstall", self.name)

    def test(self) -> str:
        """Run the chart's test, and answer what helm says."""
        return self._helm("test", self.name)

    def manifests(self) -> list[Manifest]:
        """Answer what helm has installed, but for hooks."""
        return [one for one in yaml.safe_load_all(self._helm("get", "manifest", self.name)) if one]

    def by(self, client: Client) -> "Release":
        """Answer it as another user sees it."""
        return replace(self, client=client)

    def with_program(self, program: str) -> "Release":
        """Answer it as another helm sees it."""
        return replace(self, program=program)

    def _helm(self, *words: str) -> str:
        return self.client.helm(*words, f"--namespace={self.system}", program=self.program)


def standing(client: Client, manifests: list[Manifest]) -> set[str]:
    """Answer which of these objects are there, as kind/name."""
    text = yaml.safe_dump_all(manifests)
    return set(client.kubectl("get", "--filename=-", "--ignore-not-found", "--output=name", stdin=text).split())


def identity(client: Client, namespace: str) -> tuple[str, int]:
    """Answer what tells the link of a namespace from one that was made again or changed."""
    found = client.kubectl_json("get", "slink", "checkout-to-notification", f"--namespace={namespace}")
    return found["metadata"]["uid"], found["metadata"]["generation"]
