"""The binding Secret: what a client is handed. The only place in the core through which a key's text passes."""

import datetime as dt
from collections.abc import Mapping
from typing import Any

from servicelink_contract.binding import BindingKey
from servicelink_contract.key import ApiKey
from servicelink_core.api.fields import parse_time, render_time
from servicelink_core.api.links import Link
from servicelink_core.api.names import (
    API_VERSION,
    BINDING_TYPE,
    CANDIDATE_KID,
    CANDIDATE_SHA256,
    CONTENT_HASH,
    ISSUED_AT,
    KID,
    LINK_UID,
    MANAGED_BY,
    MANAGER,
    SHA256,
    kid_secret_name,
)
from servicelink_core.render.content import content_hash
from servicelink_core.rotation import BindingFacts, SecretView

Body = dict[str, Any]


def render_issued(link: Link, content: Mapping[str, str], key: ApiKey, now: dt.datetime) -> Body:
    """Render a new binding whose key is handed out at once."""
    return _secret(link, link.binding.secret_name, {**content, **_key_data(key)}, _issued(content, key, now))


def render_candidate(link: Link, content: Mapping[str, str], key: ApiKey) -> Body:
    """Render a new binding whose key is stored and not yet handed out."""
    annotations = {CANDIDATE_KID: key.kid, CANDIDATE_SHA256: key.sha256, CONTENT_HASH: content_hash(content)}
    return _secret(link, link.binding.secret_name, {**content, BindingKey.CANDIDATE: key.text}, annotations)


def render_publication(content: Mapping[str, str], key: ApiKey, version: str, now: dt.datetime) -> Body:
    """Render the merge patch that hands out the candidate, on condition that nobody wrote since `version`."""
    annotations = {**_issued(content, key, now), CANDIDATE_KID: None, CANDIDATE_SHA256: None}
    data = {**content, **_key_data(key), BindingKey.CANDIDATE: None}
    return _patch(data, annotations, version)


def render_refresh(link: Link, content: Mapping[str, str], version: str) -> Body:
    """Render the merge patch of what is not secret: the content, and the link as the owner."""
    body = _patch(content, {CONTENT_HASH: content_hash(content)}, version)
    body["metadata"]["ownerReferences"] = [_owner(link)]
    return body


def render_reissue(content: Mapping[str, str], key: ApiKey, version: str) -> Body:
    """Render the merge patch that stores a new candidate where a binding's key is lost or revoked."""
    annotations = {CANDIDATE_KID: key.kid, CANDIDATE_SHA256: key.sha256, CONTENT_HASH: content_hash(content)}
    return _patch({**content, BindingKey.CANDIDATE: key.text}, annotations, version)


def render_takeover(link: Link, content: Mapping[str, str], key: ApiKey, version: str) -> Body:
    """Render the merge patch by which a link takes over the binding of the link of its name before it.

    The key there stays until the candidate is published, and is nobody's in the marks: it is not this link's.
    """
    body = render_reissue(content, key, version)
    body["metadata"]["annotations"] |= {LINK_UID: link.uid, KID: None, SHA256: None, ISSUED_AT: None}
    body["metadata"]["ownerReferences"] = [_owner(link)]
    return body


def render_kid_secret(link: Link, key: ApiKey) -> Body:
    """Render the Secret of one kid, which a variable of the client refers to (`delivery: Env`)."""
    name = kid_secret_name(link.binding.secret_name, key.kid)
    return _secret(link, name, _key_data(key), {KID: key.kid, SHA256: key.sha256})


def parse_facts(secret: Mapping[str, Any]) -> BindingFacts | SecretView:
    """Read what a Secret's marks say; one without them is foreign."""
    metadata = secret["metadata"]
    marks = metadata.get("annotations") or {}
    labels = metadata.get("labels") or {}
    if secret.get("type") != BINDING_TYPE or labels.get(MANAGED_BY) != MANAGER or LINK_UID not in marks:
        return SecretView.FOREIGN
    owners = [one["name"] for one in metadata.get("ownerReferences") or () if one["uid"] == marks[LINK_UID]]
    return BindingFacts(
        link_uid=marks[LINK_UID],
        resource_version=metadata["resourceVersion"],
        kid=marks.get(KID),
        sha256=marks.get(SHA256),
        issued_at=_parse_mark(marks.get(ISSUED_AT)),
        candidate_kid=marks.get(CANDIDATE_KID),
        candidate_sha256=marks.get(CANDIDATE_SHA256),
        content_hash=marks.get(CONTENT_HASH, ""),
        owner=owners[0] if owners else "",
    )


def _parse_mark(text: str | None) -> dt.datetime | None:
    """Answer the time that a mark says; None where there is none, or somebody has written something else."""
    try:
        return parse_time(text) if text else None
    except ValueError:
        return None


def _key_data(key: ApiKey) -> dict[str, str]:
    return {BindingKey.API_KEY: key.text, BindingKey.API_KEY_ID: key.kid}


def _issued(content: Mapping[str, str], key: ApiKey, now: dt.datetime) -> dict[str, str]:
    return {KID: key.kid, SHA256: key.sha256, ISSUED_AT: render_time(now), CONTENT_HASH: content_hash(content)}


def _secret(link: Link, name: str, data: Mapping[str, str], annotations: Mapping[str, str]) -> Body:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": BINDING_TYPE,
        "metadata": {
            "name": name,
            "namespace": link.namespace,
            "labels": {MANAGED_BY: MANAGER},
            "annotations": {LINK_UID: link.uid, **annotations},
            "ownerReferences": [_owner(link)],
        },
        "stringData": {str(name): value for name, value in data.items()},
    }


def _owner(link: Link) -> Body:
    return {
        "apiVersion": API_VERSION,
        "kind": "ServiceLink",
        "name": link.name,
        "uid": link.uid,
        # True would let nobody delete the link who may not set its finalizers.
        "blockOwnerDeletion": False,
    }


def _patch(data: Mapping[str, str | None], annotations: Mapping[str, str | None], version: str) -> Body:
    removed = {str(name): None for name, value in data.items() if value is None}
    given = {str(name): value for name, value in data.items() if value is not None}
    metadata = {"resourceVersion": version, "annotations": dict(annotations)}
    return {"metadata": metadata, "stringData": given, **({"data": removed} if removed else {})}
