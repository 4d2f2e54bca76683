"""Write what is generated: the reference pages, from code, and the chart's copies of the CRDs."""

from pathlib import Path

from servicelink_core.api.reasons import render_reference

ROOT = Path(__file__).parents[1]
CHART = ROOT / "charts" / "servicelink"
# So that `helm uninstall` does not delete every link of the cluster.
KEEP = "metadata:\n  annotations: {helm.sh/resource-policy: keep}\n"


def render_chart_crd(source: str) -> str:
    """Answer a CRD as the chart holds it: the same but for its first line and an annotation."""
    _, _, body = source.partition("\n")
    return "# Generated from crds/ by `make reference`.\n" + body.replace("metadata:\n", KEEP, 1)


(ROOT / "docs" / "reference" / "reasons.md").write_text(render_reference())
for definition in sorted((ROOT / "crds").glob("*.yaml")):
    (CHART / "files" / "crds" / definition.name).write_text(render_chart_crd(definition.read_text()))
