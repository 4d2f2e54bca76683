"""Installing, upgrading and uninstalling: what changes in the cluster, and what stays."""

import shutil
from pathlib import Path

import pytest
import yaml
from charts import CHART
from releases import LINK, Release, identity, standing

from devcluster.testing import Client, CommandFailedError

OF_CRDS = "customresourcedefinition.apiextensions.k8s.io/"
CRDS = {f"{OF_CRDS}servicelinks.servicelink.dev", f"{OF_CRDS}servicelinkpolicies.servicelink.dev"}
NO_PODS = "--set=replicas=0"


@pytest.fixture
def next_chart(tmp_path: Path) -> Path:
    """The chart of a version to come, whose links have a new field."""
    chart = tmp_path / "servicelink"
    shutil.copytree(CHART, chart)
    path = chart / "files" / "crds" / "servicelink.dev_servicelinks.yaml"
    definition = yaml.safe_load(path.read_text())
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["note"] = {"type": "string", "maxLength": 63}
    path.write_text(yaml.safe_dump(definition))
    return chart


def set_note(admin: Client, shop: str) -> str:
    """Set the field that is new in the next version; answers what came of it."""
    patch = '--patch={"spec": {"note": "kept"}}'
    admin.kubectl("patch", "slink", "checkout-to-notification", f"--namespace={shop}", "--type=merge", patch)
    link = admin.kubectl_json("get", "slink", "checkout-to-notification", f"--namespace={shop}")
    return str(link["spec"].get("note"))


def test_an_upgrade_brings_the_new_fields_of_links_and_leaves_the_links_alone(
    admin: Client, release: Release, shop: str, next_chart: Path
) -> None:
    release.install(NO_PODS)
    admin.apply(LINK, f"--namespace={shop}")
    before = identity(admin, shop)
    assert set_note(admin, shop) == "None"

    release.upgrade(NO_PODS, chart=next_chart)

    assert identity(admin, shop) == before
    assert set_note(admin, shop) == "kept"


def test_what_an_uninstalled_release_leaves_is_found_by_the_next(admin: Client, release: Release, shop: str) -> None:
    """That is the CRDs, and with them every link."""
    release.install(NO_PODS)
    admin.apply(LINK, f"--namespace={shop}")
    installed, before = release.manifests(), identity(admin, shop)
    assert len(standing(admin, installed)) == len(installed)

    release.uninstall()

    assert standing(admin, installed) == CRDS
    assert identity(admin, shop) == before

    release.install(NO_PODS)

    assert len(standing(admin, installed)) == len(installed)
    assert identity(admin, shop) == before


def test_a_release_that_leaves_the_crds_to_others_neither_makes_nor_deletes_them(
    admin: Client, release: Release
) -> None:
    release.install(NO_PODS, "--set=crds.enabled=false")
    assert admin.kubectl("get", "customresourcedefinitions", "--output=name") == ""

    release.uninstall()


def test_helm_4_upgrades_what_helm_3_has_installed(admin: Client, by_helm_4: Release, shop: str) -> None:
    by_helm_4.with_program("helm3").install(NO_PODS)
    admin.apply(LINK, f"--namespace={shop}")
    before, installed = identity(admin, shop), standing(admin, by_helm_4.manifests())

    by_helm_4.upgrade(NO_PODS, "--set=operator.freeze=true")

    assert standing(admin, by_helm_4.manifests()) == installed
    assert identity(admin, shop) == before


def test_the_notes_show_a_link_that_the_api_server_takes(admin: Client, release: Release, shop: str) -> None:
    """Not the one of this test: the YAML that helm prints, in a namespace that is there."""
    said = release.install(NO_PODS, f"--set=watch.namespaces={{{shop}}}")
    lines = said.partition("apiVersion: servicelink.dev")[2].partition("\n\n")[0]
    link = f"apiVersion: servicelink.dev{lines}".replace("\n  ", "\n")

    assert "created (server dry run)" in admin.apply(link, "--dry-run=server", "--validate=strict")


def test_a_namespace_that_is_not_there_is_named(admin: Client, release: Release) -> None:
    with pytest.raises(CommandFailedError, match='namespaces "nowhere" not found'):
        release.install(NO_PODS, "--set=watch.namespaces={nowhere}")
