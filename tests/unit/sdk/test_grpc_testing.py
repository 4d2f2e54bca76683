"""Applications that call gRPC servers are tested without one, over clients whose transport alone is mocked."""

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_worlds import GrpcCaller, SyncGrpcCaller
from sdk_worlds import WORLDS, in_thread
from users_service import PACKAGE, PROTO, SERVICE, generated

import servicelink
from servicelink import Call, Outcome, sync


class World:
    """A mocked client of one world, and a face that is the same for both."""

    def __init__(self, kind: str, **options: Any) -> None:
        if kind == "asynchronous":
            self.mock: Any = servicelink.create_mock_grpc_client("users", **options)
            self.users: GrpcCaller = GrpcCaller(self.mock)
        else:
            self.mock = sync.create_mock_grpc_client("users", **options)
            self.users = SyncGrpcCaller(self.mock)


@pytest.fixture(params=WORLDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def user(user_id: str) -> Any:
    return generated()[0].User(user_id=user_id)


async def test_a_mocked_method_answers_and_what_it_was_asked_is_recorded(kind: str) -> None:
    world = World(kind)
    world.mock.method("GetUser").returns(user("7"))
    answer = await world.users.get("1", metadata=(("x-tenant", "shop"),))
    [call] = world.mock.method("getUser").calls

    assert answer == user("7")
    assert (call.method, call.request.user_id, call.json, call.attempt) == ("GetUser", "1", {"user_id": "1"}, 1)
    assert call.metadata["x-tenant"] == "shop"
    assert "x-service-auth" not in call.metadata
    assert "x-request-id" in call.metadata
    assert (world.mock.calls, world.mock.method("CreateUser").call_count) == ([call], 0)


async def test_messages_may_be_given_as_dictionaries(kind: str) -> None:
    world = World(kind)
    world.mock.method("GetUser").return_value = {"user_id": "7", "balance": "3"}

    assert (await world.users.get()).balance == 3
    assert world.mock.method("get_user").return_value == {"user_id": "7", "balance": "3"}


async def test_all_four_kinds_are_answered(kind: str) -> None:
    world = World(kind)
    world.mock.method("ListUsers").returns(user("1"), {"user_id": "2"})
    world.mock.method("AddUsers").returns({"count": 5})
    world.mock.method("Chat").returns({"text": "x"}, {"text": "y"}, {"text": "z"})

    assert await world.users.list(9) == ["1", "2"]
    assert await world.users.add([user("1"), user("2")]) == 5
    assert await world.users.chat(["a", "b"]) == ["x", "y", "z"]
    assert [one.user_id for one in world.mock.method("AddUsers").calls[0].requests] == ["1", "2"]
    assert [one.text for one in world.mock.method("Chat").calls[0].requests] == ["a", "b"]
    world.mock.method("ListUsers").returns()
    assert await world.users.list(9) == []


async def test_methods_are_mocked_by_name_too(kind: str) -> None:
    world = World(kind, proto=PROTO, package=PACKAGE, service=SERVICE)
    world.mock.method("getUser").returns({"user_id": "7"})
    world.mock.method("listUsers").returns({"user_id": "1"})

    assert (await world.users.call("getUser", {"user_id": "7"}))["user_id"] == "7"
    assert [one["user_id"] for one in await world.users.stream("listUsers", {"count": 1})] == ["1"]
    with pytest.raises(servicelink.ServiceError, match="has no field"):
        await world.users.call("getUser", {"id": "7"})


async def test_a_method_that_there_is_not_is_refused_at_once(kind: str) -> None:
    by_name = World(kind, proto=PROTO, package=PACKAGE, service=SERVICE).mock
    by_stub = World(kind).mock
    for mock, refused in (by_name, "UserService has no method GetUsr"), (by_stub, "no stub of this client has"):
        with pytest.raises(servicelink.ServiceError, match=rf"{refused}.*GetUser") as error:
            mock.method("GetUsr")
        assert error.value.operation == ""
        mock.method("get_user").returns({"user_id": "7"})


async def test_a_stub_may_be_made_later(kind: str) -> None:
    mock = World(kind, proto=PROTO, package="servicelink.test.v1", service=SERVICE).mock
    mock.stub(lambda channel: channel.unary_unary("/shop.v1.Others/Other"))

    assert mock.method("other").call_count == mock.method("GetUser").call_count == 0


async def test_a_call_without_an_answer_says_which_methods_have_one(kind: str, mock_link: Callable[[str], Any]) -> None:
    link = mock_link("users")
    link.method("GetUsr").returns({"user_id": "7"})
    link.method("CreateUser")
    users = servicelink.GrpcClient(service_name="users") if kind == "asynchronous" else None
    caller = GrpcCaller(users) if users else SyncGrpcCaller(sync.GrpcClient(service_name="users"))

    with pytest.raises(AssertionError, match=r"GetUser has no answer; say .* first \(told was GetUsr\)"):
        await caller.get()


async def test_what_no_server_could_answer_is_an_error_of_the_test(kind: str) -> None:
    world = World(kind)
    with pytest.raises(AssertionError, match=r'say client.method\("GetUser"\)'):
        await world.users.get()
    world.mock.method("GetUser").returns(generated()[0].Line())
    with pytest.raises(AssertionError, match=r"answers servicelink\.test\.v1\.User, not"):
        await world.users.get()
    world.mock.method("GetUser").returns()
    with pytest.raises(AssertionError, match="answers one message"):
        await world.users.get()


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (grpc.StatusCode.NOT_FOUND, servicelink.RemoteError),
        (grpc.StatusCode.UNAVAILABLE, servicelink.ServiceUnavailable),
        (servicelink.ServiceTimeout, servicelink.ServiceTimeout),
        (servicelink.InvalidServiceAuth, servicelink.InvalidServiceAuth),
        (servicelink.PermissionDenied("no"), servicelink.PermissionDenied),
        (servicelink.RemoteError(5, "NOT_FOUND", "gone"), servicelink.RemoteError),
        (servicelink.RemoteError, servicelink.RemoteError),
        (KeyError("a"), KeyError),
    ],
)
async def test_failures_are_the_real_ones(kind: str, failure: Any, error: type[Exception]) -> None:
    world = World(kind)
    for method in ("CreateUser", "ListUsers", "AddUsers", "Chat"):
        world.mock.method(method).raises(failure)
    for call in (
        world.users.create,
        lambda: world.users.list(1),
        lambda: world.users.add([]),
        lambda: world.users.chat([]),
    ):
        with pytest.raises(error):
            await call()


