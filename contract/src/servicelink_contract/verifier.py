"""The verifier: what a server needs to check credentials, as files that hold nothing secret.

It is written in shards, `shard-0.json` to `shard-7.json`, each below the size of a ConfigMap. A shard says how many
there are and which revision of the whole it belongs to; shards of two revisions are no verifier, so that a reader in
the middle of an update keeps the last one it had. A reader refuses what it does not understand: another format, an
unknown protocol, an unknown field of a rule.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from servicelink_contract.rules import Protocol
from servicelink_contract.wire import Rule, parse_rules, rules_to_json, take

FORMAT = 1
MAX_SHARDS = 8
SHARD_BYTES = 700 * 1024


class Mode(StrEnum):
    """What a server does with a call that is not allowed: count it, or refuse it."""

    AUDIT = "Audit"
    ENFORCE = "Enforce"


class VerifierError(ValueError):
    """The shards are no verifier: incomplete, of two revisions, of another format, or malformed."""


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """An API key that is accepted: its kid, the SHA-256 of the key, since when, and until when (None: no end)."""

    kid: str
    sha256: str
    since: dt.datetime
    not_after: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class LinkEntry:
    """One link to the server.

    `link` is namespace/name, `port` the number of the Pods' port. A link has `keys` (one, or two during a rotation) or
    an `identity` (a SPIFFE ID, whose certificates are accepted if issued after `issued_after`). A call must pass
    `allow` and `cap`; None allows everything. `installation` says which installation of the kinds the link is of ("":
    not known), and `held_since` since when the entry stays although its link or consent has vanished: both are for
    whoever writes the verifier, and decide about no call.
    """

    link: str
    uid: str
    port: int
    protocol: Protocol
    keys: tuple[KeyEntry, ...] = ()
    identity: str | None = None
    issued_after: dt.datetime | None = None
    allow: tuple[Rule, ...] | None = None
    cap: tuple[Rule, ...] | None = None
    installation: str = ""
    held_since: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class Verifier:
    """All that one server needs: `service` is namespace/name, `header` where keys are read.

    `trust` holds the roots that vouch for clients' certificates, as PEM, "" where no link has one.
    """

    service: str
    mode: Mode
    header: str
    graphql_path: str
    links: tuple[LinkEntry, ...] = ()
    trust: str = ""


def render_verifier(verifier: Verifier, *, shard_bytes: int = SHARD_BYTES) -> tuple[str, ...]:
    """Render the shards (JSON), the same text for the same verifier.

    Raises ValueError when the links do not fit into eight shards of `shard_bytes`.
    """
    links = sorted(verifier.links, key=lambda entry: (entry.link, entry.uid))
    entries = [_dump(_link_to_json(entry)) for entry in links]
    head = {
        "format": FORMAT,
        "graphqlPath": verifier.graphql_path,
        "header": verifier.header,
        "mode": verifier.mode,
        "service": verifier.service,
        **({"trust": verifier.trust} if verifier.trust else {}),
    }
    revision = hashlib.sha256("\n".join((_dump(head), *entries)).encode()).hexdigest()[:16]
    room = _room(head, shard_bytes)
    groups = _fill(entries, room)
    if len(groups) > MAX_SHARDS or any(len(entry.encode()) >= room for entry in entries):
        raise ValueError(f"{len(entries)} links do not fit into {MAX_SHARDS} shards of {shard_bytes} bytes")
    whole = {**head, "of": len(groups), "revision": revision}
    return tuple(_shard({**whole, "shard": place}, group) for place, group in enumerate(groups))


def find_overflow(verifier: Verifier, *, shard_bytes: int = SHARD_BYTES) -> tuple[LinkEntry, ...]:
    """Answer the entries for which eight shards of `shard_bytes` have no room; the first of `links` are served first.

    Shards are filled in another order, so each may stay emptier than full by one entry; that much is kept free.
    """
    # Twice its length: line ends are escaped.
    if sum(map(_most_bytes, verifier.links)) + 2 * len(verifier.trust) < shard_bytes:
        return ()
    head = {"header": verifier.header, "path": verifier.graphql_path, "service": verifier.service}
    room = _room({**head, "trust": verifier.trust}, shard_bytes)
    sizes = [len(_dump(_link_to_json(entry)).encode()) + 1 for entry in verifier.links]
    left = MAX_SHARDS * (room - max((size for size in sizes if size < room), default=0))
    over = []
    for entry, size in zip(verifier.links, sizes, strict=True):
        if size >= room or size > left:
            over.append(entry)
        else:
            left -= size
    return tuple(over)


def _most_bytes(entry: LinkEntry) -> int:
    """Answer how large an entry can be at most, which is quicker than to render it."""
    return 1024 + 20_000 * (len(entry.allow or ()) + len(entry.cap or ()))


def _room(head: Mapping[str, Any], shard_bytes: int) -> int:
    return shard_bytes - len(_dump(head)) - 256


def _shard(head: dict[str, Any], entries: Sequence[str]) -> str:
    return f'{{"head":{_dump(head)},"links":[{",".join(entries)}]}}'


def parse_verifier(shards: Sequence[str]) -> Verifier:
    """Parse all shards there are, in any order; raises VerifierError unless they are one whole verifier."""
    if not shards:
        raise VerifierError("there is no shard")
    try:
        parsed = sorted((json.loads(text, object_pairs_hook=_without_twins) for text in shards), key=_place)
        head = _common_head([shard["head"] for shard in parsed])
        return Verifier(
            service=take(head, "service", str),
            mode=Mode(head["mode"]),
            header=take(head, "header", str),
            graphql_path=take(head, "graphqlPath", str),
            links=tuple(_parse_link(entry) for shard in parsed for entry in take(shard, "links", list)),
            trust=take(head, "trust", str) if "trust" in head else "",
        )
    except VerifierError:
        raise
    # RecursionError: JSON nested deeper than any verifier is.
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise VerifierError(f"malformed: {error}") from error


def _place(shard: Mapping[str, Any]) -> int:
    return take(shard["head"], "shard", int)


def _common_head(heads: list[dict[str, Any]]) -> dict[str, Any]:
    """Answer what all heads say alike; they differ in their shard's place only."""
    first = heads[0]
    if any(head["format"] != FORMAT for head in heads):
        raise VerifierError(f"the format is not {FORMAT}")
    # An unknown field may be a restriction that this release cannot honour.
    if unknown := set(first) - _HEAD_FIELDS:
        raise VerifierError(f"unknown fields of a head: {sorted(unknown)}")
    if any({**head, "shard": 0} != {**first, "shard": 0} for head in heads):
        raise VerifierError("the shards are of two revisions")
    if take(first, "of", int) != len(heads) or [head["shard"] for head in heads] != list(range(len(heads))):
        raise VerifierError(f"{len(heads)} of {first['of']} shards are there")
    return first


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two readers could take two different values of a key that stands twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise VerifierError("a key stands twice")
    return found


