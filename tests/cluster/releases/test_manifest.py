"""The chart as a manifest, for who does not use helm."""

import yaml
from charts import ROOT
from releases import standing

from devcluster.testing import Client

MANIFEST = f"--filename={ROOT / 'charts' / 'install.yaml'}"


def test_kubectl_installs_it_and_then_finds_nothing_to_change(admin: Client) -> None:
    manifests = [one for one in yaml.safe_load_all((ROOT / "charts" / "install.yaml").read_text()) if one]

    admin.kubectl("apply", "--server-side", MANIFEST)

    assert len(standing(admin, manifests)) == len(manifests)
    assert admin.kubectl("diff", "--server-side", MANIFEST) == ""
