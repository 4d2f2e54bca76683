"""What a mocked server answers: the script that takes a wire's place, for `servicelink.testing` and the plugin."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Self, TypeGuard, TypeVar

import httpx

from servicelink.calls.call import Outcome, Result
from servicelink.calls.flow import Send
from servicelink.errors import (
    CircuitOpen,
    GraphQLError,
    InvalidServiceAuth,
    PermissionDenied,
    RemoteError,
    ServiceError,
    ServiceTimeout,
    ServiceUnavailable,
)
from servicelink.graphql.operation import MUTATION, QUERY, GraphQLOperation
from servicelink.otel import resumed
from servicelink.rest.exchange import settle
from servicelink_contract.rules import Protocol

ANY = "*"
_FINE = 200
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
Failure = BaseException | type[BaseException]


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """An attempt as the server would have seen it, without the credential. `headers` holds what interceptors added."""

    method: str
    path: str
    params: httpx.QueryParams
    headers: httpx.Headers = field(repr=False)
    content: bytes
    attempt: int

    @property
    def json(self) -> Any:
        """The body, read as JSON; raises ValueError."""
        return json.loads(self.content)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response to come: `body` is JSON unless it is bytes or text."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def render(self, request: httpx.Request) -> httpx.Response:
        """Answer the response."""
        if isinstance(self.body, bytes | str):
            return httpx.Response(self.status, headers=self.headers, content=self.body, request=request)
        if self.body is None:
            return httpx.Response(self.status, headers=self.headers, request=request)
        return httpx.Response(self.status, headers=self.headers, json=self.body, request=request)


@dataclass(frozen=True, slots=True)
class RecordedOperation:
    """A GraphQL operation as the server would have seen it; `kind` is "query" or "mutation", `name` "" for none."""

    kind: str
    name: str
    document: str
    variables: Mapping[str, Any]
    headers: httpx.Headers = field(repr=False)
    attempt: int


C = TypeVar("C")


@dataclass(slots=True)
class Told(Generic[C]):
    """What one method of a mocked server was told to answer, and what it was asked."""

    method: str
    in_turn: list[Answer | Failure] = field(default_factory=list)
    always: dict[str, Answer | Failure] = field(default_factory=dict)
    calls: list[C] = field(default_factory=list)
    # What an error was put in the place of, for whoever takes it away again.
    before: Answer | None = None

    def take(self, path: str) -> Answer | Failure:
        """Answer what is next for a path; raises AssertionError where nobody said."""
        if self.in_turn:
            return self.in_turn.pop(0)
        found = self.always.get(path) or self.always.get(ANY)
        if found is None:
            raise AssertionError(
                f"{self.method} {path} has no answer; say client.{self.method.lower()}.returns(...) first"
            )
        return found

    def forget_effects(self) -> None:
        """Answer what was to be answered before an error was put in its place, and nothing in turn."""
        self.in_turn.clear()
        if is_failure(self.always.get(ANY)):
            del self.always[ANY]
            if self.before is not None:
                self.always[ANY] = self.before


class Recorded(Generic[C]):
    """What one method of a mocked server was asked, and how it fails."""

    def __init__(self, told: Told[C]) -> None:
        self._told = told

    @property
    def calls(self) -> list[C]:
        """Every attempt so far."""
        return self._told.calls

    @property
    def call_count(self) -> int:
        """How many attempts were made."""
        return len(self._told.calls)


class Answers(Recorded[RecordedCall]):
    """Tells what one method of a mocked server answers, and what it was asked."""

    def returns(
        self, body: Any = None, *, status: int = 200, headers: Mapping[str, str] | None = None, path: str = ANY
    ) -> Self:
        """Answer this from now on: JSON, unless it is bytes or text; only to `path`, where one is given."""
        self._told.always[path] = Answer(body, status, headers or {})
        return self

    def raises(self, error: Failure, *, path: str = ANY) -> Self:
        """Fail like this from now on: a ServiceError, one of httpx's, or any other exception."""
        found = self._told.always.get(path)
        if path == ANY and isinstance(found, Answer):
            self._told.before = found
        self._told.always[path] = error
        return self

    def in_turn(self, *answers: Any) -> Self:
        """Answer these first, one after the other: bodies, `Answer`s, or exceptions."""
        self._told.in_turn += [one if isinstance(one, Answer) or is_failure(one) else Answer(one) for one in answers]
        return self

    @property
    def return_value(self) -> Any:
        """The body that is answered; assigning is `returns`."""
        found = self._told.always.get(ANY)
        return found.body if isinstance(found, Answer) else None

    @return_value.setter
    def return_value(self, body: Any) -> None:
        self.returns(body)

    @property
    def side_effect(self) -> Any:
        """What is raised, or answered in turn; assigning an error is `raises`, a list `in_turn`, None ends both."""
        found = self._told.always.get(ANY)
        return found if is_failure(found) else list(self._told.in_turn)

    @side_effect.setter
    def side_effect(self, effect: Failure | Iterable[Any] | None) -> None:
        self._told.forget_effects()
        if is_failure(effect):
            self.raises(effect)
        elif isinstance(effect, Iterable):
            self.in_turn(*effect)
        elif effect is not None:
            raise TypeError("a side effect is an error, answers in turn, or None")