async def test_a_stream_breaks_off_where_the_test_says(kind: str) -> None:
    world = World(kind)
    world.mock.method("ListUsers").returns(user("1"), grpc.StatusCode.DATA_LOSS)
    reader = await world.users.open_list(2)
    first = await reader.next()
    with pytest.raises(servicelink.RemoteError) as failed:
        await reader.next()

    assert (first, failed.value.code, await reader.code()) == ("1", "DATA_LOSS", grpc.StatusCode.DATA_LOSS)


async def test_retries_and_the_circuit_are_as_in_production(kind: str) -> None:
    world = World(kind)
    world.mock.method("GetUser").in_turn(grpc.StatusCode.UNAVAILABLE, user("1"))
    again = await world.users.get()
    world.mock.method("CreateUser").raises(grpc.StatusCode.INTERNAL)
    for _ in range(5):
        with pytest.raises(servicelink.ServiceError):
            await world.users.create()
    with pytest.raises(servicelink.CircuitOpen):
        await world.users.create()
    world.mock.clock.advance(30)
    world.mock.method("CreateUser").returns(user("2"))

    assert again.user_id == "1"
    assert [call.attempt for call in world.mock.method("GetUser").calls] == [1, 2]
    assert (await world.users.create()).user_id == "2"


class Tenant:
    """An interceptor."""

    def intercept(self, call: Call) -> Generator[None, Outcome, None]:
        """Say for whom the call is."""
        call.metadata["x-tenant"] = "shop"
        yield


async def test_interceptors_run(kind: str) -> None:
    world = World(kind, interceptors=[Tenant()])
    world.mock.method("GetUser").returns(user("1"))
    await world.users.get()

    assert world.mock.calls[0].metadata["x-tenant"] == "shop"


