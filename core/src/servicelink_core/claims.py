"""Claims: the variables and the Secret that a link wants to be the only one to write."""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from servicelink_core.api.links import Delivery, Inject, Link
from servicelink_core.api.names import Suffix


@dataclass(frozen=True, slots=True)
class Collision:
    """What two links both claim, and the one that keeps it."""

    what: str
    holder: Link


def variables_of(link: Link) -> tuple[str, ...]:
    """Answer the names of the variables that a link sets in its client."""
    prefix, is_env = link.binding.prefix, link.binding.delivery is Delivery.ENV
    own = [prefix + suffix for suffix in Suffix if suffix is not Suffix.API_KEY or is_env]
    return (*own, *(extra.name for extra in link.binding.extra))


def claims_of(link: Link) -> tuple[tuple[str, ...], ...]:
    """Answer keys that two links share if they can collide."""
    secret = ("secret", link.namespace, link.binding.secret_name)
    if link.binding.inject is Inject.NONE:
        return (secret,)
    client = link.client
    names = variables_of(link)
    return (secret, *(("variable", client.namespace, client.kind, client.name, name) for name in names))


def doubled_variable(link: Link) -> str | None:
    """Answer a variable that one link sets twice."""
    names = variables_of(link)
    return next((name for name in names if names.count(name) > 1), None)


def find_collision(link: Link, rivals: Iterable[Link], settled: frozenset[str]) -> Collision | None:
    """Answer what a link claims that another one holds.

    `rivals` are other links of its namespace. Those whose present spec has been accepted (`settled`, UIDs) hold what
    they claim; among the others the older one does.
    """
    for rival in sorted(rivals, key=lambda one: _rank(one, settled)):
        if rival.uid == link.uid or rival.deleting or _rank(rival, settled) > _rank(link, settled):
            continue
        what = _shared(link, rival)
        if what is not None:
            return Collision(what, rival)
    return None


def _rank(link: Link, settled: frozenset[str]) -> tuple[bool, dt.datetime, str]:
    return (link.uid not in settled, link.created, link.name)


def _shared(link: Link, rival: Link) -> str | None:
    if link.binding.secret_name == rival.binding.secret_name:
        return f"Secret {link.binding.secret_name}"
    if link.client != rival.client or Inject.NONE in (link.binding.inject, rival.binding.inject):
        return None
    if link.containers and rival.containers and not set(link.containers) & set(rival.containers):
        return None
    taken = set(variables_of(rival))
    name = next((name for name in variables_of(link) if name in taken), None)
    return None if name is None else f"variable {name}"
