"""One GraphQL call: a POST with one operation or a batch, and what its answer means. Free of I/O.

By the GraphQL over HTTP specification (a draft). Errors of the application are answers, as 4xx and 5xx are: they raise,
and speak against nobody's health.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx

from servicelink.binding import Binding
from servicelink.calls.call import Call, Outcome, Result
from servicelink.calls.failures import remote_error, wants_failure, where
from servicelink.calls.options import CallOptions
from servicelink.errors import GraphQLError, ServiceError, ServiceUnavailable
from servicelink.graphql.operation import QUERY, GraphQLOperation
from servicelink.rest.exchange import FIRST_ERROR, RestExchange, code_of, no_address, text_of
from servicelink.rest.fields import Headers
from servicelink.rest.values import tell_unsendable
from servicelink_contract.rules import Protocol

DEFAULT_PATH = "/graphql"
_TYPES = {"content-type": "application/json", "accept": "application/graphql-response+json, application/json;q=0.9"}
# What of an answer's path a message may repeat: names, as the specification has them.
_NAME = re.compile(r"[_A-Za-z][_0-9A-Za-z]{0,63}", re.ASCII)
# Characters of where a redirect leads that a message may repeat.
_LONGEST_PLACE = 200
_ELSEWHERE = "See whether GraphQL is served there; else say its path in the address, or with path= where that has none"


@dataclass(frozen=True, slots=True)
class GraphQLAnswer:
    """What one operation of a batch answered: `data` (None: nothing), and `error` where there were errors."""

    data: dict[str, Any] | None
    error: GraphQLError | None

    def unwrap(self) -> dict[str, Any]:
        """Answer the data; raises the GraphQLError."""
        if self.error is not None:
            raise self.error
        assert self.data is not None, "an answer without errors has data"
        return self.data


class GraphQLExchange(RestExchange):
    """A call with these operations, which are one batch where `is_batch`."""

    __slots__ = ("_is_batch", "_operations", "_path", "_read")

    def __init__(
        self,
        operations: Sequence[GraphQLOperation],
        options: CallOptions,
        *,
        path: str = DEFAULT_PATH,
        headers: Headers | None = None,
        is_batch: bool = False,
    ) -> None:
        self._operations = tuple(operations)
        self._is_batch = is_batch
        self._path = path
        # A response, and what its body says.
        self._read: tuple[httpx.Response, Any] | None = None
        said = [] if headers is None else list(headers.items() if isinstance(headers, Mapping) else headers)
        named = {name.lower() for name, _ in said}
        said += [(name, value) for name, value in _TYPES.items() if name not in named]
        super().__init__("POST", "", options, headers=said, content={"content": self._render()})

    def _render(self) -> bytes:
        rendered = [one.render() for one in self._operations]
        try:
            return json.dumps(rendered if self._is_batch else rendered[0], allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            reason, step = tell_unsendable(error)
            problem = f"variables cannot be sent: {reason}"
            raise ServiceError(problem, operation=self._title, next_step=step) from None

    @property
    def _title(self) -> str:
        return f"batch of {len(self._operations)}" if self._is_batch else self._operations[0].title

    def open(self, binding: Binding, deadline: float, timeout: float) -> Call:
        """Address the call; raises ServiceError for headers that cannot be sent."""
        self._url = self._address(binding)
        call = super().open(binding, deadline, timeout)
        call.protocol = Protocol.GRAPHQL
        call.operation = self._title
        if self.options.idempotent is None:
            call.idempotent = all(one.kind == QUERY for one in self._operations)
        return call

    def _address(self, binding: Binding) -> httpx.URL:
        """Answer the binding's own address; one without a path, as people set it in variables, gets the usual one."""
        try:
            url = httpx.URL(binding.uri)
        except httpx.InvalidURL:
            raise no_address(binding) from None
        return url if url.path not in {"", "/"} else url.copy_with(path=self._path)

    def complete(self, outcome: Outcome) -> Outcome:
        """Answer the outcome with the code of its first GraphQL error, for interceptors."""
        if outcome.code is not None or outcome.response is None:
            return outcome
        found = self._parse(outcome.response)
        members = found if self._is_batch and isinstance(found, list) else [found]
        errors = (member["errors"][0] for member in members if _is_answer(member) and member.get("errors"))
        code = next(filter(None, map(_code, errors)), None)
        return outcome if code is None else replace(outcome, code=code)

    def _parse(self, response: httpx.Response) -> Any:
        """Answer what a body says, parsed once; None for what is no JSON."""
        if self._read is None or self._read[0] is not response:
            self._read = response, _parse(response)
        return self._read[1]

    def answers(self, call: Call, outcome: Outcome) -> list[GraphQLAnswer]:
        """Answer what each operation answered; raises ServiceError where there is no such answer."""
        failure = wants_failure(call, outcome)
        if failure is not None:
            raise failure
        response: httpx.Response = outcome.response
        found = self._parse(response)
        members = found if self._is_batch and isinstance(found, list) else [found]
        if not all(map(_is_answer, members)):
            raise _no_answer(outcome, call)
        answers = [_answer(member, response, call) for member in members]
        if len(answers) != len(self._operations):
            # A server that knows no batches answers one error for all of them.
            raise answers[0].error or _no_answer(outcome, call)
        return answers


