"""gRPC clients of both worlds against a plain server of grpcio: all kinds of calls, and what stands around them."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_worlds import GrpcCaller, GrpcStage, open_grpc, serving_users
from sdk_worlds import WORLDS, Hands
from users_service import (
    DENIED,
    FULL_NAME,
    PACKAGE,
    PROTO,
    REFUSED,
    SERVICE,
    Failure,
    Users,
    add_to,
    descriptor_set,
    failing,
    generated,
)

import servicelink
from servicelink import Call, CircuitBreaker, CircuitState, Outcome, RateLimit
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


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(request.param, await stack.enter_async_context(serving_users()), stack)


class Mounted:
    """A binding of the users' service, swapped as the kubelet does it."""

    def __init__(self, world: World, mount: Mount, folder: Path) -> None:
        self._world, self._mount, self._folder = world, mount, folder

    def write(self, key: str) -> None:
        """Swap in another key."""
        files = {"uri": f"grpc://{self._world.stage.address}", "api-key": key, "protocol": "grpc"}
        self._mount(self._folder / "users", files)


@pytest.fixture
def mounted(world: World, mount: Mount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mounted:
    monkeypatch.setenv("SERVICE_BINDING_ROOT", str(tmp_path))
    return Mounted(world, mount, tmp_path)


def user(user_id: str = "1") -> Any:
    return generated()[0].User(user_id=user_id)


async def test_calls_of_all_four_kinds_are_answered(world: World) -> None:
    users = world.connect()

    assert (await users.get("7")).email == "7@example.com"
    assert await users.list(3) == ["0", "1", "2"]
    assert await users.list(0) == []
    assert await users.add([user(), user()]) == 2
    assert await users.chat(["a", "b"]) == ["A", "B"]
    assert [seen.method for seen in world.stage.users.seen] == ["GetUser", "ListUsers", "ListUsers", "AddUsers", "Chat"]


async def test_every_call_carries_the_credential_and_ids_and_nothing_else_of_ours(world: World) -> None:
    users = world.connect()
    await users.get(metadata=(("x-tenant", "shop"), ("x-raw-bin", b"\x00\xff")))
    seen = world.last

    assert seen.all("x-service-auth") == [OLD]
    assert seen.all("x-request-id") == seen.all("x-correlation-id") != []
    assert (seen.all("x-tenant"), seen.all("x-raw-bin")) == (["shop"], [b"\x00\xff"])
    assert {key for key, _ in seen.metadata} == {
        *("user-agent", "x-service-auth", "x-request-id", "x-correlation-id", "x-tenant", "x-raw-bin"),
    }


async def test_a_caller_cannot_send_another_credential_in_its_place(world: World) -> None:
    await world.connect().get(metadata=(("x-service-auth", "mine"),))

    assert world.last.all("x-service-auth") == [OLD]


async def test_metadata_that_cannot_be_sent_is_an_error_that_shows_none_of_it(world: World) -> None:
    users = world.connect()
    wrong: list[tuple[tuple[str, Any], ...]] = [
        (("X-Tenant", "a"),),
        (("x-tenant", "a\nb"),),
        (("x-tenant", "ä"),),
        (("x-tenant", b"a"),),
        (("x-tenant-bin", "a"),),
        (("grpc-timeout", "1S"),),
        ((":path", "/"),),
    ]
    for metadata in wrong:
        with pytest.raises(servicelink.ServiceError, match="cannot be sent") as refused:
            await users.get(metadata=metadata)
        assert OLD not in repr(refused.getrepr(showlocals=True))

    assert world.stage.users.seen == []


async def test_ids_trace_and_deadline_of_an_incoming_call_go_out_again(world: World) -> None:
    headers = {"x-request-id": "r-1", "x-correlation-id": "c-1", "traceparent": PARENT, "tracestate": "a=b"}
    with servicelink.carry({**headers, "x-request-timeout-ms": "1500"}):
        await world.connect().get()
    seen = world.last

    assert [seen.all(key) for key in headers] == [["r-1"], ["c-1"], [PARENT], ["a=b"]]
    assert 0 < seen.left <= 1.7


async def test_the_deadline_is_the_clients_or_the_calls_and_travels(world: World) -> None:
    users = world.connect(timeout=3)
    await users.get()
    whole = world.last.left
    await users.get(timeout=1)

    # The library rounds up.
    assert 1.2 < whole <= 3.2
    assert 0 < world.last.left <= 1.2


async def test_streams_have_no_deadline_but_one_that_is_asked_for(world: World) -> None:
    users = world.connect(timeout=3, attempt_timeout=2)
    await users.list(1)
    await users.add([])
    await users.chat([])
    without = [seen.left for seen in world.stage.users.seen]
    await users.list(1, timeout=9)

    assert all(left is None or left > 1e6 for left in without)
    assert 2.2 < world.last.left <= 9.2


async def test_a_call_that_takes_too_long_is_a_timeout_and_the_server_hears_of_it(world: World) -> None:
    world.stage.users.silent = True
    users = world.connect()
    with pytest.raises(servicelink.ServiceTimeout, match=r"in time \(0.1 s\)"):
        await users.get(timeout=0.1)
    with pytest.raises(servicelink.ServiceTimeout):
        await users.list(1, timeout=0.1)

    assert len(world.stage.users.seen) == 2


@pytest.mark.parametrize(
    "name",
    ["NOT_FOUND", "INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "ABORTED", "CANCELLED", "INTERNAL"],
)
async def test_what_the_application_answers_is_its_error_and_no_message_shows_its_words(
    world: World, name: str
) -> None:
    users = world.connect()
    for call in (users.get, lambda: users.list(2), lambda: users.add([]), lambda: users.chat(["a"])):
        world.fail(Failure(grpc.StatusCode[name], "details of it"))
        with pytest.raises(servicelink.RemoteError) as failed:
            await call()

        assert (failed.value.status, failed.value.code, failed.value.body) == (
            grpc.StatusCode[name].value[0],
            name,
            "details of it",
        )
        assert "details of it" not in str(failed.value)
        assert failed.value.operation.startswith(f"{FULL_NAME}/")


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (REFUSED, servicelink.InvalidServiceAuth),
        (DENIED, servicelink.PermissionDenied),
        (failing("UNAVAILABLE"), servicelink.ServiceUnavailable),
        (failing("DEADLINE_EXCEEDED"), servicelink.ServiceTimeout),
    ],
)
async def test_what_the_link_or_the_way_says_is_an_error_of_its_own(
    world: World, failure: Failure, expected: type[Exception]
) -> None:
    users = world.connect()
    for call in (users.create, lambda: users.list(2), lambda: users.add([]), lambda: users.chat(["a"])):
        world.fail(failure)
        with pytest.raises(expected):
            await call()


