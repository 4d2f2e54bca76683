"""Values that an application gives and that cannot be sent, told without repeating them: they may be secret."""

from collections.abc import Mapping
from typing import Any

import httpx


def find_unsendable(content: Mapping[str, Any]) -> tuple[str, str] | None:
    """Answer which of httpx.Request's arguments cannot be sent and why, and what helps.

    None where it is not its value: what is of a wrong type is for Python's own TypeError, except in `json`.
    """
    for name, value in content.items():
        try:
            httpx.Request("POST", "http://localhost", **{name: value})
        except (UnicodeError, RecursionError, httpx.InvalidURL) as error:
            reason, step = tell_unsendable(error)
        except (TypeError, ValueError) as error:
            if name != "json":
                return None
            reason, step = tell_unsendable(error)
        else:
            continue
        return f"{name}= cannot be sent: {reason}", step
    return None


def tell_unsendable(error: Exception) -> tuple[str, str]:
    """Answer why a value cannot be sent, and what helps, by the error of whatever was to encode it."""
    match error:
        case RecursionError():
            return "it is nested too deep", "Pass it flatter"
        case UnicodeError():
            step = 'Replace it, as text.encode(errors="replace").decode() does'
            return "it holds half of a character (a lone surrogate), or bytes that are no text", step
        case httpx.InvalidURL():
            return "the URL gets too long", "Send what is long in the body"
        case _:
            step = "Pass what JSON has: text, numbers, true, false, null, lists and objects"
            return f"it is no JSON: {error}", step
