"""What a client asks: a document, its variables, and which of its operations; told apart without a GraphQL library.

Only where definitions begin is looked at, which decides whether a call may be made twice. What is wrong inside of them
the server will say.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from servicelink.errors import ServiceError

QUERY, MUTATION = "query", "mutation"
_KINDS = frozenset({QUERY, MUTATION, "subscription"})
# GraphQL specification, section 2.1, as far as it matters here: comments and strings hold what looks like the rest.
_TOKEN = re.compile(
    r'#[^\n\r]*|"""(?:[^"\\]|\\"""|\\|"(?!""))*"""|"(?:[^"\\\n\r]|\\.)*"|([_A-Za-z][_0-9A-Za-z]*)|([{}()\[\]@])'
)
_DEPTH = {"{": 1, "(": 1, "[": 1, "}": -1, ")": -1, "]": -1, "@": 0}
# A heading that can have no name any more.
_PAST_NAME = "past its name"


@dataclass(frozen=True, slots=True)
class GraphQLOperation:
    """One operation to ask for: its document, the values of its variables, and its name where there are several."""

    document: str
    variables: Mapping[str, Any] | None = None
    operation_name: str | None = None
    kind: str = field(init=False, repr=False)
    name: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        kind, name = _choose(self.document, self.operation_name)
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "name", name)

    @property
    def title(self) -> str:
        """What logs and traces call it: its kind and its name."""
        return f"{self.kind} {self.name}".rstrip()

    def render(self) -> dict[str, Any]:
        """Answer it as a JSON object (GraphQL over HTTP, "Request Parameters")."""
        rendered: dict[str, Any] = {"query": self.document}
        if self.variables is not None:
            rendered["variables"] = dict(self.variables)
        if self.name:
            rendered["operationName"] = self.name
        return rendered


def _choose(document: str, name: str | None) -> tuple[str, str]:
    found = _operations(document)
    if name is not None:
        found = tuple(one for one in found if one[1] == name)
    if len(found) != 1:
        step = "Pass operation_name=, the name of one of them"
        what = "no operation" if not found else "several operations"
        raise ServiceError(f"the document holds {what}{f' named {name}' if name else ''}", next_step=step)
    return found[0]


@lru_cache(maxsize=256)
def _operations(document: str) -> tuple[tuple[str, str], ...]:
    """Answer kind and name of every operation; a selection that nothing announces is a query without a name."""
    found: list[tuple[str, str]] = []
    depth, heading = 0, ""
    for match in _TOKEN.finditer(document):
        # Words inside of a definition are the server's to read.
        word, mark = None if depth else match[1], match[2]
        if mark is not None:
            if mark == "{" and not depth and not heading:
                found.append((QUERY, ""))
            depth += _DEPTH[mark]
            heading = "" if mark == "}" and not depth else heading and _PAST_NAME
        elif word is not None and not heading:
            heading = word
            if word in _KINDS:
                found.append((word, ""))
        elif word is not None and heading in _KINDS and found[-1] == (heading, ""):
            found[-1] = (heading, word)
            heading = _PAST_NAME
    return tuple(found)