async def test_a_method_whose_proto_says_so_is_repeated_and_others_are_not(world: World) -> None:
    hands = Hands()
    users = world.connect(hands)
    world.fail(failing("UNAVAILABLE"), failing("RESOURCE_EXHAUSTED"))
    await users.get()
    attempts = len(world.stage.users.seen)
    world.fail(failing("UNAVAILABLE"))
    with pytest.raises(servicelink.ServiceUnavailable):
        await users.create()

    assert (attempts, hands.slept) == (3, [0.1, 0.2])
    assert len(world.stage.users.seen) == 4


@pytest.mark.parametrize("name", ["CreateUser", f"{FULL_NAME}/CreateUser"])
async def test_a_method_that_is_declared_idempotent_is_repeated(world: World, name: str) -> None:
    world.fail(failing("UNAVAILABLE"))
    users = world.connect(Hands(), idempotent=[name])

    assert (await users.create("5")).user_id == "5"


async def test_options_hold_for_the_client_that_has_them(world: World) -> None:
    world.fail(failing("UNAVAILABLE"))
    users = world.connect(Hands())
    with pytest.raises(servicelink.ServiceUnavailable):
        await users.with_options(retries=0).get()

    assert len(world.stage.users.seen) == 1


async def test_the_server_says_when_to_come_back_or_that_nobody_should(world: World) -> None:
    hands = Hands()
    users = world.connect(hands)
    world.fail(Failure(grpc.StatusCode.UNAVAILABLE, "", (("grpc-retry-pushback-ms", "1500"),)))
    await users.get()
    for never in ("-1", "soon", "9" * 5000):
        world.fail(Failure(grpc.StatusCode.UNAVAILABLE, "", (("grpc-retry-pushback-ms", never),)))
        with pytest.raises(servicelink.ServiceUnavailable):
            await users.get()

    assert hands.slept == [1.5]


