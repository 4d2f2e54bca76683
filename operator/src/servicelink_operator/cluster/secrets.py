"""Reading back a Secret of ours without any right to read Secrets.

The operator may not get, list or watch Secrets: RBAC cannot limit these to its own. It may patch, and an admission
policy of the chart lets it patch only what carries our label and type; so an empty patch as a dry run answers a Secret
of ours whole, changes nothing, and is refused for any other. Where that policy is not installed, the same test is made
on the answer here, and what is not ours is forgotten before this function ends.
"""

import asyncio
import time
from enum import Enum
from typing import Any, Final, Literal

from servicelink_core.api import names
from servicelink_operator.cluster.api import Api, Object, PatchType
from servicelink_operator.cluster.errors import ForbiddenError, InvalidError, NotFoundError
from servicelink_operator.cluster.kinds import SECRET


class Foreign(Enum):
    """There is a Secret of that name, and it is not ours; nothing else is known about it."""

    FOREIGN = "Foreign"


FOREIGN: Final = Foreign.FOREIGN


async def read_secret(api: Api, namespace: str, name: str) -> Object | Literal[Foreign.FOREIGN] | None:
    """Answer our Secret as stored, None where there is none, FOREIGN for somebody else's.

    Raises ForbiddenError where the right to patch is missing, and other ApiErrors as any request.
    """
    try:
        found = await api.patch(SECRET, namespace, name, {}, content_type=PatchType.MERGE, dry_run=True)
    except NotFoundError:
        return None
    except (ForbiddenError, InvalidError) as error:
        if error.policy is None:
            raise
        return FOREIGN
    return found if is_ours(found) else FOREIGN


def is_ours(secret: Object) -> bool:
    """Whether a Secret carries our label and the type of a binding."""
    labels: dict[str, Any] = secret["metadata"].get("labels") or {}
    return labels.get(names.MANAGED_BY) == names.MANAGER and secret.get("type") == names.BINDING_TYPE


class ReadBudget:
    """At most `per_second` guarded reads a second on average, a second's worth at once; in the order they were asked.

    Each costs the API server more than twice a get, so that a round over all Secrets is spread.
    """

    def __init__(self, per_second: float) -> None:
        assert per_second > 0
        self._per_second = per_second
        # When the bucket was, or will be, empty: one number instead of a count and the time it was counted.
        self._empty_at = time.monotonic() - 1

    async def take(self) -> None:
        """Wait until one more read may be made."""
        now = time.monotonic()
        self._empty_at = max(self._empty_at, now - 1) + 1 / self._per_second
        await asyncio.sleep(max(0.0, self._empty_at - now))
