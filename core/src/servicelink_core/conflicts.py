"""What keeps an addition out of a template: a name or path that the user has taken, or that nobody may set."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from servicelink_contract.binding import DEFAULT_ROOT, ROOT_VARIABLE
from servicelink_core.api.names import INJECTED, VERIFIER_ROOT, VERIFIER_VARIABLE, VOLUME_PREFIX
from servicelink_core.template import Part, Place, Record, Spot

# What a shell exports as a function, or reads as something else than a name, is none of these.
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
# Variables that change how programs start, find code or reach the network: a link must not be a way to set them. Those
# of shells and runtimes by name; and by their last word those that no key of a binding can be meant for.
RESERVED_VARIABLES = re.compile(
    r"SHELL|IFS|ENV|USER|HOSTNAME|BASH_.*|PS[0-9]|LD_.*|DYLD_.*|KUBERNETES_.*|AWS_.*|AZURE_.*|GOOGLE_.*|PYTHON.*|PIP_.*|"
    r"NODE_.*|NPM_.*|BUN_.*|DENO_.*|JAVA_.*|_JAVA_.*|JDK_.*|GRADLE_.*|PERL.*|RUBY.*|GEM_.*|BUNDLE_.*|GO(DEBUG|TRACEBACK|GC)|"
    r"DOTNET_.*|COMPLUS_.*|COR_.*|CORECLR_.*|ASPNETCORE_.*|MONO_.*|LUA_.*|ERL_.*|R_(PROFILE|ENVIRON)_.*|JULIA_.*|"
    r"MALLOC_.*|GLIBC_.*|SSL_.*|OPENSSL_.*|CURL_.*|REQUESTS_CA_BUNDLE|GIT_.*|XDG_.*|SERVICELINK_.*|SERVICE_BINDING_ROOT|"
    r".*(_PROXY|PATH|HOME|DIR|DIRS|LIB|LIBS|PRELOAD|OPTS|OPTIONS|ARGS|FLAGS|PARAM|PARAMS|INIT|RC|PROFILE|"
    r"PROFILER|ENVIRON|COMMAND|SCRIPT|STARTUP|MODULE|MODULES|PLUGIN|PLUGINS|WRAPPER|EDITOR|PAGER)"
)
# Those that the operator itself sets for the whole workload, and to what.
OWN_VARIABLES = {ROOT_VARIABLE: DEFAULT_ROOT, VERIFIER_VARIABLE: VERIFIER_ROOT}
# Where the operator itself mounts something, whatever a container says.
OWN_PATHS = re.compile(r"/etc/servicelink/(verifier|tls)/[a-z0-9][a-z0-9.-]*|/var/run/servicelink")
# A binding's folder: its link's name below the container's folder of bindings, which may not be the root itself. None
# of it is `.` or `..`, by which it would be somewhere else.
BINDING_PATHS = re.compile(r"(/[.]*[A-Za-z0-9_-][A-Za-z0-9._-]*)+/[a-z0-9][a-z0-9.-]*")
# Folders from which programs run, by which the system is set up, and in which tokens and verifiers are. A folder of
# bindings may be one of /etc, but not /etc itself, or a link named `ssl` would take its place.
RESERVED_FOLDERS = re.compile(
    r"/(bin|boot|dev|lib|lib32|lib64|libx32|proc|sbin|sys|usr|(var/)?run/(secrets|servicelink)|etc/servicelink)(/.*)?|"
    r"/etc(/[^/]*)?"
)

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
        if unfit := find_unfit(spot):
            return unfit
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


def find_unfit(spot: Spot) -> str | None:
    """Say why no link may add a variable of that name, or a mount at that path, in any template; None where one may."""
    name = spot.name
    if spot.place is Place.VARIABLE and name not in OWN_VARIABLES:
        if not VARIABLE.fullmatch(name):
            return f"variable {name} is not of capital letters, digits and _ alone; change spec.binding"
        if RESERVED_VARIABLES.fullmatch(name):
            return f"variable {name} changes how programs run, so no link may set it; change spec.binding"
    if spot.place is Place.MOUNT and not _is_place_for_bindings(name):
        where = f"container {spot.container} would have a binding at {name}"
        return f"{where}, which is no place for it; give its {ROOT_VARIABLE} another folder"
    return None


def _is_place_for_bindings(path: str) -> bool:
    if OWN_PATHS.fullmatch(path):
        return True
    return BINDING_PATHS.fullmatch(path) is not None and RESERVED_FOLDERS.fullmatch(path) is None


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
