"""Carrying out the next step on a link's binding Secret: the only place where keys are made, and held for a moment.

Every step answers what the Secret says afterwards. A key's bytes stay inside one function call; they are in no log, no
error and no attribute.
"""

import base64
import datetime as dt
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from servicelink_contract.binding import BindingKey
from servicelink_contract.key import ApiKey, MalformedKeyError, parse_key, render_key
from servicelink_contract.verifier import LinkEntry
from servicelink_core.api.links import Link
from servicelink_core.api.names import kid_secret_name
from servicelink_core.link import Assessment
from servicelink_core.render.binding import (
    parse_facts,
    render_candidate,
    render_issued,
    render_kid_secret,
    render_publication,
    render_refresh,
    render_reissue,
    render_takeover,
)
from servicelink_core.render.content import content_hash, render_content
from servicelink_core.rotation import BindingFacts, SecretStep, SecretView, drop_unknown_keys, known_keys
from servicelink_operator import telemetry
from servicelink_operator.cluster.api import FIELD_MANAGER, Api, Object, PatchType
from servicelink_operator.cluster.errors import AlreadyExistsError, NotFoundError
from servicelink_operator.cluster.kinds import SECRET
from servicelink_operator.cluster.secrets import FOREIGN, read_secret

_KID_LETTERS = string.ascii_letters + string.digits
View = SecretView | BindingFacts


def draw_key() -> ApiKey:
    """Draw a key from the system's random source."""
    kid = "".join(secrets.choice(_KID_LETTERS) for _ in range(8))
    return render_key(kid, secrets.token_bytes(32))


@dataclass(frozen=True, slots=True)
class Journal:
    """A link's Secret: what is known of it, and its entry in the server's verifier, which vouches for its keys."""

    link: Link
    view: View
    entry: LinkEntry | None

    def read(self, secret: Object, new: ApiKey | None = None) -> View:
        """Answer what the Secret says, without keys that may be somebody else's; `new` was issued just now."""
        facts, known = _facts(secret), known_keys(self.view, self.entry)
        if new is not None and known is not None:
            known |= {(new.kid, new.sha256)}
        return drop_unknown_keys(facts, known) if isinstance(facts, BindingFacts) else facts


async def apply_step(api: Api, assessment: Assessment, journal: Journal, now: dt.datetime) -> View:
    """Carry out the assessment's step and answer what the Secret says then; raises ApiError."""
    link, view = assessment.link, journal.view
    assert assessment.endpoint is not None
    content = render_content(link, assessment.endpoint, assessment.posture.header)
    match assessment.step:
        case SecretStep.NONE:
            return view
        case SecretStep.READ:
            return await observe_binding(api, journal)
        case SecretStep.CREATE | SecretStep.CREATE_CANDIDATE:
            return await _issue(api, assessment, journal, content, now)
        case SecretStep.PUBLISH:
            return await _publish(api, journal, content, now)
        case SecretStep.REFRESH:
            assert isinstance(view, BindingFacts)
            return await _refresh(api, journal, view, content)
        case SecretStep.COPY_TO_KID:
            return await _copy_to_kid(api, journal)


async def observe_binding(api: Api, journal: Journal) -> View:
    """Read a link's Secret back and answer what it says, by its marks and by its bytes."""
    found = await read_secret(api, journal.link.namespace, journal.link.binding.secret_name)
    if found is None:
        return SecretView.ABSENT
    return SecretView.FOREIGN if found is FOREIGN else journal.read(found)


async def _issue(  # noqa: PLR0917 (one call's whole context)
    api: Api, assessment: Assessment, journal: Journal, content: Mapping[str, str], now: dt.datetime
) -> View:
    link, key = assessment.link, draw_key()
    if isinstance(journal.view, BindingFacts):
        return await _reissue(api, journal, journal.view, (key, content))
    at_once = assessment.step is SecretStep.CREATE
    body = render_issued(link, content, key, now) if at_once else render_candidate(link, content, key)
    try:
        created = await api.create(SECRET, link.namespace, body)
    except AlreadyExistsError:
        return await observe_binding(api, journal)
    telemetry.audit("issued", link=link.full_name, kid=key.kid, reason="Published" if at_once else "Candidate")
    return _facts(created)