async def test_a_stream_that_has_not_begun_is_begun_again_where_its_method_may_be(world: World) -> None:
    users = world.connect(Hands(), idempotent=["ListUsers"])
    world.fail(failing("UNAVAILABLE"))

    assert await users.list(2) == ["0", "1"]
    assert len(world.stage.users.seen) == 2


async def test_a_stream_of_requests_is_used_up_and_never_sent_again(world: World, mounted: Mounted) -> None:
    mounted.write(OLD)
    users = world.connect(address=None, idempotent=["AddUsers", "Chat"], retries=2)
    await users.add([])
    mounted.write(NEW)
    for failure in (failing("UNAVAILABLE"), REFUSED):
        for call in (lambda: users.add([user()]), lambda: users.chat(["a"])):
            world.fail(failure)
            with pytest.raises((servicelink.ServiceUnavailable, servicelink.InvalidServiceAuth)):
                await call()

    assert len(world.stage.users.seen) == 5


async def test_a_stream_that_breaks_off_after_its_first_answer_is_an_error_and_not_begun_again(world: World) -> None:
    users = world.connect(Hands(), idempotent=["ListUsers"])
    world.stage.users.go = asyncio.Semaphore(0)
    reader = await users.open_list(3)
    first = await reader.next()
    world.stage.users.failures.append(failing("UNAVAILABLE"))
    for _ in range(2):
        world.stage.users.go.release()
    rest = [await reader.next(), await reader.next()]
    with pytest.raises(servicelink.ServiceUnavailable):
        await reader.next()

    assert [first, *rest] == ["0", "1", "2"]
    assert len(world.stage.users.seen) == 1
    assert await reader.code() is grpc.StatusCode.UNAVAILABLE


async def test_the_circuit_opens_by_the_servers_failures_and_not_by_the_callers_mistakes(world: World) -> None:
    breaker = CircuitBreaker("users", failures=3)
    users = world.connect(breaker=breaker, retries=0)
    for name in ("NOT_FOUND", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "FAILED_PRECONDITION"):
        world.fail(failing(name))
        with pytest.raises(servicelink.RemoteError):
            await users.get()
    before = breaker.state
    for name in ("INTERNAL", "UNKNOWN", "UNAVAILABLE"):
        world.fail(failing(name))
        with pytest.raises(servicelink.ServiceError):
            await users.get()
    with pytest.raises(servicelink.CircuitOpen):
        await users.list(1)

    assert (before, breaker.state) == (CircuitState.CLOSED, CircuitState.OPEN)


async def test_a_rate_limit_holds_for_all_kinds_of_calls(world: World) -> None:
    users = world.connect(rate_limit=RateLimit(1, 60), timeout=1)
    await users.get()
    with pytest.raises(servicelink.RateLimited):
        await users.get()

    assert len(world.stage.users.seen) == 1


async def test_an_interceptor_stands_around_every_attempt_and_hears_of_a_streams_end(world: World) -> None:
    heard: list[tuple[str, str, int]] = []

    class Notes:
        """Notes how attempts end."""

        def intercept(self, call: Call) -> Generator[None, Outcome, None]:
            """Note one."""
            assert "x-service-auth" not in call.metadata
            call.metadata["x-attempt"] = str(call.attempt)
            outcome = yield
            heard.append((call.operation.rpartition("/")[2], outcome.result.value, call.attempt))

    users = world.connect(Hands(), interceptors=[Notes()])
    world.fail(failing("UNAVAILABLE"))
    await users.get()
    attempts = [seen.all("x-attempt") for seen in world.stage.users.seen]
    world.stage.users.go = asyncio.Semaphore(0)
    reader = await users.open_list(2)
    await reader.next()
    before_end = len(heard)
    world.stage.users.go.release()
    await reader.next()
    await reader.next()

    assert attempts == [["1"], ["2"]]
    assert before_end == 2
    assert heard == [("GetUser", "away", 1), ("GetUser", "answered", 2), ("ListUsers", "answered", 1)]


