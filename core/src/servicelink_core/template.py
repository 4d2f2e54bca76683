"""What stands in a pod template, and which of it is ours.

An addition is one variable, mount or volume. The annotation on the workload records each addition of ours with a hash
of its body: a variable that has changed since is somebody else's now and is neither overwritten nor taken away. Volumes
whose names begin with `slk-`, and mounts of such, stay ours, and what has changed in them is put right.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from servicelink_core.api.names import INJECTED, VOLUME_PREFIX, digest
from servicelink_core.api.objects import Workload

RENDER_VERSION = 1


class Place(StrEnum):
    """Where an addition goes."""

    VARIABLE = "env"
    MOUNT = "mount"
    VOLUME = "volume"


@dataclass(frozen=True, slots=True, order=True)
class Spot:
    """Which addition: the container ("" for a volume) and the name, or the path of a mount."""

    place: Place
    container: str
    name: str

    def __str__(self) -> str:
        return f"{self.place}|{self.container}|{self.name}"


@dataclass(frozen=True, slots=True)
class Addition:
    """One variable, mount or volume, with its body as the API server will answer it (all defaults written out)."""

    spot: Spot
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """The additions of one link or verifier; `inputs` is a hash of what they were rendered from."""

    key: str
    inputs: str
    additions: tuple[Addition, ...]


@dataclass(frozen=True, slots=True)
class RecordedPart:
    """What the annotation says of a part: its inputs, and a hash per spot."""

    inputs: str
    hashes: Mapping[Spot, str]


Record = Mapping[str, RecordedPart]


def parse_record(workload: Workload) -> Record:
    """Read the annotation; one that is not understood records nothing, and what stands is then not ours."""
    try:
        parts = json.loads(workload.annotations.get(INJECTED, "{}")).get("parts", {})
        return {
            key: RecordedPart(part["i"], {_parse_spot(text): one for text, one in part["a"].items()})
            for key, part in parts.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}


def render_record(parts: Mapping[str, RecordedPart]) -> str:
    """Render the annotation, the same text for the same parts."""
    written = {
        key: {"i": part.inputs, "a": {str(spot): one for spot, one in sorted(part.hashes.items())}}
        for key, part in sorted(parts.items())
    }
    return json.dumps({"render": RENDER_VERSION, "parts": written}, separators=(",", ":"))


def record_of(part: Part) -> RecordedPart:
    """Answer what the annotation will say of a part."""
    return RecordedPart(part.inputs, {one.spot: body_hash(one.body) for one in part.additions})


def standing_bodies(workload: Workload) -> dict[Spot, Mapping[str, Any]]:
    """Answer all variables, mounts and volumes of a template."""
    return dict(_standing(workload))


def _standing(workload: Workload) -> Iterator[tuple[Spot, Mapping[str, Any]]]:
    for volume in workload.volumes:
        yield Spot(Place.VOLUME, "", volume["name"]), volume
    for container in workload.containers:
        for variable in container.get("env") or ():
            yield Spot(Place.VARIABLE, container["name"], variable["name"]), variable
        for mount in container.get("volumeMounts") or ():
            yield Spot(Place.MOUNT, container["name"], mount["mountPath"]), mount


def body_hash(body: Mapping[str, Any]) -> str:
    """Answer a short hash of an addition's body."""
    return digest(json.dumps(body, sort_keys=True))[:12]


def intact(recorded: RecordedPart, standing: Mapping[Spot, Mapping[str, Any]]) -> bool:
    """Answer whether every addition of a part stands as it was added."""
    return all(spot in standing and body_hash(standing[spot]) == one for spot, one in recorded.hashes.items())


def ours(record: Record, standing: Mapping[Spot, Mapping[str, Any]]) -> frozenset[Spot]:
    """Answer the spots that are as we added them, or can be nobody else's."""
    return frozenset(
        spot
        for part in record.values()
        for spot, one in part.hashes.items()
        if spot in standing and (_bears_our_name(spot, standing[spot]) or body_hash(standing[spot]) == one)
    )


def _bears_our_name(spot: Spot, body: Mapping[str, Any]) -> bool:
    return spot.place is not Place.VARIABLE and str(body["name"]).startswith(VOLUME_PREFIX)


def _parse_spot(text: str) -> Spot:
    place, container, name = text.split("|", 2)
    return Spot(Place(place), container, name)
