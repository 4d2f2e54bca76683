"""What helm makes of the chart, without a cluster."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yamls import parse_yamls

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "servicelink"
# The newest that this repository runs; helm by itself asks for the one that it was built with.
KUBERNETES = "1.37.0"

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Helm:
    """A helm program, of version 4 or 3."""

    program: Path

    def template(self, *flags: str, release: str = "servicelink", namespace: str = "servicelink-system") -> str:
        """Answer what `helm install` would send, as YAML; raises CalledProcessError with helm's words in `stderr`."""
        how = (f"--namespace={namespace}", f"--kube-version={KUBERNETES}", "--skip-tests")
        words = ["template", release, str(CHART), *how, *flags]
        return subprocess.run([self.program, *words], capture_output=True, text=True, check=True).stdout

    def render(
        self, *flags: str, release: str = "servicelink", namespace: str = "servicelink-system"
    ) -> list[Manifest]:
        """As `template`, parsed."""
        return parse_yamls(self.template(*flags, release=release, namespace=namespace))


def only(kind: str, manifests: list[Manifest]) -> Manifest:
    """Answer the one manifest of that kind."""
    (found,) = (manifest for manifest in manifests if manifest["kind"] == kind)
    return found
