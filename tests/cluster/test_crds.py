"""The API server answers bad links and policies itself, naming field, value and mend; good ones stay as they were sent.

A bad manifest says in its first lines which field the API server must name and what it must say. Where it holds two
documents, the first is a good one and the second a change that must be refused.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster.testing import Client, CommandFailedError

HERE = Path(__file__).parent
CRDS = Path(__file__).parents[2] / "crds"
BAD = sorted((HERE / "bad").glob("*/*.yaml"))
HEADER = re.compile(r"# field: (?P<field>.*)\n# says: (?P<says>.*)\n")


@pytest.fixture(scope="module")
def crds(control_plane: Client) -> Client:
    control_plane.kubectl("apply", f"--filename={CRDS}")
    control_plane.kubectl("wait", f"--filename={CRDS}", "--for=condition=Established", "--timeout=30s")
    return control_plane


def refusal(client: Client, documents: list[str]) -> str:
    for document in documents[:-1]:
        client.apply(document)
    with pytest.raises(CommandFailedError) as refused:
        client.kubectl("replace" if documents[:-1] else "create", "--filename=-", stdin=documents[-1])
    for document in documents[:-1]:
        client.kubectl("delete", "--filename=-", stdin=document)
    return refused.value.stderr


@pytest.mark.parametrize("path", BAD, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_bad_manifest_is_refused_with_field_and_mend(crds: Client, path: Path) -> None:
    text = path.read_text()
    header = HEADER.match(text)
    assert header, "the first two lines say the field and the message"

    said = refusal(crds, text.split("---\n"))

    assert f"{header['field']}:" in said
    assert header["says"] in said


@pytest.mark.parametrize("side", ["--server-side=false", "--server-side"])
@pytest.mark.parametrize("path", sorted((HERE / "good").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_good_manifest_is_taken_and_differs_in_nothing_afterwards(
    crds: Client, namespace: str, path: Path, side: str
) -> None:
    """What Git holds and what the cluster holds agree: `kubectl diff` ends with 1 at any difference."""
    where = (f"--filename={path}", f"--namespace={namespace}", side)
    crds.kubectl("apply", *where)

    assert crds.kubectl("diff", *where) == ""


def test_a_new_link_never_looks_finished(crds: Client, namespace: str) -> None:
    """Kstatus takes an object whose observedGeneration is its generation, or absent, for finished."""
    crds.apply((HERE / "good" / "servicelink.yaml").read_text(), f"--namespace={namespace}")

    link = crds.kubectl_json("get", "slink", "small", f"--namespace={namespace}")

    assert link["status"] == {"observedGeneration": -1}


def test_what_is_left_out_of_a_link_is_filled_in(crds: Client, namespace: str) -> None:
    crds.apply((HERE / "good" / "servicelink.yaml").read_text(), f"--namespace={namespace}")

    spec = crds.kubectl_json("get", "slink", "small", f"--namespace={namespace}")["spec"]

    assert spec["credential"] == {"type": "APIKey"}
    assert spec["rotation"] == {"schedule": "Interval", "interval": "720h", "overlap": "15m", "retire": "WhenUnused"}
    assert spec["binding"] == {"delivery": "Files", "inject": "Patch"}
    assert spec["suspend"] is False


def test_links_are_found_by_client_server_and_protocol(crds: Client, namespace: str) -> None:
    crds.apply((HERE / "good" / "servicelink.yaml").read_text(), f"--namespace={namespace}")

    def found(selector: str) -> str:
        return crds.kubectl(
            "get", "servicelinks", f"--namespace={namespace}", f"--field-selector={selector}", "--output=name"
        )

    assert found("spec.client.name=report").split() == ["servicelink.servicelink.dev/small"]
    assert found("spec.server.name=payments,spec.protocol=REST").split() == ["servicelink.servicelink.dev/whole"]
    assert "small" in crds.kubectl("get", "servicelink", f"--namespace={namespace}")


def test_an_emptied_allow_from_a_template_is_refused(crds: Client) -> None:
    """`allow: null` is pruned, and a `rest` block without `allow` must not mean the whole service."""
    link = {
        "apiVersion": "servicelink.dev/v1alpha1",
        "kind": "ServiceLink",
        "metadata": {"name": "emptied"},
        "spec": {
            "client": {"kind": "Deployment", "name": "a"},
            "server": {"name": "b"},
            "protocol": "REST",
            "rest": {"allow": None},
        },
    }

    assert "spec.rest.allow: Required value" in refusal(crds, [yaml.safe_dump(link)])


def definitions() -> list[dict[str, Any]]:
    return [yaml.safe_load(path.read_text()) for path in sorted(CRDS.glob("*.yaml"))]


def schemas(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Answer every schema below that one, with its path."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from schemas(child, f"{path}.{name}")
    if "items" in node:
        yield from schemas(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from schemas(node["additionalProperties"], f"{path}{{}}")


ALL = [
    (definition["spec"]["names"]["kind"], path, schema)
    for definition in definitions()
    for path, schema in schemas(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    if path not in {".apiVersion", ".kind", ".metadata"}
]


def test_every_field_is_described() -> None:
    named = [(kind, path, schema) for kind, path, schema in ALL if not path.endswith(("[]", "{}"))]
    bare = [f"{kind}{path}" for kind, path, schema in named if "description" not in schema]

    assert not bare


def test_every_list_and_string_is_bounded() -> None:
    loose = [
        f"{kind}{path}"
        for kind, path, schema in ALL
        if (schema.get("type") == "array" and ("maxItems" not in schema or "x-kubernetes-list-type" not in schema))
        or (schema.get("type") == "string" and "maxLength" not in schema and "enum" not in schema)
        or ("additionalProperties" in schema and "maxProperties" not in schema)
    ]

    assert not loose


def test_no_default_stands_inside_a_list() -> None:
    """It would be filled into what Git holds, and show as a difference for ever."""
    assert not [f"{kind}{path}" for kind, path, schema in ALL if "[]" in path and "default" in schema]


def test_every_rule_says_in_a_message_what_mends_it() -> None:
    rules = [rule for _, _, schema in ALL for rule in schema.get("x-kubernetes-validations", [])]

    assert len(rules) > 30
    assert all(len(rule["message"]) > 20 for rule in rules)


@pytest.mark.parametrize("path", sorted(CRDS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_definition_stays_under_100_kib(path: Path) -> None:
    """Past that, an annotation of kubectl's client-side apply does not fit."""
    assert len(path.read_bytes()) < 100 * 1024


def refused_fields() -> list[tuple[str, str, str]]:
    """Answer kind, field (list indices left out) and message of every bad manifest."""
    found = []
    for path in BAD:
        header = HEADER.match(path.read_text())
        assert header
        found.append((path.parent.name, re.sub(r"\[\d+\]", "[]", f".{header['field']}".rstrip(".")), header["says"]))
    return found


def pieces(rule: dict[str, str]) -> list[str]:
    """Answer how the literal pieces of what a rule says begin, without the values that an expression puts between."""
    texts = [rule["message"], *re.split(r"['\"]", rule.get("messageExpression", ""))]
    return [text.strip()[:16] for text in texts if len(text.strip()) > 8]


def test_every_rule_has_a_manifest_that_it_refuses() -> None:
    rules = [
        (kind.lower(), path + rule.get("fieldPath", ""), pieces(rule))
        for kind, path, schema in ALL
        for rule in schema.get("x-kubernetes-validations", [])
    ]

    missing = [
        f"{kind}{place}: {texts[0]}"
        for kind, place, texts in rules
        if not any(
            (kind, place) == (its_kind, field) and any(text in says for text in texts)
            for its_kind, field, says in refused_fields()
        )
    ]

    assert not missing
