"""What a test says that a mocked server answers, and what it sees of the calls."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeGuard, TypeVar

import httpx

ANY = "*"
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
                f"{self.method} {path}".rstrip()
                + f" has no answer; say client.{self.method.lower()}.returns(...) first"
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

    def returns(
        self,
        data: Mapping[str, Any] | None = None,
        *,
        errors: Iterable[Mapping[str, Any]] = (),
        status: int = 200,
        operation: str = ANY,
    ) -> Self:
        """Answer these data from now on; only to the operation of that name, where one is given.

        With `errors`, as GraphQL has them, that raises GraphQLError; `fails` makes one.
        """
        body: dict[str, Any] = {"data": {} if data is None else dict(data)}
        if failed := [dict(error) for error in errors]:
            body = {"data": data, "errors": failed}
        self._told.always[operation] = Answer(body, status)
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


def is_failure(value: Any) -> TypeGuard[Failure]:
    """Say whether a test means that something is raised."""
    return isinstance(value, BaseException) or (isinstance(value, type) and issubclass(value, BaseException))
