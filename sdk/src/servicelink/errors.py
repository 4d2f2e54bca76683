"""What can go wrong with a link, as one tree.

    ServiceError                    anything below; itself: the call was a mistake of its caller
    ├─ LinkConfigurationError       a server has nothing to check calls with, or cannot tell which
    ├─ LinkNotFound                 no link of that name, two of them, or one that cannot be used from here
    ├─ ServiceUnavailable           no answer: not connected, cut, or not understood
    │  └─ ServiceTimeout            no whole answer in time
    ├─ InvalidServiceAuth           the server does not take the link's credential
    ├─ PermissionDenied             it takes it, but the link's rules or the server's policy do not allow this call
    └─ RemoteError                  the application answered 4xx or 5xx, and `raise_for_status=True` was asked for

Each says which link, which operation and which request, and what to do next. None holds a credential, nor anything that
the other side sent except `RemoteError.body`, which no message shows.
"""

from typing import Any


class ServiceError(Exception):
    """A call over a link that failed.

    `link` is the link's or server's name, `operation` the method and path ("" before there was a call), `request_id`
    the value of `x-request-id` (None before), `next_step` what helps.
    """

    def __init__(
        self, problem: str, *, link: str = "", operation: str = "", request_id: str | None = None, next_step: str = ""
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.link = link
        self.operation = operation
        self.request_id = request_id
        self.next_step = next_step

    def __str__(self) -> str:
        where = " ".join(part for part in (self.link, self.operation) if part)
        text = f"{where}: {self.problem}" if where else self.problem
        text += f" (request {self.request_id})" if self.request_id else ""
        return f"{text}. {self.next_step}" if self.next_step else text


class LinkConfigurationError(ServiceError):
    """A server that could not check calls: it must not start, since it would be open or closed to everybody."""


class LinkNotFound(ServiceError):  # noqa: N818 - the name that users read in the documentation
    """No link of that name was found, more than one was, or the one found cannot be used; says what was looked for."""


class ServiceUnavailable(ServiceError):  # noqa: N818 - as above
    """No answer came. `unsent` tells that the server cannot have seen the request."""

    unsent: bool = False


class ServiceTimeout(ServiceUnavailable):
    """No whole answer came in time; the server may have acted on the request."""


class InvalidServiceAuth(ServiceError):  # noqa: N818 - as above
    """The server refused the credential (403 INVALID_SERVICE_AUTH); nothing was executed."""


class PermissionDenied(ServiceError):  # noqa: N818 - as above
    """The server refused this call of a verified link (403 PERMISSION_DENIED); nothing was executed."""


class RemoteError(ServiceError):
    """The application's own error.

    `status` is the HTTP status, `code` the `error.code` of a JSON body (else None), `body` the body as text; no message
    shows the body.
    """

    def __init__(self, status: int, code: str | None, body: str, **where: Any) -> None:
        super().__init__(f"the application answered {status}{f' {code}' if code else ''}", **where)
        self.status = status
        self.code = code
        self.body = body
