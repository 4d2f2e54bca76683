"""Request paths and the patterns of allow rules.

Both sides of a comparison are lists of decoded segments, so that no spelling of a path passes a rule that another
spelling of it would not. What servers and proxies read in more than one way is not resolved but refused: empty and
dot segments, an encoded slash, a backslash, a path parameter (`;`), control characters, invalid UTF-8.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

PATH_LENGTH = 8192
# More than paths have, and few enough that a stranger's longest one takes no time to speak of.
MOST_SEGMENTS = 128
PATTERN_LENGTH = 256

_LITERAL = r"[.]{0,2}[A-Za-z0-9_~!$&'()+,=:@-][A-Za-z0-9._~!$&'()+,=:@-]*|[.]{3,}[A-Za-z0-9._~!$&'()+,=:@-]*"
# The definitions of the API admit patterns by the same expression.
PATTERN = re.compile(rf"/|(/([*]|{_LITERAL}))+(/[*][*])?|/[*][*]", re.ASCII)
# RFC 3986, section 3.3.
_PCHARS = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+", re.ASCII)
# Also `%`, after decoding: whoever decodes twice would read something else.
_AMBIGUOUS = re.compile(r"[\x00-\x1f\x7f-\x9f/\\;?#%]")


class RefusedPathError(ValueError):
    """A path that could be read in more than one way; the message names the reason, not the path."""


class MalformedPatternError(ValueError):
    """A text that is no path pattern."""


@dataclass(frozen=True, slots=True)
class PathPattern:
    """Segments, of which `*` stands for exactly one; `open_end` for any number that follow, also none."""

    segments: tuple[str, ...]
    open_end: bool


def parse_path(path: str) -> tuple[str, ...]:
    """Parse the path of a request target in origin form (RFC 9112, section 3.2.1), without its query.

    Answers the decoded segments; a final slash is a last, empty segment. "/" has none. Raises RefusedPathError.
    """
    if not path.startswith("/") or len(path) > PATH_LENGTH:
        raise RefusedPathError(f"a path starts with / and has at most {PATH_LENGTH} characters")
    if path.count("/") > MOST_SEGMENTS:
        raise RefusedPathError(f"a path has at most {MOST_SEGMENTS} segments")
    if path == "/":
        return ()
    *raw, last = path[1:].split("/")
    return (*map(_parse_segment, raw), _parse_segment(last) if last else "")


def _parse_segment(raw: str) -> str:
    if not raw:
        raise RefusedPathError("an empty segment")
    if not _PCHARS.fullmatch(raw):
        raise RefusedPathError("a character that is not escaped, or a broken escape")
    try:
        segment = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RefusedPathError("escapes that are no UTF-8") from error
    if segment in {".", ".."}:
        raise RefusedPathError("a dot segment")
    if _AMBIGUOUS.search(segment):
        raise RefusedPathError("a character that servers read in different ways")
    return segment


def parse_pattern(text: str) -> PathPattern:
    """Parse a pattern of an allow rule, of the same form as the API admits; raises MalformedPatternError."""
    if len(text) > PATTERN_LENGTH or not PATTERN.fullmatch(text):
        raise MalformedPatternError(f"'{text[:PATTERN_LENGTH]}' is no path pattern")
    segments = tuple(text[1:].split("/")) if text != "/" else ()
    if segments and segments[-1] == "**":
        return PathPattern(segments[:-1], open_end=True)
    return PathPattern(segments, open_end=False)


def matches(pattern: PathPattern, segments: tuple[str, ...]) -> bool:
    """Answer whether a parsed path fits a pattern; an empty last segment (a final slash) fits only an open end."""
    fixed = pattern.segments
    if len(segments) < len(fixed) or (len(segments) > len(fixed) and not pattern.open_end):
        return False
    return all(wanted in {"*", given} and given for wanted, given in zip(fixed, segments, strict=False))
