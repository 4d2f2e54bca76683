"""What is asked of the users' service, and an interceptor that notes how calls end."""

from collections.abc import Generator
from typing import Any

from users_service import generated

from servicelink import Call, Outcome


class Notes:
    """An interceptor that notes how attempts end."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def intercept(self, call: Call) -> Generator[None, Outcome, None]:
        """Note one."""
        self.seen.append((yield).result.value)


def asked(user_id: str = "1") -> Any:
    return generated()[0].GetUserRequest(user_id=user_id)


def asked_for(count: int) -> Any:
    return generated()[0].ListUsersRequest(count=count)


def line(text: str) -> Any:
    return generated()[0].Line(text=text)


def stub_of(client: Any) -> Any:
    return client.stub(generated()[1].UserServiceStub)
