"""What a mocked gRPC server answers: the script that takes a wire's place, in tests of applications."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from google.protobuf import json_format
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc import StatusCode

from servicelink.calls.call import CANCELLED, Outcome, Result
from servicelink.calls.flow import Send
from servicelink.errors import RemoteError
from servicelink.grpc.exchange import FINE, answered, settle
from servicelink.grpc.methods import GrpcMessage, Method
from servicelink.grpc.schema import plain_name
from servicelink.mocked_answers import is_failure
from servicelink.mocking import raised_of, result_of

# What a method answers: a message, a dictionary of its fields, or how it fails.
Answer = Any
_STATUS = {Result.TIMEOUT: StatusCode.DEADLINE_EXCEEDED, Result.REFUSED: StatusCode.UNAUTHENTICATED}


@dataclass(frozen=True, slots=True)
class RecordedRpc:
    """An attempt as the server would have seen it, without the credential; `method` is its name alone.

    `requests` are messages, `metadata` what caller and interceptors sent.
    """

    method: str
    requests: list[Any]
    metadata: Mapping[str, str | bytes] = field(repr=False)
    attempt: int

    @property
    def request(self) -> Any:
        """The request, where there is one; raises ValueError."""
        [request] = self.requests
        return request

    @property
    def json(self) -> dict[str, Any]:
        """The request as a dictionary; raises ValueError."""
        return json_format.MessageToDict(self.request, preserving_proto_field_name=True)


@dataclass(slots=True)
class GrpcTold:
    """What one method of a mocked server was told to answer, and what it was asked."""

    method: str
    always: tuple[Answer, ...] | None = None
    in_turn: list[tuple[Answer, ...]] = field(default_factory=list)
    calls: list[RecordedRpc] = field(default_factory=list)

    @property
    def has_answer(self) -> bool:
        """Whether somebody said what is next."""
        return bool(self.in_turn) or self.always is not None

    def take(self, others: str) -> tuple[Answer, ...]:
        """Answer what is next; raises AssertionError where nobody said, naming the methods of which somebody did."""
        if self.in_turn:
            return self.in_turn.pop(0)
        if self.always is None:
            step = f'say client.method("{self.method}").returns(...) first'
            raise AssertionError(f"{self.method} has no answer; {step}" + (f" (told was {others})" if others else ""))
        return self.always


class GrpcAnswers:
    """Tells what one method of a mocked server answers, and what it was asked."""

    def __init__(self, told: GrpcTold) -> None:
        self._told = told

    @property
    def calls(self) -> list[RecordedRpc]:
        """Every attempt so far."""
        return self._told.calls

    @property
    def call_count(self) -> int:
        """How many attempts were made."""
        return len(self._told.calls)

    def returns(self, *answers: Answer) -> Self:
        """Answer this from now on: a message, or a dictionary of its fields; a stream any number of them.

        An error among them, or a grpc.StatusCode, breaks the stream off there.
        """
        self._told.always = answers
        return self

    def raises(self, error: BaseException | type[BaseException] | StatusCode) -> Self:
        """Fail like this from now on: a ServiceError, a status that the server answers, or any other exception."""
        self._told.always = (error,)
        return self

    def in_turn(self, *answers: Answer) -> Self:
        """Answer these first, one after the other; each a message, a list of them for a stream, or how it fails."""
        self._told.in_turn += [tuple(one) if isinstance(one, list | tuple) else (one,) for one in answers]
        return self

    @property
    def return_value(self) -> Any:
        """The message that is answered; assigning is `returns`."""
        return None if self._told.always is None else self._told.always[0]

    @return_value.setter
    def return_value(self, answer: Answer) -> None:
        self.returns(answer)


class GrpcScript:
    """A mocked server: what it answers by method."""

    def __init__(self) -> None:
        self._told: dict[str, GrpcTold] = {}

    def told(self, method: str) -> GrpcTold:
        """Answer what a method was told, by its name in any spelling: `GetUser`, `getUser`, `get_user`."""
        return self._told.setdefault(plain_name(method), GrpcTold(method))

    @property
    def calls(self) -> list[RecordedRpc]:
        """Every attempt, of any method, by method."""
        return [call for told in self._told.values() for call in told.calls]

    def play(self, send: Send) -> "Played":
        """Take note of an attempt; answers what becomes of it. Raises what the request's serializer raises."""
        message: GrpcMessage = send.call.message
        requests: list[Any] = []
        if not message.method.kind.streams_in:
            message.method.pack(message.request)
            requests.append(message.request)
        told = self.told(message.method.name)
        others = ", ".join(one.method for one in self._told.values() if one.has_answer)
        metadata = {**dict(message.metadata), **send.call.metadata}
        told.calls.append(RecordedRpc(message.method.name, requests, metadata, send.call.attempt))
        return Played(message.method, requests, deque(told.take(others)))