async def test_a_refused_credential_is_read_again_and_a_newer_one_sent_once_by_any_method(
    world: World, mounted: Mounted
) -> None:
    mounted.write(OLD)
    users = world.connect(address=None)
    await users.create()
    for call in (users.create, lambda: users.list(1)):
        mounted.write(NEW if world.last.all("x-service-auth") == [OLD] else OLD)
        world.fail(REFUSED)
        await call()
    keys = [seen.all("x-service-auth") for seen in world.stage.users.seen]
    world.fail(REFUSED, REFUSED)
    with pytest.raises(servicelink.InvalidServiceAuth):
        await users.create()

    assert keys == [[OLD], [OLD], [NEW], [NEW], [OLD]]
    assert len(world.stage.users.seen) == 6


async def test_an_applications_own_unauthenticated_is_not_sent_again(world: World, mounted: Mounted) -> None:
    mounted.write(OLD)
    users = world.connect(address=None)
    await users.create()
    mounted.write(NEW)
    world.fail(failing("UNAUTHENTICATED"))
    with pytest.raises(servicelink.RemoteError):
        await users.create()

    assert len(world.stage.users.seen) == 2


async def test_requests_that_fail_are_their_own_error_and_end_the_call(world: World) -> None:
    def broken() -> Generator[Any, None, None]:
        yield user()
        raise LookupError("no more")

    def broken_lines() -> Generator[str, None, None]:
        yield "a"
        raise LookupError("no more")

    users = world.connect()
    with pytest.raises(LookupError, match="no more"):
        await users.add(broken())
    with pytest.raises(LookupError, match="no more"):
        await users.chat(broken_lines())  # type: ignore[arg-type] # lines as they come

    assert users.client.breaker.state is CircuitState.CLOSED


async def test_a_request_of_another_type_is_its_callers_mistake_and_never_sent(world: World) -> None:
    users = world.connect()
    for wrong in (users.stub.GetUser, users.stub.ListUsers):
        with pytest.raises((TypeError, AttributeError)):
            await users.mistake(wrong, {"user_id": "1"})
    with pytest.raises((TypeError, AttributeError)):
        await users.add([{}])

    assert world.connect().client.breaker.state is CircuitState.CLOSED
    assert [seen.method for seen in world.stage.users.seen] in ([], ["AddUsers"])


async def test_nobody_at_the_address_is_unavailable_and_its_return_is_noticed(world: World) -> None:
    users = world.connect(retries=0)
    await users.get()
    port = int(world.stage.address.rpartition(":")[2])
    await world.stage.stop()
    for _ in range(2):
        with pytest.raises(servicelink.ServiceUnavailable):
            await users.get(timeout=2)
    async with serving_users(port=port) as again:
        await users.wait_until_ready(10)
        await users.get()

        assert len(again.users.seen) == 1


async def test_waiting_for_a_server_that_tells_its_health_is_until_it_serves(world: World) -> None:
    servicer = health.aio.HealthServicer()
    await servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    port = int(world.stage.address.rpartition(":")[2])
    await world.stage.stop()
    async with serving_users(
        port=port, configure=lambda server: health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    ):
        users = world.connect()
        with pytest.raises(servicelink.ServiceUnavailable, match="does not serve yet"):
            await users.wait_until_ready(0.1)
        waiting = asyncio.create_task(users.wait_until_ready(20))
        await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
        await waiting


async def test_waiting_for_nobody_ends_with_what_went_wrong(world: World) -> None:
    users = world.connect(address="127.0.0.1:1")
    with pytest.raises(servicelink.ServiceUnavailable):
        await users.wait_until_ready(0.3)


@pytest.mark.parametrize("address", ["ftp://x:1", "users", "grpc://", "http://u:p@x:1", "grpc://x:1/path", "x:1?a=b"])
async def test_an_address_that_is_none_is_said_so(world: World, address: str) -> None:
    with pytest.raises(servicelink.LinkNotFound, match="its address is no"):
        await world.connect(address=address).get()


async def test_call_credentials_are_refused_since_the_link_brings_its_own(world: World) -> None:
    users = world.connect()
    with pytest.raises(TypeError, match="brings its own credential"):
        await users.get(credentials=grpc.access_token_call_credentials("x"))


