"""The verifier's ConfigMaps: one per shard, in the server's namespace, with nothing secret in them."""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from servicelink_contract.verifier import MAX_SHARDS, Verifier, VerifierError, parse_verifier, render_verifier
from servicelink_core.api.fields import parse_time, render_time
from servicelink_core.api.links import ServiceRef
from servicelink_core.api.names import ENFORCED_SINCE, MANAGED_BY, MANAGER, VERIFIER_OF, verifier_name
from servicelink_core.rotation import StandingVerifier

Body = dict[str, Any]


def shard_key(shard: int) -> str:
    """Name a shard's key, and its file."""
    return f"shard-{shard}.json"


def render_config_maps(ref: ServiceRef, verifier: Verifier, enforced_since: dt.datetime | None) -> tuple[Body, ...]:
    """Render the ConfigMaps of a verifier, one per shard; raises ValueError where they would not hold it."""
    since = {} if enforced_since is None else {ENFORCED_SINCE: render_time(enforced_since)}
    return tuple(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": verifier_name(ref.name, shard),
                "namespace": ref.namespace,
                "labels": {MANAGED_BY: MANAGER, VERIFIER_OF: ref.name},
                "annotations": since,
            },
            "data": {shard_key(shard): text},
        }
        for shard, text in enumerate(render_verifier(verifier))
    )


def _shards_in(body: Mapping[str, Any]) -> Iterator[str]:
    data = body.get("data") or {}
    yield from (data[shard_key(shard)] for shard in range(MAX_SHARDS) if shard_key(shard) in data)


def parse_standing(shards: Iterable[Mapping[str, Any]]) -> StandingVerifier:
    """Read a verifier back from its ConfigMaps, shard 0 first; one that is not whole is no verifier."""
    bodies = list(shards)
    if not bodies:
        return StandingVerifier(None)
    since = (bodies[0]["metadata"].get("annotations") or {}).get(ENFORCED_SINCE)
    try:
        verifier = parse_verifier([text for body in bodies for text in _shards_in(body)])
    except VerifierError:
        return StandingVerifier(None)
    return StandingVerifier(verifier, parse_time(since) if since else None)