class SingleExchange(GraphQLExchange):
    """A call with one operation."""

    def conclude(self, call: Call, outcome: Outcome) -> Any:
        """Answer the data, or raise a ServiceError."""
        [answer] = self.answers(call, outcome)
        return answer.unwrap()


class BatchExchange(GraphQLExchange):
    """A call with a batch."""

    def conclude(self, call: Call, outcome: Outcome) -> Any:
        """Answer what each operation answered, or raise a ServiceError."""
        return self.answers(call, outcome)


def _parse(response: httpx.Response) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def _is_answer(member: Any) -> bool:
    if not isinstance(member, dict) or not isinstance(member.get("data"), dict | None):
        return False
    errors = member.get("errors")
    if errors is None:
        return member.get("data") is not None
    return isinstance(errors, list) and bool(errors) and all(isinstance(one, dict) for one in errors)


def _no_answer(outcome: Outcome, call: Call) -> ServiceError:
    response: httpx.Response = outcome.response
    status, asked = response.status_code, call.message.url.raw_path.partition(b"?")[0].decode("ascii")
    if status >= FIRST_ERROR:
        error = remote_error(call, status, outcome.code, text_of(response))
        if outcome.result is Result.ANSWERED:
            error.next_step = _ELSEWHERE
        _tell(error, f"{error.problem} for {asked}, without a GraphQL answer")
        return error
    place = _leads_to(response, call)
    if place is not None:
        problem = f"{asked} answered {status}, a redirect to {place}, which is not followed"
        step = "Say where GraphQL is served in the address, or its path with path= where the address has none"
        return ServiceUnavailable(problem, **where(call, step))
    problem = f"what {asked} answered ({status}) is no answer to a GraphQL request"
    return ServiceUnavailable(problem, **where(call, _ELSEWHERE))


def _leads_to(response: httpx.Response, call: Call) -> str | None:
    """Answer where a redirect leads, without what may be a secret of it; None for what is none."""
    if not response.has_redirect_location:
        return None
    asked: httpx.URL = call.message.url
    try:
        found = asked.join(response.headers["location"]).copy_with(query=None, fragment=None)
    except (httpx.InvalidURL, UnicodeError):
        return "what is no URL"
    path = found.raw_path.decode("ascii")
    is_here = (found.scheme, found.netloc) == (asked.scheme, asked.netloc)
    place = path if is_here else f"{found.scheme}://{found.netloc.decode('ascii')}{path}"
    return place if len(place) <= _LONGEST_PLACE else f"{place[:_LONGEST_PLACE]}..."


def _tell(error: ServiceError, problem: str) -> None:
    """Give an error other words, which its `repr` shows, too."""
    error.problem = problem
    error.args = (problem,)


def _answer(member: dict[str, Any], response: httpx.Response, call: Call) -> GraphQLAnswer:
    data, errors = member.get("data"), member.get("errors")
    if errors is None:
        return GraphQLAnswer(data, None)
    step = "Its attribute errors holds what the server says"
    error = GraphQLError(response.status_code, _code(errors[0]), text_of(response), **where(call, step))
    error.path = _path(errors[0])
    error.errors = tuple(errors)
    error.data = data
    _tell(error, _problem(error))
    return GraphQLAnswer(data, error)


def _problem(error: GraphQLError) -> str:
    code = f" {error.code}" if error.code else ""
    place = f" at {'.'.join(map(str, error.path))}" if error.path else ""
    more = f", and {len(error.errors) - 1} more" if len(error.errors) > 1 else ""
    return f"the application answered an error{code}{place}{more}"


def _code(error: dict[str, Any]) -> str | None:
    extensions = error.get("extensions")
    return code_of(extensions.get("code")) if isinstance(extensions, dict) else None


def _path(error: dict[str, Any]) -> tuple[str | int, ...]:
    path = error.get("path")
    if not isinstance(path, list) or not all(isinstance(one, int) or _is_name(one) for one in path):
        return ()
    return tuple(path)


def _is_name(one: Any) -> bool:
    return isinstance(one, str) and bool(_NAME.fullmatch(one))
