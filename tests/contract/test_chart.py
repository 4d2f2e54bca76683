"""The chart agrees with what it installs: the CRDs, the operator's settings, its own schema and suites."""

import json
import re
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from charts import CHART, ROOT, Helm, only
from yamls import parse_yaml

from servicelink_contract.binding import BindingKey
from servicelink_core import conflicts
from servicelink_core.api.names import Suffix
from servicelink_operator.cluster.guards import GUARDS
from servicelink_operator.settings import Settings, parse_settings

SOURCES = sorted((ROOT / "crds").glob("*.yaml"))
KEEP = {"helm.sh/resource-policy": "keep"}
# What only a Deployment can know, what a Pod has no use for, or what decides about more than the operator.
NOT_VALUES = {"lease_namespace", "lease_name", "identity", "guards_prefix", "kubeconfig", "watch_namespaces"}


def values() -> dict[str, Any]:
    parsed: dict[str, Any] = parse_yaml((CHART / "values.yaml").read_text())
    return parsed


def schema() -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return parsed


def snake(name: str) -> str:
    return re.sub(r"(?=[A-Z])", "_", name).lower()


def field_of(variable: str) -> str:
    return variable.removeprefix("SERVICELINK_").lower()


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_chart_s_crd_is_the_source_and_stays_after_an_uninstall(source: Path) -> None:
    """`make reference` writes it."""
    copied = parse_yaml((CHART / "files" / "crds" / source.name).read_text())

    assert copied["metadata"].pop("annotations") == KEEP
    assert copied == parse_yaml(source.read_text())


def test_the_chart_has_no_other_crds() -> None:
    assert sorted(path.name for path in (CHART / "files" / "crds").iterdir()) == [path.name for path in SOURCES]


def defined(name: str) -> str:
    """Answer what a named template of the chart says."""
    source = (CHART / "templates" / "_names.tpl").read_text()
    found = re.search(rf'define "servicelink.{name}" -}}}}\n(.*?)\n{{{{', source, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_guard_of_workloads_knows_the_binding() -> None:
    link = parse_yaml((ROOT / "crds" / "servicelink.dev_servicelinks.yaml").read_text())
    fields = link["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    variable = fields["binding"]["properties"]["env"]["items"]["properties"]

    assert json.loads(defined("bindingKeys")) == [str(key) for key in BindingKey if key is not BindingKey.CANDIDATE]
    assert json.loads(defined("variableKeys")) == variable["key"]["enum"]
    assert f"^{defined('variables')}$" == variable["name"]["pattern"]


def test_the_guard_of_workloads_admits_the_variables_and_places_that_the_operator_does() -> None:
    assert defined("variables") == conflicts.VARIABLE.pattern
    assert defined("reservedVariables") == conflicts.RESERVED_VARIABLES.pattern
    assert json.loads(defined("ownVariables")) == conflicts.OWN_VARIABLES
    assert defined("suffixes").split("|") == [str(suffix) for suffix in Suffix if suffix is not Suffix.API_KEY]
    assert defined("ownPaths") == conflicts.OWN_PATHS.pattern
    assert defined("bindingPaths") == conflicts.BINDING_PATHS.pattern
    assert defined("reservedFolders") == conflicts.RESERVED_FOLDERS.pattern


def test_readiness_asks_for_every_guard_of_the_chart() -> None:
    sources = [path.read_text() for path in (CHART / "templates").glob("guard*.yaml")]
    names = {name for source in sources for name in re.findall(r"fullname }}-guard-([a-z]+)$", source, re.MULTILINE)}

    assert names == set(GUARDS)


def test_the_operator_s_values_are_its_settings_and_all_of_them() -> None:
    assert {snake(name) for name in values()["operator"]} == set(Settings.model_fields) - NOT_VALUES


def test_the_chart_s_defaults_are_the_operator_s(helm4: Helm) -> None:
    """As its Pod is told them."""
    (container,) = only("Deployment", helm4.render())["spec"]["template"]["spec"]["containers"]
    told = {one["name"]: one["value"] for one in container["env"] if one["name"].startswith("SERVICELINK_")}
    environment = {name: value for name, value in told.items() if field_of(name) not in NOT_VALUES}

    given = parse_settings([], {**environment, "SERVICELINK_IDENTITY": "me"})

    assert len(environment) == len(values()["operator"])
    assert given == parse_settings([], {"SERVICELINK_IDENTITY": "me"})


def test_every_value_is_in_the_schema_and_the_other_way_round() -> None:
    described = schema()["properties"]
    described.pop("global")

    assert set(described) == set(values())
    for name, value in values().items():
        known = described[name].get("properties")
        if known is not None and name != "resources":
            assert set(known) == set(value), name


def test_every_value_has_a_comment() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    set_here = re.compile(r" *[a-zA-Z]+: .")
    bare = [line for before, line in pairwise(lines) if set_here.match(line) and not before.lstrip().startswith("#")]

    assert not bare


def test_what_the_chart_renders_is_what_its_suites_say(tool: Callable[[str], Path]) -> None:
    suites = len(list((CHART / "tests").glob("*_test.yaml")))

    done = subprocess.run([tool("helm-unittest"), "--strict", CHART], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Test Suites: {suites} passed, {suites} total" in done.stdout


@pytest.mark.parametrize("program", ["helm", "helm3"])
def test_helm_finds_nothing_to_complain_of(tool: Callable[[str], Path], program: str) -> None:
    done = subprocess.run([tool(program), "lint", "--strict", CHART], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_two_releases_share_no_name(helm4: Helm) -> None:
    one, two = (
        {(one["kind"], one["metadata"]["name"]) for one in helm4.render("--set=crds.enabled=false", release=release)}
        for release in ("servicelink", "second")
    )

    assert {kind for kind, _ in one} > {"ClusterRole", "ClusterRoleBinding", "ValidatingAdmissionPolicy"}
    assert not one & two
