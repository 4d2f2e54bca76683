"""What the chart grants to the operator and, by roles, to users: a file in `rights/` for each way to install.

`pytest tests/golden --rewrite` writes them anew; the reviewer reads the difference.
"""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
import yaml
from charts import Helm, Manifest
from yamls import parse_yaml

RIGHTS = Path(__file__).parent / "rights"
OPERATOR = {"kind": "ServiceAccount", "name": "servicelink", "namespace": "servicelink-system"}
TWO = "--set=watch.namespaces={shop,payments}"
UNGUARDED = "--set=guards.enabled=false,operator.requireGuards=false"
WAYS = {
    "for the whole cluster": (),
    "for two namespaces": (TWO,),
    "for two namespaces, by who has rights only there": (TWO, UNGUARDED, "--set=crds.enabled=false"),
}

Rights = dict[str, dict[str, str]]


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def manifests(way: str, helm4: Helm) -> list[Manifest]:
    return helm4.render(*WAYS[way])


def title(role: Manifest) -> str:
    """Name a role, where it is, and of which of Kubernetes' own roles it becomes a part."""
    metadata = role["metadata"]
    place = [f"in {metadata['namespace']}"] if "namespace" in metadata else []
    aggregate = "rbac.authorization.k8s.io/aggregate-to-"
    parts = [f"as part of {label.removeprefix(aggregate)}" for label in metadata["labels"] if aggregate in label]
    return " ".join([role["kind"], metadata["name"], *place, *parts])


def grants(role: Manifest) -> Iterator[tuple[str, str]]:
    """Answer what a role grants: each resource, or each object where it is named, with its verbs."""
    for rule in role["rules"]:
        for group, resource, name in product(rule["apiGroups"], rule["resources"], rule.get("resourceNames", [""])):
            yield f"{f'{resource}.{group}'.rstrip('.')} {name}".rstrip(), " ".join(rule["verbs"])


def bound(manifests: list[Manifest]) -> set[tuple[str, str, str | None]]:
    """Answer the roles to which somebody is bound, which is nobody but the operator."""
    bindings = [manifest for manifest in manifests if manifest["kind"].endswith("RoleBinding")]
    assert all(binding["subjects"] == [OPERATOR] for binding in bindings)
    return {(one["roleRef"]["kind"], one["roleRef"]["name"], one["metadata"].get("namespace")) for one in bindings}


def rights(manifests: list[Manifest]) -> dict[str, Rights]:
    """Answer all roles, those of the operator and those for users."""
    roles = [manifest for manifest in manifests if manifest["kind"] in ("ClusterRole", "Role")]
    of_operator = bound(manifests)
    answer: dict[str, Rights] = {"operator": {}, "users": {}}
    for role in roles:
        metadata = role["metadata"]
        whose = "operator" if (role["kind"], metadata["name"], metadata.get("namespace")) in of_operator else "users"
        answer[whose][title(role)] = dict(grants(role))
    return answer


def test_the_chart_grants_what_is_written_down(
    way: str, manifests: list[Manifest], request: pytest.FixtureRequest
) -> None:
    answer = rights(manifests)

    written = RIGHTS / f"{way}.yaml"
    if request.config.getoption("--rewrite"):
        written.write_text(yaml.safe_dump(answer, sort_keys=True, width=120))
    assert parse_yaml(written.read_text()) == answer


def test_every_file_is_about_a_way_to_install() -> None:
    assert {path.stem for path in RIGHTS.iterdir()} == set(WAYS)


def test_no_right_is_a_wildcard(manifests: list[Manifest]) -> None:
    roles = [manifest for manifest in manifests if manifest["kind"] in ("ClusterRole", "Role")]
    words = [word for role in roles for right in grants(role) for word in right]

    assert len(words) > 20
    assert not [word for word in words if "*" in word]


def test_no_right_reads_secrets(manifests: list[Manifest]) -> None:
    verbs = {given.get("secrets") for given in rights(manifests)["operator"].values()}

    assert verbs - {None} == {"create patch delete"}
    assert not any("secrets" in given for given in rights(manifests)["users"].values())


def test_the_operator_can_neither_give_rights_away_nor_run_something(manifests: list[Manifest]) -> None:
    given = [right for role in rights(manifests)["operator"].values() for right in role.items()]
    verbs = {verb for _, text in given for verb in text.split()}
    resources = {what.split(".")[0] for what, _ in given}

    assert not verbs & {"bind", "escalate", "impersonate", "approve", "sign", "deletecollection"}
    assert not resources & {"pods", "pods/exec", "serviceaccounts/token", "roles", "clusterroles", "rolebindings"}


def test_in_a_namespace_the_operator_has_the_rights_that_it_has_in_the_cluster(helm4: Helm) -> None:
    """But for namespaces, of which it can only read the one by its name."""
    (everywhere, _leader) = rights(helm4.render())["operator"].values()
    there = rights(helm4.render(TWO))["operator"]
    preflight = there["ClusterRole servicelink-preflight"]

    for namespace in ("shop", "payments"):
        role = there[f"Role servicelink-operator in {namespace}"]
        assert {**role, **preflight, "namespaces": everywhere["namespaces"]} == everywhere
        assert role["namespaces"] == "get"


def test_nothing_is_cluster_wide_where_the_installer_has_rights_only_in_namespaces(helm4: Helm) -> None:
    manifests = helm4.render(*WAYS["for two namespaces, by who has rights only there"])

    assert all("namespace" in manifest["metadata"] for manifest in manifests)
    assert {manifest["metadata"]["namespace"] for manifest in manifests} == {"servicelink-system", "shop", "payments"}
