"""A mocked server: the script that takes a wire's place, for `servicelink.testing` and the plugin."""

import json
from dataclasses import replace

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
from servicelink.mocked_answers import METHODS, Answer, Failure, RecordedCall, RecordedOperation, Told
from servicelink.otel import resumed
from servicelink.rest.exchange import settle
from servicelink_contract.rules import Protocol

_FINE = 200


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