class GraphQLAnswers(Recorded[RecordedOperation]):
    """Tells what queries or mutations of a mocked server answer, and what they were asked."""

    def returns(self, data: Mapping[str, Any] | None = None, *, status: int = 200, operation: str = ANY) -> Self:
        """Answer these data from now on; only to the operation of that name, where one is given."""
        self._told.always[operation] = Answer({"data": {} if data is None else dict(data)}, status)
        return self

    def fails(
        self,
        code: str = "INTERNAL_SERVER_ERROR",
        *,
        path: Iterable[str | int] = (),
        data: Mapping[str, Any] | None = None,
        operation: str = ANY,
    ) -> Self:
        """Answer an error of the application from now on: a GraphQLError with this code, path and partial data."""
        error = {"message": "as the test said", "path": list(path), "extensions": {"code": code}}
        self._told.always[operation] = Answer({"data": data, "errors": [error]})
        return self

    def raises(self, error: Failure, *, operation: str = ANY) -> Self:
        """Fail like this from now on: a ServiceError, one of httpx's, or any other exception."""
        self._told.always[operation] = error
        return self

    def in_turn(self, *answers: Any) -> Self:
        """Answer these first, one after the other: data, `Answer`s, or exceptions."""
        self._told.in_turn += [
            one if isinstance(one, Answer) or is_failure(one) else Answer({"data": one}) for one in answers
        ]
        return self

    @property
    def return_value(self) -> Any:
        """The data that are answered; assigning is `returns`."""
        found = self._told.always.get(ANY)
        return found.body["data"] if isinstance(found, Answer) else None

    @return_value.setter
    def return_value(self, data: Mapping[str, Any]) -> None:
        self.returns(data)


class Script:
    """A mocked server: what it answers by method."""

    def __init__(self) -> None:
        self._told: dict[str, Told[RecordedCall]] = {method: Told(method) for method in METHODS}
        self._operations: dict[str, Told[RecordedOperation]] = {
            QUERY: Told("query"),
            # As the client's method is called.
            MUTATION: Told("mutate"),
        }

    def told(self, method: str) -> Told[RecordedCall]:
        """Answer what a method was told."""
        return self._told.setdefault(method, Told(method))

    def told_of(self, kind: str) -> Told[RecordedOperation]:
        """Answer what queries or mutations were told."""
        return self._operations[kind]

    @property
    def operations(self) -> list[RecordedOperation]:
        """Every attempt of a GraphQL operation, queries first."""
        return [operation for told in self._operations.values() for operation in told.calls]

    @property
    def calls(self) -> list[RecordedCall]:
        """Every attempt, of any method, by method."""
        return [call for told in self._told.values() for call in told.calls]

    def play(self, send: Send, content: bytes) -> Outcome:
        """Take note of an attempt and answer it."""
        request: httpx.Request = send.call.message
        if send.call.protocol is Protocol.GRAPHQL:
            return self._play_operations(send, content)
        told = self.told(request.method)
        told.calls.append(_record(send, request, content))
        found = told.take(request.url.path)
        if isinstance(found, Answer):
            return _settle(found, request)
        return _fail(raised_of(found), request)

    def _play_operations(self, send: Send, content: bytes) -> Outcome:
        request: httpx.Request = send.call.message
        asked = json.loads(content)
        bodies = []
        for member in asked if isinstance(asked, list) else [asked]:
            operation = GraphQLOperation(member["query"], member.get("variables"), member.get("operationName"))
            told = self.told_of(operation.kind)
            told.calls.append(_record_operation(send, operation))
            found = _graphql_answer(told.take(operation.name))
            if not isinstance(found, Answer):
                return _fail(found, request)
            if not isinstance(asked, list) or found.status != _FINE:
                return _settle(found, request)
            bodies.append(found.body)
        return _settle(Answer(bodies), request)


