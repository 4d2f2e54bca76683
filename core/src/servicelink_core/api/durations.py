"""Durations as the Gateway API writes them (GEP-2257): up to four numbers with a unit, `1h30m`, without fractions."""

import datetime as dt
import re

_FORM = re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}", re.ASCII)
_PART = re.compile(r"([0-9]+)(h|ms|m|s)", re.ASCII)
_UNITS = {
    "h": dt.timedelta(hours=1),
    "m": dt.timedelta(minutes=1),
    "s": dt.timedelta(seconds=1),
    "ms": dt.timedelta(milliseconds=1),
}


def parse_duration(text: str) -> dt.timedelta:
    """Parse a duration such as `30s` or `1h30m`; raises ValueError, which names the text."""
    if not _FORM.fullmatch(text):
        raise ValueError(f"'{text}' is no duration; write one such as 30s, 15m or 720h")
    return sum((int(number) * _UNITS[unit] for number, unit in _PART.findall(text)), dt.timedelta())


def render_duration(duration: dt.timedelta) -> str:
    """Render a duration of whole milliseconds, such as `1h30m`; nothing is `0s`."""
    rest, parts = duration, []
    for unit, length in _UNITS.items():
        count, rest = divmod(rest, length)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