@dataclass(slots=True)
class Played:
    """An attempt that is being answered."""

    method: Method
    requests: list[Any]
    answers: deque[Answer]
    problems: list[Exception] = field(default_factory=list)
    ended: Outcome | None = None

    def take(self, request: Any) -> None:
        """Take a request of a stream."""
        self.method.pack(request)
        self.requests.append(request)

    def take_written(self, data: bytes) -> None:
        """Take a request of a stream as it went out; as bytes where generated code does not tell what it is."""
        service, _, name = self.method.operation.partition("/")
        try:
            kind = GetMessageClass(Default().FindServiceByName(service).methods_by_name[name].input_type)
        except KeyError:
            self.requests.append(data)
        else:
            self.requests.append(kind.FromString(data))

    def next(self) -> Outcome:
        """Answer the next message as an outcome, or how it ends; raises what a test wants to be raised."""
        if self.ended is None:
            if self.problems:
                raise self.problems[0]
            if not self.answers:
                return self.end(FINE)
            found = self.answers.popleft()
            if is_failure(found) or isinstance(found, StatusCode):
                return self.end(_fail(found))
            return answered(_as_received(self.method, found))
        return self.ended

    def only(self) -> Outcome:
        """Answer what a call ends as that is answered once."""
        outcome = self.next()
        if self.ended is None:
            self.ended = FINE
        elif outcome is FINE:
            raise AssertionError(f"{self.method.name} answers one message, and was told none")
        return outcome

    def end(self, outcome: Outcome) -> Outcome:
        """Take note of how it ended."""
        self.ended = self.ended or outcome
        return self.ended

    @property
    def status(self) -> StatusCode:
        """The status at its end."""
        ended = self.ended or CANCELLED
        if ended is CANCELLED:
            return StatusCode.CANCELLED
        if ended.code is not None:
            return StatusCode[ended.code]
        return _STATUS.get(ended.result, StatusCode.UNAVAILABLE)


def _as_received(method: Method, answer: Answer) -> Any:
    """Answer a message as it comes out of the wire; raises AssertionError for one that no server could send."""
    kind = method.answer_type
    if isinstance(answer, Mapping):
        if kind is None:
            raise AssertionError(f"which message {method.name} answers is not known here; give it as a message")
        answer = json_format.ParseDict(dict(answer), kind())
    if isinstance(answer, Message):
        if kind is not None and answer.DESCRIPTOR.full_name != kind.DESCRIPTOR.full_name:
            raise AssertionError(
                f"{method.name} answers {kind.DESCRIPTOR.full_name}, not {answer.DESCRIPTOR.full_name}"
            )
        answer = answer.SerializeToString()
    return answer if method.deserialize is None else method.deserialize(answer)


def _fail(failure: BaseException | type[BaseException] | StatusCode) -> Outcome:
    if isinstance(failure, StatusCode):
        return _at_once(settle(failure, "as the test said", None))
    error = raised_of(failure)
    if isinstance(error, RemoteError):
        # One of a class that a test names has no gRPC code.
        status = next((one for one in StatusCode if one.value[0] == error.status), StatusCode.UNKNOWN)
        return _at_once(settle(status, str(error.body or ""), None))
    result = result_of(error)
    if result is None:
        raise error
    return Outcome(result, problem=getattr(error, "problem", "") or str(error), retry_after=0.0)


def _at_once(outcome: Outcome) -> Outcome:
    # Nobody who mocks wants to wait for the next attempt.
    return replace(outcome, retry_after=0.0)