def _settle(answer: Answer, request: httpx.Request) -> Outcome:
    outcome = settle(answer.render(request), 0.0, 0.0)
    # Nobody who mocks wants to wait for the next attempt.
    return outcome if outcome.retry_after is not None else _at_once(outcome)


def _at_once(outcome: Outcome) -> Outcome:
    return replace(outcome, retry_after=0.0)


def _record(send: Send, request: httpx.Request, content: bytes) -> RecordedCall:
    headers = _headers(send)
    return RecordedCall(request.method, request.url.path, request.url.params, headers, content, send.call.attempt)


def _record_operation(send: Send, operation: GraphQLOperation) -> RecordedOperation:
    variables = operation.variables or {}
    return RecordedOperation(
        operation.kind, operation.name, operation.document, variables, _headers(send), send.call.attempt
    )


def _headers(send: Send) -> httpx.Headers:
    headers = httpx.Headers(send.call.message.headers)
    for name, value in send.call.metadata.items():
        headers[name] = value if isinstance(value, str) else value.decode("latin-1")
    return headers


def raised_of(failure: Failure) -> BaseException:
    """Answer the error that a test gives, or one of the class that it names; raises TypeError where there is none."""
    if not isinstance(failure, type):
        return failure
    if issubclass(failure, GraphQLError):
        return failure(_FINE, None, "")
    if issubclass(failure, RemoteError):
        return failure(500, None, "")
    try:
        return failure("as the test said") if issubclass(failure, ServiceError | httpx.HTTPError) else failure()
    except TypeError:
        raise TypeError(f"{failure.__name__} needs arguments: give an error, not its class") from None


def _graphql_answer(found: Answer | Failure) -> Answer | BaseException:
    """Answer what is answered, also where a test gives it as an error, or the error that is raised."""
    if isinstance(found, Answer):
        return found
    error = raised_of(found)
    if not isinstance(error, GraphQLError):
        return error
    extensions = {} if error.code is None else {"code": error.code}
    only = {"message": error.body or "as the test said", "path": list(error.path), "extensions": extensions}
    return Answer({"data": error.data, "errors": list(error.errors) or [only]}, error.status)


def _fail(error: BaseException, request: httpx.Request) -> Outcome:
    result = result_of(error)
    if isinstance(error, RemoteError):
        outcome = _settle(Answer(error.body, error.status), request)
        return outcome if error.code is None else replace(outcome, code=error.code)
    if result is None:
        raise error
    return Outcome(result, problem=getattr(error, "problem", "") or str(error), retry_after=0.0)


def result_of(error: BaseException) -> Result | None:
    """Answer how an attempt ends that fails with such an error; None where the error is simply raised."""
    if isinstance(error, CircuitOpen):
        return None
    kinds: tuple[tuple[type[BaseException], Result], ...] = (
        (ServiceTimeout, Result.TIMEOUT),
        (httpx.TimeoutException, Result.TIMEOUT),
        (httpx.ConnectError, Result.UNSENT),
        (httpx.TransportError, Result.CUT),
        (InvalidServiceAuth, Result.REFUSED),
        (PermissionDenied, Result.DENIED),
    )
    if isinstance(error, ServiceUnavailable) and not isinstance(error, ServiceTimeout):
        return Result.UNSENT if error.unsent else Result.CUT
    return next((result for kind, result in kinds if isinstance(error, kind)), None)


def is_failure(value: Any) -> TypeGuard[Failure]:
    """Say whether a test means that something is raised."""
    return isinstance(value, BaseException) or (isinstance(value, type) and issubclass(value, BaseException))


class MockWire:
    """Takes the place of a wire."""

    def __init__(self, script: Script) -> None:
        self._script = script

    def send(self, send: Send) -> Outcome:
        """Play one attempt."""
        with resumed():
            return self._script.play(send, send.call.message.read())

    def discard(self, outcome: Outcome) -> None:
        """Let go of a stream that has begun."""
        outcome.response.close()


class AsyncMockWire:
    """As `MockWire`, asynchronously."""

    def __init__(self, script: Script) -> None:
        self._script = script

    async def send(self, send: Send) -> Outcome:
        """Play one attempt."""
        request: httpx.Request = send.call.message
        with resumed():
            content = await request.aread() if isinstance(request.stream, httpx.AsyncByteStream) else request.read()
        return self._script.play(send, content)

    async def discard(self, outcome: Outcome) -> None:
        """Let go of a stream that has begun."""
        await outcome.response.aclose()
