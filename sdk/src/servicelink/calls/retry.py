"""When to try again: pure, with clock and chance given."""

import datetime as dt
import re
from email.utils import parsedate_to_datetime

# Seconds. The first pause is up to the first, each further one up to twice as long, none longer than the last.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
# One that is asked to wait longer than this hears the answer instead.
LONGEST_RETRY_AFTER = 60.0
_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)


def parse_retry_after(text: str | None, wall: float) -> float | None:
    """Parse `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date; `wall` is the time in seconds since 1970.

    Answers seconds from now, None for what is absent or not understood.
    """
    if text is None:
        return None
    if _SECONDS.fullmatch(text.strip()):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return max(0.0, moment.timestamp() - wall)


def pause_before(retry: int, chance: float) -> float:
    """Answer the seconds to wait before a retry (1, 2, …): anything up to a limit that doubles.

    `chance` is from 0 to 1: callers that failed together must not come back together ("full jitter").
    """
    return chance * min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (retry - 1))
