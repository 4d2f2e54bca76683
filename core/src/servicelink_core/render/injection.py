"""What a workload's template gets: as the client of a link, and as the server behind a Service.

All references are optional, so that a missing Secret never keeps a Pod from starting, and everything that later steps
need is mounted from the first patch on, so that no later feature restarts anybody.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from servicelink_contract.binding import DEFAULT_ROOT, ROOT_VARIABLE, BindingKey
from servicelink_contract.verifier import MAX_SHARDS
from servicelink_core.api.links import Delivery, Link
from servicelink_core.api.names import (
    TLS_ROOT,
    TOKEN_AUDIENCE,
    TOKEN_FOLDER,
    VERIFIER_ROOT,
    VERIFIER_VARIABLE,
    Suffix,
    digest,
    kid_secret_name,
    tls_secret_name,
    verifier_name,
    volume_name,
)
from servicelink_core.render.verifier import shard_key
from servicelink_core.resolve import Endpoint
from servicelink_core.template import Addition, Part, Place, Spot

# The API server's own default, written out so that what stands can be compared with what was added.
_FILE_MODE = 0o644
_TOKEN_SECONDS = 3600
_TOKEN_VOLUME = "slk-token"  # noqa: S105 (a volume's name)
_MOUNTED = tuple(key for key in BindingKey if key is not BindingKey.CANDIDATE)

Roots = Mapping[str, str]


def link_key(name: str) -> str:
    """Name a link's part."""
    return f"link/{name}"


def service_key(name: str) -> str:
    """Name a verifier's part."""
    return f"service/{name}"


def render_link_part(link: Link, endpoint: Endpoint, kid: str | None, roots: Roots) -> Part:
    """Render what a client's containers get; `roots` maps each of them to its folder of bindings."""
    volume = volume_name("link", link.name)
    secret = link.binding.secret_name
    key_secret = kid_secret_name(secret, kid) if link.binding.delivery is Delivery.ENV and kid else None
    additions = [_volume(volume, {"secret": _secret_source(secret, _MOUNTED)})]
    for container, root in roots.items():
        folder = f"{root.rstrip('/')}/{link.name}"
        additions.append(_mount(container, folder, volume))
        additions.extend(_variable(container, name, value) for name, value in _values(link, endpoint, folder))
        additions.extend(_reference(container, one.name, secret, one.key) for one in link.binding.extra)
        if key_secret:
            name = link.binding.prefix + Suffix.API_KEY
            additions.append(_reference(container, name, key_secret, BindingKey.API_KEY))
    inputs = (
        *(secret, key_secret, link.binding.prefix, [[one.name, one.key] for one in link.binding.extra]),
        *(endpoint.uri, endpoint.address, dict(roots)),
    )
    return Part(link_key(link.name), _hash(inputs), tuple(additions))


def render_service_part(service: str, containers: Iterable[str]) -> Part:
    """Render what the containers behind a Service get: its verifier, and the place of its own certificate."""
    names = tuple(containers)
    verifier, tls = volume_name("verifier", service), volume_name("tls", service)
    shards = [
        {
            "configMap": {
                "name": verifier_name(service, shard),
                "items": [{"key": shard_key(shard), "path": shard_key(shard)}],
                "optional": True,
            }
        }
        for shard in range(MAX_SHARDS)
    ]
    certificate = (BindingKey.TLS_CERTIFICATE, BindingKey.TLS_KEY)
    additions = [
        _volume(verifier, {"projected": {"defaultMode": _FILE_MODE, "sources": shards}}),
        _volume(tls, {"secret": _secret_source(tls_secret_name(service), certificate)}),
    ]
    for container in names:
        additions.append(_mount(container, f"{VERIFIER_ROOT}/{service}", verifier))
        additions.append(_mount(container, f"{TLS_ROOT}/{service}", tls))
    return Part(service_key(service), _hash((service, names)), tuple(additions))


def render_token_part(containers: Iterable[str]) -> Part:
    """Render the ServiceAccount token with which both ends will report (audience `servicelink`)."""
    names = tuple(containers)
    token = {"audience": TOKEN_AUDIENCE, "expirationSeconds": _TOKEN_SECONDS, "path": "token"}
    projected = {"defaultMode": _FILE_MODE, "sources": [{"serviceAccountToken": token}]}
    mounts = [_mount(container, TOKEN_FOLDER, _TOKEN_VOLUME) for container in names]
    return Part("token", _hash(names), (_volume(_TOKEN_VOLUME, {"projected": projected}), *mounts))


def render_root_part(containers: Iterable[str]) -> Part:
    """Render the variable that says where bindings are, for containers without one of their own."""
    names = tuple(containers)
    return Part("root", _hash(names), tuple(_variable(name, ROOT_VARIABLE, DEFAULT_ROOT) for name in names))


def render_verifier_part(containers: Iterable[str]) -> Part:
    """Render the variable that says where verifiers are."""
    names = tuple(containers)
    additions = tuple(_variable(name, VERIFIER_VARIABLE, VERIFIER_ROOT) for name in names)
    return Part("verifier", _hash(names), additions)


def _values(link: Link, endpoint: Endpoint, folder: str) -> tuple[tuple[str, str], ...]:
    prefix = link.binding.prefix
    return (
        (prefix + Suffix.URL, endpoint.uri),
        (prefix + Suffix.ADDRESS, endpoint.address),
        (prefix + Suffix.API_KEY_FILE, f"{folder}/{BindingKey.API_KEY}"),
    )


def _secret_source(name: str, keys: Iterable[BindingKey]) -> dict[str, Any]:
    items = [{"key": str(key), "path": str(key)} for key in keys]
    return {"secretName": name, "items": items, "defaultMode": _FILE_MODE, "optional": True}


def _volume(name: str, source: Mapping[str, Any]) -> Addition:
    return Addition(Spot(Place.VOLUME, "", name), {"name": name, **source})


def _mount(container: str, path: str, volume: str) -> Addition:
    return Addition(Spot(Place.MOUNT, container, path), {"name": volume, "mountPath": path, "readOnly": True})


def _variable(container: str, name: str, value: str) -> Addition:
    return Addition(Spot(Place.VARIABLE, container, name), {"name": name, "value": value})


def _reference(container: str, name: str, secret: str, key: str) -> Addition:
    reference = {"name": secret, "key": str(key), "optional": True}
    return Addition(Spot(Place.VARIABLE, container, name), {"name": name, "valueFrom": {"secretKeyRef": reference}})


def _hash(inputs: object) -> str:
    return digest(json.dumps(inputs, sort_keys=True))[:12]
