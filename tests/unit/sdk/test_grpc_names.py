"""Methods are called by name with dictionaries, as the .proto or a descriptor set says."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from grpc_bound import Mount, Mounted, World, user
from grpc_worlds import serving_users
from sdk_worlds import WORLDS, Hands
from users_service import (
    PACKAGE,
    PROTO,
    SERVICE,
    descriptor_set,
    failing,
    generated,
)

import servicelink
from servicelink import sync

BY_NAME: dict[str, Any] = {"user_id": "7", "email": "7@example.com", "balance": "0", "avatar": "", "tags": []}


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(request.param, await stack.enter_async_context(serving_users()), stack)


@pytest.fixture
def mounted(world: World, mount: Mount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mounted:
    monkeypatch.setenv("SERVICE_BINDING_ROOT", str(tmp_path))
    return Mounted(world, mount, tmp_path)


async def test_methods_are_called_by_name_with_dictionaries(world: World) -> None:
    users = world.by_name()

    assert await users.call("getUser", {"user_id": "7"}) == {**BY_NAME, "role": "ROLE_UNSPECIFIED"}
    assert await users.call("get_user", {"userId": "7"}) == await users.call("GetUser", {"user_id": "7"})
    assert [one["user_id"] for one in await users.stream("listUsers", {"count": 2})] == ["0", "1"]
    assert await users.call("addUsers", [{}, {}]) == {"count": 2}
    assert await users.stream("chat", [{"text": "a"}]) == [{"text": "A"}]


async def test_dictionaries_follow_the_json_mapping_and_keep_the_protos_names(world: World) -> None:
    given = {
        "userId": "1",
        "balance": 9_007_199_254_740_993,
        "avatar": "AP8=",
        "role": "ROLE_ADMIN",
        "created_at": "2026-11-24T12:00:00Z",
        "tags": ["a"],
    }
    answered = await world.by_name().call("createUser", given)

    assert answered == {
        "user_id": "1",
        "email": "",
        "balance": "9007199254740993",
        "avatar": "AP8=",
        "role": "ROLE_ADMIN",
        "created_at": "2026-11-24T12:00:00Z",
        "tags": ["a"],
    }


async def test_the_proto_may_be_a_descriptor_set_as_a_file_or_as_bytes(world: World, tmp_path: Path) -> None:
    (tmp_path / "users.pb").write_bytes(descriptor_set())

    for proto in (descriptor_set(), tmp_path / "users.pb", str(tmp_path / "users.pb")):
        assert (await world.by_name(proto).call("getUser", {"user_id": "7"}))["user_id"] == "7"


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (("getUsers", {}), "has no method getUsers"),
        (("getUser", {"id": "1"}), 'has no field named "id"'),
        (("getUser", {"user_id": 1}), "user_id"),
        (("listUsers", {}), "answers many messages"),
    ],
)
async def test_a_call_by_name_that_fits_nothing_is_said_so_before_anything_is_sent(
    world: World, request_: tuple[str, Any], problem: str
) -> None:
    users = world.by_name()
    with pytest.raises(servicelink.ServiceError, match=problem):
        await users.call(*request_)
    with pytest.raises(servicelink.ServiceError, match="answers one message"):
        await users.stream("getUser", {})

    assert world.stage.users.seen == []


async def test_what_describes_no_service_is_said_so(world: World, tmp_path: Path) -> None:
    broken = tmp_path / "broken.proto"
    broken.write_text("service {")
    wrong: list[tuple[Any, str]] = [
        (descriptor_set(whole=False), "imports a file that is not in it"),
        (b"\xff\xff", "is no descriptor set"),
        (tmp_path / "absent.pb", r"users: proto='.*absent\.pb' cannot be read: No such file .* folder of the process"),
        (tmp_path / "absent.proto", r"users: proto='.*absent\.proto' cannot be read: No such file"),
        (broken, "is no valid .proto file"),
    ]
    for proto, problem in wrong:
        with pytest.raises(servicelink.ServiceError, match=problem):
            await world.by_name(proto).call("getUser", {})
    for _ in range(2):
        nobody = world.connect(proto=PROTO, package=PACKAGE, service="Nobody")
        with pytest.raises(servicelink.ServiceError, match=r"has no service servicelink\.test\.v1\.Nobody") as failed:
            await nobody.call("getUser", {})
        assert failed.value.link == "users"
        assert failed.value.next_step == f"It has package='{PACKAGE}', service='{SERVICE}'"
    with pytest.raises(servicelink.ServiceError, match="knows no methods by name"):
        await world.connect().call("getUser", {})


async def test_a_client_by_name_leaves_the_processes_own_messages_alone(world: World, tmp_path: Path) -> None:
    """Another service with the same names, as two versions of one file have them."""
    other = tmp_path / "users.proto"
    other.write_text(PROTO.read_text().replace("string email = 2", "int32 email_count = 2"))
    theirs = world.by_name(other)
    with pytest.raises(servicelink.ServiceError, match="has no field"):
        await theirs.call("createUser", {"email": "a@example.com"})

    assert (await world.by_name().call("createUser", {"email": "a@example.com"}))["email"] == "a@example.com"


async def test_repeating_by_name_follows_the_proto_too(world: World) -> None:
    users = world.by_name()
    users.client._caller.line.clock = Hands().clock  # noqa: SLF001 - nobody waits
    world.fail(failing("UNAVAILABLE"))

    assert (await users.call("getUser", {"user_id": "7"}))["user_id"] == "7"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"proto": PROTO}, "proto and service go together"),
        ({"service": SERVICE}, "proto and service go together"),
        ({"package": PACKAGE}, "proto and service go together"),
        ({"idempotent": "GetUser"}, r"idempotent=\['GetUser'\]"),
        ({"limits": 1}, "gRPC takes no limits; it takes timeout, "),
        ({"channel_options": {"grpc.x": 1}}, "channel_options is dict; it is a list of pairs"),
        ({"channel_options": ["grpc.x"]}, "channel_options holds 'grpc.x'; it is a list of pairs"),
    ],
)
async def test_a_client_that_is_half_or_wrongly_described_is_not_made(
    world: World, given: dict[str, Any], words: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        world.connect(**given)


CONNECTS = [servicelink.connect_grpc, sync.connect_grpc]


@pytest.mark.parametrize("connect", CONNECTS, ids=WORLDS)
def test_a_stub_and_a_description_exclude_each_other(connect: Any) -> None:
    stub = generated()[1].UserServiceStub
    for given in ({"proto": PROTO}, {"proto": PROTO, "service": SERVICE}, {"service": SERVICE}):
        with pytest.raises(ValueError, match="stub calls by generated code, and proto, package and service by name"):
            connect("users", stub=stub, **given)


@pytest.mark.parametrize("connect", CONNECTS, ids=WORLDS)
async def test_a_method_that_a_stub_does_not_have_is_not_idempotent(connect: Any) -> None:
    stub = generated()[1].UserServiceStub
    for wrong in ("CraeteUser", f"{PACKAGE}.{SERVICE}/CraeteUser"):
        with pytest.raises(ValueError, match=f"idempotent names {wrong}, .* there are AddUsers, Chat, CreateUser"):
            connect("users", stub=stub, idempotent=["CreateUser", wrong])

    assert connect("users", stub=stub, idempotent=["CreateUser", f"{PACKAGE}.{SERVICE}/AddUsers"])


async def test_a_method_that_the_proto_does_not_have_is_not_idempotent(world: World) -> None:
    users = world.by_name(idempotent=["CraeteUser"])
    for _ in range(2):
        with pytest.raises(servicelink.ServiceError, match=r"users: idempotent names CraeteUser, .* CreateUser"):
            await users.call("createUser", {})
    others = world.by_name(idempotent=["CreateUser", "shop.v1.Accounts/Deposit"])
    await others.call("createUser", {})

    assert len(world.stage.users.seen) == 1


async def test_what_is_no_dictionary_or_no_list_of_them_is_said_so(world: World) -> None:
    users = world.by_name()
    for call, request, words in (
        (users.call, ("addUsers", {"user_id": "1"}), "AddUsers takes many messages, and got one dict: pass a list"),
        (users.call, ("addUsers", 5), "AddUsers takes many messages, and got one int"),
        (users.call, ("addUsers", [user()]), r"AddUsers takes a dictionary, and got User; .* client\.stub"),
        (users.call, ("getUser", [{"user_id": "1"}]), "GetUser takes a dictionary, and got list"),
        (users.stream, ("chat", {"text": "a"}), "Chat takes many messages, and got one dict"),
    ):
        with pytest.raises(TypeError, match=words):
            await call(*request)


async def test_what_a_call_of_a_stub_does_not_take_is_said_with_where_to_say_it(world: World) -> None:
    users = world.connect()
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"retries": 1}, r"GetUser takes no retries, but timeout, .* client\.with_options\(retries=\.\.\.\)\.stub"),
        ({"timeuot": 1}, "GetUser takes no timeuot, but timeout, metadata, wait_for_ready, compression$"),
    ]
    for wrong, words in mistakes:
        with pytest.raises(TypeError, match=words):
            await users.get(**wrong)
    world.fail(failing("UNAVAILABLE"))
    with pytest.raises(servicelink.ServiceUnavailable):
        await users.with_options(retries=0).get()

    assert len(world.stage.users.seen) == 1
