"""The strategic merge patch that brings a workload's template to its parts.

Not server-side apply: a container whose fields have two owners survives its own removal by the user, without an image,
and the user's next deploy is refused. What a merge patch adds vanishes cleanly, and `kubectl diff` stays empty.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from servicelink_core.api.names import INJECTED, MANAGED
from servicelink_core.api.objects import TEMPLATE_PATHS, Workload
from servicelink_core.template import (
    Part,
    Place,
    Record,
    RecordedPart,
    Spot,
    ours,
    record_of,
    render_record,
    standing_bodies,
)

# The field by which the API server merges each list (patchMergeKey of the Pod's type).
_MERGE_KEYS = {Place.VOLUME: "name", Place.VARIABLE: "name", Place.MOUNT: "mountPath"}
_OTHER_MOUNT_FIELDS = dict.fromkeys(("subPath", "subPathExpr", "mountPropagation", "recursiveReadOnly"))
_LISTS = {Place.VARIABLE: "env", Place.MOUNT: "volumeMounts"}


def render_patch(
    workload: Workload, record: Record, kept: Mapping[str, RecordedPart], fresh: Iterable[Part]
) -> dict[str, Any] | None:
    """Render the patch that adds `fresh` parts, leaves `kept` ones and takes out what else the record names.

    None where nothing is to be done.
    """
    parts = list(fresh)
    wanted = {**kept, **{part.key: record_of(part) for part in parts}}
    if not parts and wanted == dict(record) and (MANAGED in workload.labels) == bool(wanted):
        return None
    written = {one.spot: one.body for part in parts for one in part.additions}
    staying = {spot for part in wanted.values() for spot in part.hashes}
    own = ours(record, standing_bodies(workload))
    removed = {spot for part in record.values() for spot in part.hashes if spot in own and spot not in staying}
    patch: dict[str, Any] = {
        "metadata": {
            "resourceVersion": workload.resource_version,
            "annotations": {INJECTED: render_record(wanted) if wanted else None},
            "labels": {MANAGED: "true" if wanted else None},
        }
    }
    template = _render_template(written, removed)
    if template:
        place = patch
        for step in TEMPLATE_PATHS[workload.ref.kind]:
            place = place.setdefault(step, {})
        place["spec"] = template
    return patch


def _render_template(written: Mapping[Spot, Mapping[str, Any]], removed: Iterable[Spot]) -> dict[str, Any]:
    spec: dict[str, Any] = {}
    containers: dict[str, dict[str, Any]] = {}
    items = [*((spot, _whole(spot, body)) for spot, body in written.items()), *((s, _deletion(s)) for s in removed)]
    for spot, body in sorted(items, key=lambda item: item[0]):
        if spot.place is Place.VOLUME:
            spec.setdefault("volumes", []).append(body)
        else:
            container = containers.setdefault(spot.container, {"name": spot.container})
            container.setdefault(_LISTS[spot.place], []).append(body)
    return {**spec, "containers": list(containers.values())} if containers else spec


def _whole(spot: Spot, body: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a body that replaces what stands: a merge alone would keep the fields of another kind of source."""
    match spot.place:
        case Place.VOLUME:
            return {"$retainKeys": list(body), **body}
        case Place.VARIABLE:
            return {"value": None, "valueFrom": None, **body}
        case Place.MOUNT:
            return {**_OTHER_MOUNT_FIELDS, **body}


def _deletion(spot: Spot) -> dict[str, Any]:
    return {"$patch": "delete", _MERGE_KEYS[spot.place]: spot.name}