def _fill(entries: Sequence[str], room: int) -> list[list[str]]:
    """Deal the entries out to as few groups as their bytes need; at least one group, so that no links is a verifier."""
    groups: list[list[str]] = [[]]
    used = 0
    for entry in entries:
        size = len(entry.encode()) + 1
        if used + size > room and groups[-1]:
            groups.append([])
            used = 0
        groups[-1].append(entry)
        used += size
    return groups


def _link_to_json(entry: LinkEntry) -> dict[str, Any]:
    fields = {
        "link": entry.link,
        "uid": entry.uid,
        "port": entry.port,
        "protocol": entry.protocol,
        "keys": [_key_to_json(key) for key in entry.keys] or None,
        "identity": entry.identity,
        "issuedAfter": entry.issued_after and _time_to_json(entry.issued_after),
        "allow": None if entry.allow is None else rules_to_json(entry.allow),
        "cap": None if entry.cap is None else rules_to_json(entry.cap),
        "installation": entry.installation or None,
        "heldSince": entry.held_since and _time_to_json(entry.held_since),
    }
    return {name: value for name, value in fields.items() if value is not None}


_HEAD_FIELDS = {"format", "graphqlPath", "header", "mode", "of", "revision", "service", "shard", "trust"}
_LINK_FIELDS = {
    *("link", "uid", "port", "protocol", "keys", "identity", "issuedAfter", "allow", "cap"),
    *("installation", "heldSince"),
}


def _parse_link(entry: dict[str, Any]) -> LinkEntry:
    # An unknown field may be a restriction that this release cannot honour.
    if unknown := set(entry) - _LINK_FIELDS:
        raise VerifierError(f"unknown fields of a link: {sorted(unknown)}")
    protocol = Protocol(entry["protocol"])
    return LinkEntry(
        link=take(entry, "link", str),
        uid=take(entry, "uid", str),
        port=take(entry, "port", int),
        protocol=protocol,
        keys=tuple(_parse_key(key) for key in entry.get("keys", ())),
        identity=take(entry, "identity", str) if "identity" in entry else None,
        issued_after=_parse_time(entry["issuedAfter"]) if "issuedAfter" in entry else None,
        allow=parse_rules(protocol, entry["allow"]) if "allow" in entry else None,
        cap=parse_rules(protocol, entry["cap"]) if "cap" in entry else None,
        installation=take(entry, "installation", str) if "installation" in entry else "",
        held_since=_parse_time(entry["heldSince"]) if "heldSince" in entry else None,
    )


def _key_to_json(key: KeyEntry) -> dict[str, str]:
    fields = {"kid": key.kid, "sha256": key.sha256, "since": _time_to_json(key.since)}
    return fields if key.not_after is None else {**fields, "notAfter": _time_to_json(key.not_after)}


def _parse_key(key: dict[str, str]) -> KeyEntry:
    if unknown := set(key) - {"kid", "sha256", "since", "notAfter"}:
        raise VerifierError(f"unknown fields of a key: {sorted(unknown)}")
    not_after = _parse_time(key["notAfter"]) if "notAfter" in key else None
    return KeyEntry(take(key, "kid", str), take(key, "sha256", str), _parse_time(key["since"]), not_after)


def _time_to_json(time: dt.datetime) -> str:
    return time.astimezone(dt.UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def _parse_time(text: str) -> dt.datetime:
    return dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC)


def _dump(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
