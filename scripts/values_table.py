"""The chart's values as a table: what values.yaml says of each, its default, and what values.schema.json lets it be."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_COMMENT = re.compile(r" *# ?(?P<text>.*)")
_KEY = re.compile(r"(?P<indent> *)(?P<name>[A-Za-z]+):(?: (?P<default>.+))?")
# Spaces of one level.
_INDENT = 2
_BOUNDS = {"exclusiveMinimum": "above", "minimum": "from", "maximum": "to"}

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Value:
    """A value by its path; `default` is as written, "" for a block of values; `comment` is what stands above it."""

    path: str
    default: str
    comment: str


def parse_values(text: str) -> Iterator[Value]:
    """Answer the values that have a comment, in their order."""
    path: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        if found := _KEY.fullmatch(line):
            path[len(found["indent"]) // _INDENT :] = [found["name"]]
            if comment:
                yield Value(".".join(path), found["default"] or "", " ".join(comment))
        said = _COMMENT.fullmatch(line)
        comment = [*comment, said["text"]] if said else []


def render_values(text: str, schema: Schema) -> str:
    """Answer the table in Markdown."""
    rows = [
        (f"`{value.path}`", _type_of(value.path, schema), value.default and f"`{value.default}`", value.comment)
        for value in parse_values(text)
    ]
    lines = [("value", "type", "default", "what it is"), ("---",) * 4, *rows]
    return "".join(f"| {' | '.join(map(_escape, line))} |\n" for line in lines)


def _escape(cell: str) -> str:
    return cell.replace("|", r"\|")


def _type_of(path: str, schema: Schema) -> str:
    node = schema
    for name in path.split("."):
        node = node["properties"][name]
    return "" if "additionalProperties" in node and "properties" in node else _render_type(node, schema["definitions"])


def _render_type(node: Schema, definitions: Schema) -> str:
    if "$ref" in node:
        name = str(node["$ref"]).rpartition("/")[2]
        return {"texts": "map of strings"}.get(name, name)
    if "enum" in node:
        return " | ".join(map(str, node["enum"]))
    if node["type"] == "array":
        return f"list of {_render_type(node['items'], definitions)}s"
    bounds = " ".join(f"{word} {node[bound]}" for bound, word in _BOUNDS.items() if bound in node)
    return f"{node['type']}, {bounds}" if bounds else str(node["type"])