async def test_a_link_for_another_protocol_is_not_called(
    world: World, mount: Mount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVICE_BINDING_ROOT", str(tmp_path))
    mount(tmp_path / "users", {"uri": "http://127.0.0.1:1", "api-key": OLD, "protocol": "rest"})
    with pytest.raises(servicelink.LinkNotFound, match="is a link for rest"):
        await world.connect(address=None).get()


async def test_an_environment_leads_to_a_server_as_on_a_laptop(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERS_SERVICE_URL", world.stage.address)
    monkeypatch.setenv("INTERNAL_API_KEY", "shared")
    await world.connect(address=None).get()

    assert world.last.all("x-service-auth") == ["shared"]


async def test_without_being_asked_no_credential_goes_to_an_explicit_address(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERNAL_API_KEY", "shared")
    await world.connect(api_key=None).get()
    without = world.last.all("x-service-auth")
    await world.connect(api_key=None, shared_key=True).get()

    assert (without, world.last.all("x-service-auth")) == ([], ["shared"])


async def test_the_environments_proxy_sees_no_call(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    await world.connect().get()

    assert len(world.stage.users.seen) == 1


BY_NAME: dict[str, Any] = {"user_id": "7", "email": "7@example.com", "balance": "0", "avatar": "", "tags": []}


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
        (tmp_path / "absent.pb", "is no descriptor set"),
        (tmp_path / "absent.proto", "there is no"),
        (broken, "is no valid .proto file"),
    ]
    for proto, problem in wrong:
        with pytest.raises(servicelink.ServiceError, match=problem):
            await world.by_name(proto).call("getUser", {})
    with pytest.raises(servicelink.ServiceError, match=r"has no service servicelink\.test\.v1\.Nobody"):
        await world.connect(proto=PROTO, package=PACKAGE, service="Nobody").call("getUser", {})
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


@pytest.mark.parametrize("given", [{"proto": PROTO}, {"service": SERVICE}, {"idempotent": "GetUser"}])
async def test_a_client_that_is_half_described_is_not_made(world: World, given: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        world.connect(**given)


async def test_clients_that_know_nothing_of_us_serve_and_call_the_same(world: World) -> None:
    async with grpc.aio.insecure_channel(world.stage.address) as channel:
        plain = generated()[1].UserServiceStub(channel)

        assert await plain.GetUser(generated()[0].GetUserRequest(user_id="1")) == await world.connect().get("1")


async def test_a_name_with_several_addresses_is_called_at_all_of_them(world: World) -> None:
    """As a headless Service has them: `localhost` has one for each family here."""
    port = int(world.stage.address.rpartition(":")[2])
    other = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    second = Users()
    add_to(other, second)
    if other.add_insecure_port(f"[::1]:{port}") == 0:
        pytest.skip("this machine has no second address of its own")
    await other.start()
    users = world.connect(address=f"localhost:{port}")
    await until_both(users, world, second)
    await other.stop(None)

    assert world.stage.users.seen
    assert second.seen


async def until_both(users: GrpcCaller, world: World, second: Any) -> None:
    for _ in range(200):
        await users.get()
        if world.stage.users.seen and second.seen:
            return


async def test_closing_a_client_ends_what_is_under_way_and_it_may_be_used_again(world: World) -> None:
    world.stage.users.silent = True
    users = world.connect()
    running = [asyncio.create_task(users.create()), asyncio.create_task(users.list(1))]
    await world.stage.users.until(lambda: len(world.stage.users.seen) == 2)
    await users.close()
    for task in running:
        with pytest.raises(servicelink.ServiceUnavailable, match="client was closed"):
            await task
    world.stage.users.silent = False

    assert (await users.get("3")).user_id == "3"


async def test_nobody_but_us_repeats_a_call_whatever_a_service_config_says(world: World) -> None:
    # As one may come by DNS (gRPC proposal A2), or from an application.
    policy = {
        "maxAttempts": 4,
        "initialBackoff": "0.01s",
        "maxBackoff": "0.01s",
        "backoffMultiplier": 1,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})
    users = world.connect(channel_options=[("grpc.service_config", config)], retries=0)
    world.fail(*[failing("UNAVAILABLE")] * 3)
    with pytest.raises(servicelink.ServiceError):
        await users.get()

    assert len(world.stage.users.seen) == 1
