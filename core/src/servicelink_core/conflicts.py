"""What keeps an addition out of a template: a name or path that the user has taken, or that nobody may set."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from servicelink_core.api.names import INJECTED, VOLUME_PREFIX
from servicelink_core.template import Part, Place, Record, Spot

# Variables that change how programs start, find code or reach the network: a link must not be a way to set them.
RESERVED_VARIABLES = re.compile(
    r"PATH|HOME|SHELL|IFS|ENV|BASH_ENV|USER|HOSTNAME|TMPDIR|LD_.*|DYLD_.*|.*_PROXY|KUBERNETES_.*|AWS_.*|AZURE_.*|"
    r"GOOGLE_.*|PYTHON.*|NODE_.*|NPM_.*|JAVA_.*|_JAVA_.*|JDK_.*|CLASSPATH|PERL.*|RUBY.*|GEM_.*|GODEBUG|GOTRACEBACK|"
    r"DOTNET_.*|COMPLUS_.*|MALLOC_.*|GLIBC_.*|SSL_.*|OPENSSL_.*|CURL_.*|REQUESTS_CA_BUNDLE|GIT_.*|SERVICELINK_.*|"
    r"SERVICE_BINDING_ROOT",
    re.IGNORECASE,
)
# Those that the operator itself sets for the whole workload.
OWN_VARIABLES = frozenset({"SERVICE_BINDING_ROOT", "SERVICELINK_VERIFIER_DIR"})

# The variables that each container takes by envFrom.
Imported = Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Ground:
    """A template to add to: what is recorded, what stands, which of it is ours, and what each container imports."""

    record: Record
    standing: Mapping[Spot, Mapping[str, Any]]
    own: frozenset[Spot]
    imported: Imported


def find_conflict(part: Part, ground: Ground) -> str | None:
    """Say what keeps a part out of a template; None where nothing does."""
    standing, own = ground.standing, ground.own
    for addition in part.additions:
        spot = addition.spot
        if spot.place is Place.VARIABLE and RESERVED_VARIABLES.fullmatch(spot.name) and spot.name not in OWN_VARIABLES:
            return f"variable {spot.name} changes how programs run, so no link may set it; change spec.binding"
        if spot.place is Place.VARIABLE and spot.name in ground.imported.get(spot.container, ()):
            return f"container {spot.container} imports {spot.name} by envFrom; set spec.binding.envPrefix"
        if spot.place is Place.MOUNT and (taken := _overlapping(spot, standing, own)):
            return f"container {spot.container} mounts {taken} where {spot.name} would go; move that mount"
        if spot in standing and spot not in own and spot.name.startswith(VOLUME_PREFIX):
            return f"the template has volume {spot.name}, which the annotation {INJECTED} does not record; take it out"
        if spot in standing and spot not in own:
            where = f"container {spot.container}" if spot.container else "the template"
            return f"{where} has a {_WORDS[spot.place]} {spot.name} of its own; rename it, or change spec.binding"
    return None


_WORDS = {Place.VARIABLE: "variable", Place.MOUNT: "mount", Place.VOLUME: "volume"}


def _overlapping(spot: Spot, standing: Mapping[Spot, Mapping[str, Any]], own: frozenset[Spot]) -> str | None:
    for other in standing:
        if other.place is not Place.MOUNT or other.container != spot.container or other in own:
            continue
        if _within(spot.name, other.name) or _within(other.name, spot.name):
            return other.name
    return None


def _within(path: str, folder: str) -> bool:
    return f"{path.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/")