async def _reissue(api: Api, journal: Journal, view: BindingFacts, new: tuple[ApiKey, Mapping[str, str]]) -> View:
    link, (key, content) = journal.link, new
    if view.link_uid == link.uid:
        body, why = render_reissue(content, key, view.resource_version), "Revoked" if view.kid else "KeyLost"
    else:
        body, why = render_takeover(link, content, key, view.resource_version), "LinkRecreated"
    reissued = await _patch(api, journal, body, key)
    telemetry.audit("issued", link=link.full_name, kid=key.kid, reason=why)
    return reissued


async def _publish(api: Api, journal: Journal, content: Mapping[str, str], now: dt.datetime) -> View:
    link = journal.link
    found = await read_secret(api, link.namespace, link.binding.secret_name)
    if found is None or found is FOREIGN:
        return SecretView.ABSENT if found is None else SecretView.FOREIGN
    key = _key_in(found, BindingKey.CANDIDATE)
    facts = journal.read(found)
    if key is None or not isinstance(facts, BindingFacts) or facts.candidate_kid != key.kid:
        return facts
    published = await _patch(api, journal, render_publication(content, key, facts.resource_version, now))
    telemetry.audit("issued", link=link.full_name, kid=key.kid, reason="Published")
    return published


async def _refresh(api: Api, journal: Journal, view: BindingFacts, content: Mapping[str, str]) -> View:
    refreshed = await _patch(api, journal, render_refresh(journal.link, content, view.resource_version))
    # The patch does not touch the Secret of the kid.
    return replace(refreshed, kid_secret=view.kid_secret) if isinstance(refreshed, BindingFacts) else refreshed


async def _copy_to_kid(api: Api, journal: Journal) -> View:
    link = journal.link
    found = await read_secret(api, link.namespace, link.binding.secret_name)
    if found is None or found is FOREIGN:
        return SecretView.ABSENT if found is None else SecretView.FOREIGN
    key, facts = _key_in(found, BindingKey.API_KEY), journal.read(found)
    if key is None or not isinstance(facts, BindingFacts) or facts.kid != key.kid:
        return facts
    try:
        await api.create(SECRET, link.namespace, render_kid_secret(link, key))
    except AlreadyExistsError:
        copy = await read_secret(api, link.namespace, kid_secret_name(link.binding.secret_name, key.kid))
        if copy is None or copy is FOREIGN or _key_in(copy, BindingKey.API_KEY) != key:
            return SecretView.FOREIGN
    return replace(facts, kid_secret=True)


async def _patch(api: Api, journal: Journal, body: dict[str, Any], new: ApiKey | None = None) -> View:
    link = journal.link
    try:
        answer = await api.patch(SECRET, link.namespace, link.binding.secret_name, body, content_type=PatchType.MERGE)
    except NotFoundError:
        return SecretView.ABSENT
    return journal.read(answer, new)


def _facts(secret: Object) -> View:
    """Answer what a Secret says; a key whose bytes or marks are not those that were issued counts as lost."""
    facts = parse_facts(secret)
    if not isinstance(facts, BindingFacts):
        return facts
    current, candidate = _own_key_in(secret, BindingKey.API_KEY), _own_key_in(secret, BindingKey.CANDIDATE)
    facts = replace(facts, content_hash=content_hash(_content_in(secret)))
    if current is None or (current.kid, current.sha256) != (facts.kid, facts.sha256) or facts.issued_at is None:
        facts = replace(facts, kid=None, sha256=None, issued_at=None)
    if candidate is None or (candidate.kid, candidate.sha256) != (facts.candidate_kid, facts.candidate_sha256):
        facts = replace(facts, candidate_kid=None, candidate_sha256=None)
    return facts


def _own_key_in(secret: Object, name: BindingKey) -> ApiKey | None:
    """Answer a key unless somebody else has written it: whoever did could have made the marks fit."""
    writers = {
        entry["manager"]
        for entry in secret["metadata"].get("managedFields") or ()
        if f"f:{name}" in (entry.get("fieldsV1") or {}).get("f:data", {})
    }
    return _key_in(secret, name) if writers <= {FIELD_MANAGER} else None


_SECRET_KEYS = (BindingKey.API_KEY, BindingKey.API_KEY_ID, BindingKey.CANDIDATE)


def _content_in(secret: Object) -> dict[str, str]:
    data: Mapping[str, str] = secret.get("data") or {}
    return {key: _decode(value) for key, value in data.items() if key not in _SECRET_KEYS}


def _key_in(secret: Object, name: BindingKey) -> ApiKey | None:
    try:
        return parse_key(_decode((secret.get("data") or {})[name]))
    except (KeyError, MalformedKeyError):
        return None


def _decode(value: str) -> str:
    return base64.b64decode(value).decode("utf-8", errors="replace")