async def test_a_stream_of_requests_may_wait_for_answers(kind: str) -> None:
    """As applications do that talk in turns."""
    world = World(kind)
    world.mock.method("Chat").returns({"text": "x"}, {"text": "y"})
    heard: asyncio.Queue[Any] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    async def lines() -> AsyncIterator[Any]:
        yield generated()[0].Line(text="a")
        await heard.get()
        yield generated()[0].Line(text="b")
        await heard.get()

    def plain_lines() -> Iterator[Any]:
        yield generated()[0].Line(text="a")
        asyncio.run_coroutine_threadsafe(heard.get(), loop).result(10)
        yield generated()[0].Line(text="b")

    call = world.users.stub.Chat(lines() if kind == "asynchronous" else plain_lines())
    for text in ("x", "y"):
        answer = await (call.read() if kind == "asynchronous" else in_thread(next, call))
        assert answer.text == text
        heard.put_nowait(None)
    end = await (call.read() if kind == "asynchronous" else in_thread(next, call, grpc.aio.EOF))
    assert end is grpc.aio.EOF
    assert [one.text for one in world.mock.calls[0].requests] == ["a", "b"]


async def test_what_fails_while_requests_are_made_is_the_callers(kind: str) -> None:
    world = World(kind)
    world.mock.method("AddUsers").returns({"count": 1})
    world.mock.method("Chat").returns({"text": "x"})

    def failing() -> Iterator[Any]:
        yield user("1")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await world.users.add(failing())
    with pytest.raises(TypeError):
        await world.users.mistake(world.users.stub.GetUser, {})
    with pytest.raises((TypeError, AttributeError)):
        await world.users.chat([1])  # type: ignore[list-item] # on purpose


async def test_messages_may_be_written_one_by_one() -> None:
    mock = servicelink.create_mock_grpc_client()
    mock.method("AddUsers").returns({"count": 2})
    mock.method("Chat").returns({"text": "x"})
    stub = mock.stub(generated()[1].UserServiceStub)
    adding = stub.AddUsers()
    await adding.write(user("1"))
    await adding.done_writing()
    chat = stub.Chat()
    await chat.write(generated()[0].Line(text="a"))

    assert (await adding).count == 2
    assert (await chat.read()).text == "x"
    assert await chat.read() is grpc.aio.EOF
    assert await chat.code() is grpc.StatusCode.OK
    assert mock.method("AddUsers").calls[0].request == user("1")
    assert mock.method("AddUsers").calls[0].json["user_id"] == "1"
    assert mock.method("Chat").calls[0].request == generated()[0].Line(text="a")


async def test_calls_have_the_face_of_grpcios(kind: str) -> None:
    world = World(kind)
    world.mock.method("ListUsers").returns(user("1"), user("2"))
    stream = world.users.stub.ListUsers(generated()[0].ListUsersRequest(count=1), timeout=5)
    reader = await world.users.open_list(1)
    await reader.next()
    if kind == "asynchronous":
        await stream.read()
        assert list(await stream.initial_metadata()) == []
        assert 0 < stream.time_remaining() <= 5
        assert (stream.cancel(), await stream.code()) == (True, grpc.StatusCode.CANCELLED)
    else:
        await in_thread(next, stream)
        assert (stream.initial_metadata(), 0 < stream.time_remaining() <= 5) == ((), True)
        assert (stream.cancel(), stream.code()) == (True, grpc.StatusCode.CANCELLED)


def test_a_synchronous_stub_has_its_futures_too() -> None:
    mock = sync.create_mock_grpc_client()
    mock.method("GetUser").returns(user("1"))
    stub = mock.stub(generated()[1].UserServiceStub)
    request = generated()[0].GetUserRequest(user_id="1")
    answer, call = stub.GetUser.with_call(request)

    assert (answer.user_id, call.code()) == ("1", grpc.StatusCode.OK)
    assert stub.GetUser.future(request).result(10).user_id == "1"


@pytest.mark.parametrize("made", ["before", "after"])
async def test_a_link_is_mocked_for_every_client_of_the_process(
    kind: str, mock_link: Callable[[str], Any], made: str
) -> None:
    def make() -> GrpcCaller:
        if kind == "asynchronous":
            return GrpcCaller(servicelink.GrpcClient(service_name="users"))
        return SyncGrpcCaller(sync.GrpcClient(service_name="users"))

    users = make() if made == "before" else None
    link = mock_link("users")
    link.method("GetUser").returns({"user_id": "9"})
    link.method("ListUsers").returns({"user_id": "1"})
    users = users or make()

    assert (await users.get("3")).user_id == "9"
    assert await users.list(1) == ["1"]
    assert [(call.method, call.attempt) for call in link.rpcs] == [("GetUser", 1), ("ListUsers", 1)]
    await users.close()
