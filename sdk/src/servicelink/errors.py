"""What can go wrong with a link, as one tree.

    ServiceError                    anything below; itself: the call was a mistake of its caller
    ├─ LinkConfigurationError       a server has nothing to check calls with, or cannot tell which
    ├─ LinkNotFound                 no link of that name, two of them, or one that cannot be used from here
    ├─ ServiceUnavailable           no answer: not connected, cut, or not understood
    │  ├─ ServiceTimeout            no whole answer in time
    │  └─ CircuitOpen               not even asked: the last attempts failed
    ├─ RateLimited                  not asked: the client's own rate limit leaves no turn in time
    ├─ InvalidServiceAuth           the server does not take the link's credential
    ├─ PermissionDenied             it takes it, but the link's rules or the server's policy do not allow this call
    └─ RemoteError                  the application answered 4xx or 5xx, and `raise_for_status=True` was asked for
       └─ GraphQLError              the application answered with GraphQL errors

Each says which link, which operation and which request, and what to do next. None holds a credential, nor anything that
the other side sent except the bodies of RemoteError, which no message shows, names of codes and fields, and to where a
GraphQL server redirects. None is an error of a library: those quote what was sent.
"""

from typing import Any, Self


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
        place = " ".join(part for part in (self.link, self.operation) if part)
        text = f"{place}: {self.problem}" if place else self.problem
        text += f" (request {self.request_id})" if self.request_id else ""
        return f"{text}. {self.next_step}" if self.next_step else text

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors travel between processes; arguments given by keyword would be lost.
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[ServiceError], arguments: tuple[Any, ...], state: dict[str, Any]) -> ServiceError:
    found = kind.__new__(kind, *arguments)
    found.args = arguments
    found.__dict__.update(state)
    return found


class LinkConfigurationError(ServiceError):
    """A server that could not check calls: it must not start, since it would be open or closed to everybody."""


class LinkNotFound(ServiceError):  # noqa: N818 - the name that users read in the documentation
    """No link of that name was found, more than one was, or the one found cannot be used; says what was looked for."""


class ServiceUnavailable(ServiceError):  # noqa: N818 - as above
    """No answer came. `unsent` tells that the server cannot have seen the request."""

    unsent: bool = False

    def sent_nothing(self) -> Self:
        """Answer the error, saying that the server cannot have seen the request."""
        self.unsent = True
        return self


class ServiceTimeout(ServiceUnavailable):
    """No whole answer came in time; the server may have acted on the request."""


class CircuitOpen(ServiceUnavailable):
    """Nothing was sent: too many attempts in a row failed. `retry_after` is seconds until one is sent on trial."""

    unsent = True
    retry_after: float = 0.0


class RateLimited(ServiceError):  # noqa: N818 - as above
    """Nothing was sent: under the client's own rate limit its turn comes after its time limit."""


class InvalidServiceAuth(ServiceError):  # noqa: N818 - as above
    """The server refused the credential (403 INVALID_SERVICE_AUTH); nothing was executed."""


class PermissionDenied(ServiceError):  # noqa: N818 - as above
    """The server refused this call of a verified link (403 PERMISSION_DENIED); nothing was executed."""


class RemoteError(ServiceError):
    """The application's own error.

    `status` is the HTTP status or the number of the gRPC code, `code` the error's own name (else None), `body` the body
    as text; no message shows the body. Raises TypeError for a status that is no number.
    """

    def __init__(self, status: int, code: str | None = None, body: str = "", **place: Any) -> None:
        if not isinstance(status, int):
            # Made by hand in tests, where a text would come first as in other errors.
            name = type(self).__name__  # type: ignore[unreachable] # for whom no checker tells
            raise TypeError(f'{name} takes a status first, not {status!r}, as in {name}(404, "NOT_FOUND")')
        super().__init__(f"the application answered {status}{f' {code}' if code else ''}", **place)
        self.status = status
        self.code = code
        self.body = body


class GraphQLError(RemoteError):
    """The application answered with GraphQL errors.

    `path` leads to the field of the first of them, whose `extensions.code` is `code`; `errors` holds all as they came,
    `data` what was answered all the same. No message shows `errors` or `data`.
    """

    path: tuple[str | int, ...] = ()
    errors: tuple[dict[str, Any], ...] = ()
    data: dict[str, Any] | None = None
