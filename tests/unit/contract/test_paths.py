"""Paths are judged by their decoded segments; what could be read in two ways is refused."""

import re
from pathlib import Path
from typing import Any

import pytest
from yamls import parse_yaml

from servicelink_contract.paths import (
    PATTERN,
    MalformedPatternError,
    RefusedPathError,
    matches,
    parse_path,
    parse_pattern,
)

CRDS = Path(__file__).parents[3] / "crds"


@pytest.mark.parametrize(
    ("path", "segments"),
    [
        ("/", ()),
        ("/v1", ("v1",)),
        ("/v1/charges/42", ("v1", "charges", "42")),
        ("/v1/", ("v1", "")),
        ("/v1/caf%C3%A9", ("v1", "café")),
        ("/%61dmin", ("admin",)),
        ("/a%20b", ("a b",)),
        ("/a.b/..c/d..", ("a.b", "..c", "d..")),
        ("/a:b@c,d=e+f!g$h&i'j(k)l*m~n_o-p", ("a:b@c,d=e+f!g$h&i'j(k)l*m~n_o-p",)),
    ],
)
def test_an_ordinary_path_is_its_decoded_segments(path: str, segments: tuple[str, ...]) -> None:
    assert parse_path(path) == segments


@pytest.mark.parametrize(
    "path",
    [
        "",
        "v1",
        "*",
        "http://payments/v1",
        "//",
        "//v1",
        "/v1//charges",
        "/./v1",
        "/v1/..",
        "/v1/../admin",
        "/v1/%2e%2e/admin",
        "/v1/.%2E/admin",
        "/v1%2fcharges",
        "/v1%2Fcharges",
        "/v1\\charges",
        "/v1%5ccharges",
        "/v1;x=1/charges",
        "/v1%3bx",
        "/v1%00",
        "/v1%0d%0aHost:x",
        "/v1 charges",
        "/v1\tcharges",
        "/v1?x=1",
        "/v1%3fx",
        "/v1#x",
        "/v1/%252e%252e",
        "/v1/%",
        "/v1/%2",
        "/v1/%zz",
        "/v1/%ff",
        "/v1/%c0%ae%c0%ae",
        "/v1/%ed%a0%80",
        "/caf\u00e9",
        "/" + "a" * 8192,
    ],
)
def test_a_path_with_two_readings_is_refused(path: str) -> None:
    with pytest.raises(RefusedPathError):
        parse_path(path)


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("/", "/", True),
        ("/", "/v1", False),
        ("/**", "/", True),
        ("/**", "/v1/charges/", True),
        ("/v1", "/v1", True),
        ("/v1", "/v1/", False),
        ("/v1", "/V1", False),
        ("/v1", "/v1/charges", False),
        ("/v1/*", "/v1/charges", True),
        ("/v1/*", "/v1", False),
        ("/v1/*", "/v1/", False),
        ("/v1/*", "/v1/charges/42", False),
        ("/v1/*/refund", "/v1/42/refund", True),
        ("/v1/*/refund", "/v1/42/43/refund", False),
        ("/v1/**", "/v1", True),
        ("/v1/**", "/v1/charges/42", True),
        ("/v1/**", "/v2", False),
        ("/v1/*/**", "/v1", False),
        ("/v1/*/**", "/v1/charges", True),
        ("/v1/*", "/v1/%2a", True),
        ("/admin", "/%61dmin", True),
    ],
)
def test_a_pattern_fits_whole_segments(pattern: str, path: str, *, fits: bool) -> None:
    assert matches(parse_pattern(pattern), parse_path(path)) is fits


def test_a_star_in_a_path_is_no_wildcard() -> None:
    """Only a pattern's star stands for something else."""
    assert not matches(parse_pattern("/v1/charges"), parse_path("/v1/*"))


@pytest.mark.parametrize(
    "text", ["", "v1", "//", "/a//b", "/a/", "/a*", "/**/b", "/../x", "/./x", "/%2e", "/a?b", "/a;b", "/é"]
)
def test_another_text_is_no_pattern(text: str) -> None:
    with pytest.raises(MalformedPatternError):
        parse_pattern(text)


def path_schema(definition: str, *way: str) -> Any:
    """Answer the schema of one path pattern; `way` leads from the spec to the block `rest`."""
    node = parse_yaml((CRDS / f"servicelink.dev_{definition}.yaml").read_text())
    node = node["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    for name in (*way, "rest", "allow", "paths"):
        node = node["properties"][name]
        node = node.get("items", node)
    return node


def test_the_api_admits_exactly_the_patterns_that_are_parsed() -> None:
    link, cap = path_schema("servicelinks"), path_schema("servicelinkpolicies", "allowFrom")

    admitted = re.search(r'"\^\((.*)\)\$"', link["x-kubernetes-validations"][0]["rule"])

    assert admitted
    assert admitted[1] == PATTERN.pattern
    assert cap["pattern"] == f"^({PATTERN.pattern})$"
