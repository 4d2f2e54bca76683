"""gRPC clients of both worlds against a plain server of grpcio: all kinds of calls, and what stands around them."""

import asyncio
import json
from collections.abc import AsyncIterator, Generator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_bound import OLD, PARENT, Mount, Mounted, World, user
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_worlds import GrpcCaller, serving_users
from leaks import leaks_of
from sdk_worlds import WORLDS
from users_service import (
    DENIED,
    FULL_NAME,
    REFUSED,
    Failure,
    Users,
    add_to,
    failing,
    generated,
)

import servicelink
from servicelink import Call, CircuitState, Outcome, RateLimit


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(request.param, await stack.enter_async_context(serving_users()), stack)


@pytest.fixture
def mounted(world: World, mount: Mount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mounted:
    monkeypatch.setenv("SERVICE_BINDING_ROOT", str(tmp_path))
    return Mounted(world, mount, tmp_path)


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
        assert leaks_of(refused.value, OLD) == []
        assert (refused.value.link, refused.value.operation) == ("users", f"{FULL_NAME}/GetUser")
        assert refused.value.request_id
        assert "lower case" in refused.value.next_step

    assert world.stage.users.seen == []


async def test_metadata_of_an_interceptor_that_cannot_be_sent_is_an_error_of_its_call(world: World) -> None:
    class Wrong:
        """Adds what cannot be sent."""

        def intercept(self, call: Call) -> Generator[None, Outcome, None]:
            """Add it."""
            call.metadata["Not A Key"] = "1"
            yield

    users = world.connect(interceptors=[Wrong()])
    with pytest.raises(servicelink.ServiceError, match="'not a key' cannot be sent") as refused:
        await users.get()

    assert leaks_of(refused.value, OLD) == []
    assert (refused.value.link, refused.value.operation) == ("users", f"{FULL_NAME}/GetUser")
    assert refused.value.request_id


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


async def test_more_time_than_anybody_has_is_no_deadline(world: World) -> None:
    users = world.connect(timeout=1e10)
    await users.get()
    for seconds in (1e10, 1e300):
        await users.get(timeout=seconds)
        await users.list(1, timeout=seconds)

    assert all(seen.left is None or seen.left > 1e6 for seen in world.stage.users.seen)


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


async def test_waiting_for_a_server_takes_no_turn_of_the_clients_rate_limit(world: World) -> None:
    users = world.connect(rate_limit=RateLimit(1, 60))
    for _ in range(2):
        await users.wait_until_ready(5)
    await users.get()

    assert len(world.stage.users.seen) == 1


async def test_waiting_for_nobody_ends_with_what_went_wrong(world: World) -> None:
    users = world.connect(address="127.0.0.1:1")
    with pytest.raises(servicelink.ServiceUnavailable):
        await users.wait_until_ready(0.3)


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
