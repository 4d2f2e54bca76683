"""The headers of a REST call: which can be sent (RFC 9110), and what they say of its body (RFC 9112)."""

import re
from collections.abc import Iterable, Mapping

import httpx

from servicelink.calls.call import Call
from servicelink.calls.failures import where
from servicelink.calls.flow import Send
from servicelink.errors import ServiceError

DEFAULTS = {"accept": "*/*", "accept-encoding": "gzip, deflate", "user-agent": "servicelink"}
# RFC 9110, sections 5.6.2 and 5.5: a token, and a value that some server may not read otherwise.
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"([!-~\x80-\xff]([\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
_LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)
OF_BODY = frozenset({"content-length", "transfer-encoding"})
_LENGTHS = "Leave content-length out, or have it say how long the body is"

Headers = Mapping[str, str] | Iterable[tuple[str, str]]


def require_field(name: str, value: str | bytes, call: Call) -> None:
    """Raise ServiceError for a header that cannot be sent; it does not repeat the value, which may be secret."""
    if not TOKEN.fullmatch(name):
        problem = f"{name!r} is no name that a header can have (RFC 9110)"
        raise ServiceError(problem, **where(call, "Leave the header out, or name it otherwise"))
    if isinstance(value, str) and not value.isascii():
        problem = f"the header {name!r} holds characters beyond ASCII"
        raise ServiceError(problem, **where(call, "Encode its value first"))
    if not _VALUE.fullmatch(value if isinstance(value, str) else value.decode("latin-1")):
        problem = "holds a line break or another character that none may, or white space around its value"
        step = "Encode its value first, or strip it"
        raise ServiceError(f"the header {name!r} {problem}, so it cannot be sent", **where(call, step))


def with_defaults(headers: Headers, call: Call) -> httpx.Headers:
    """Answer the application's headers, and what is sent where it says nothing; raises ServiceError."""
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    for name, said in pairs:
        # Before httpx encodes them, whose error would name neither.
        if isinstance(name, str) and isinstance(said, str | bytes):
            require_field(name, said, call)
    given = httpx.Headers(pairs)
    for name, value in DEFAULTS.items():
        given.setdefault(name, value)
    return given


def beside(send: Send) -> dict[str, str | bytes]:
    """Answer what goes beside a request's own headers, in place of those of the same name: the credential as well.

    In lower case, whatever interceptors write: two spellings of one name would both be sent.
    """
    more = {name.lower(): value for name, value in send.call.metadata.items()}
    credential = send.binding.credential
    if credential is not None:
        more[credential.header.lower()] = credential.text
    return more


def frame(request: httpx.Request, call: Call) -> None:
    """Have the headers say where the body ends, whatever the application said of it.

    Headers that it passes on from a request of somebody else's say where that one ended: sent beside another body they
    make a second request of its rest (RFC 9112, section 11.2). Raises ServiceError.
    """
    headers = request.headers
    said = headers.get("content-length")
    if isinstance(request.stream, httpx.ByteStream):
        headers.pop("transfer-encoding", None)
        if said is not None:
            headers["content-length"] = str(len(request.content))
    elif said is None:
        headers["Transfer-Encoding"] = "chunked"
    elif _LENGTH.fullmatch(said):
        headers.pop("transfer-encoding", None)
    else:
        raise ServiceError(
            f"the header 'content-length' is {said!r}, which is no number of bytes", **where(call, _LENGTHS)
        )


class Measure:
    """Counts the bytes of a body in pieces, which its `content-length` may have promised."""

    __slots__ = ("_call", "_left")

    def __init__(self, call: Call) -> None:
        said = call.message.headers.get("content-length")
        self._call = call
        self._left = None if said is None else int(said)

    def count(self, piece: bytes) -> None:
        """Count a piece that is to be sent; raises ServiceError where it is more than was said."""
        if self._left is not None:
            self._left -= len(piece)
            if self._left < 0:
                raise ServiceError("the body is longer than its content-length says", **where(self._call, _LENGTHS))

    def finish(self) -> None:
        """Raise ServiceError where less came than was said."""
        if self._left:
            raise ServiceError("the body is shorter than its content-length says", **where(self._call, _LENGTHS))
