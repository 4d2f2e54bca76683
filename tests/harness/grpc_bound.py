"""A client of either world for the users' service, by an address or by a binding."""

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grpc_worlds import GrpcCaller, GrpcStage, open_grpc
from sdk_worlds import Hands
from users_service import (
    PACKAGE,
    PROTO,
    SERVICE,
    Failure,
    generated,
)

from servicelink_contract.key import render_key

OLD = render_key("AAAAAAAA", b"a" * 32).text
NEW = render_key("BBBBBBBB", b"b" * 32).text
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
Mount = Callable[[Path, Mapping[str, str]], None]


@dataclass(slots=True)
class World:
    """A server, and clients of one kind."""

    kind: str
    stage: GrpcStage
    stack: AsyncExitStack

    def connect(self, hands: Hands | None = None, **options: Any) -> GrpcCaller:
        """Answer a client, closed at the test's end."""
        given = {"service_name": "users", "address": self.stage.address, "api_key": OLD, **options}
        if given.get("address") is None:
            del given["address"], given["api_key"]
        caller = open_grpc(self.kind, hands, **given)
        self.stack.push_async_callback(caller.close)
        return caller

    def by_name(self, proto: Any = PROTO, **options: Any) -> GrpcCaller:
        """Answer a client without generated code."""
        return self.connect(proto=proto, package=PACKAGE, service=SERVICE, **options)

    @property
    def last(self) -> Any:
        """The last call as the server saw it."""
        return self.stage.users.seen[-1]

    def fail(self, *failures: Failure) -> None:
        """Have the next calls fail like this."""
        self.stage.users.failures = deque(failures)


class Mounted:
    """A binding of the users' service, swapped as the kubelet does it."""

    def __init__(self, world: World, mount: Mount, folder: Path) -> None:
        self._world, self._mount, self._folder = world, mount, folder

    def write(self, key: str) -> None:
        """Swap in another key."""
        files = {"uri": f"grpc://{self._world.stage.address}", "api-key": key, "protocol": "grpc"}
        self._mount(self._folder / "users", files)


def user(user_id: str = "1") -> Any:
    return generated()[0].User(user_id=user_id)
