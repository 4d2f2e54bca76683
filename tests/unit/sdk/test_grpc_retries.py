"""Which calls are made again, what opens the circuit, and what interceptors see of it."""

import asyncio
from collections.abc import AsyncIterator, Generator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from grpc_bound import NEW, OLD, Mount, Mounted, World, user
from grpc_worlds import serving_users
from sdk_worlds import WORLDS, Hands
from users_service import (
    FULL_NAME,
    REFUSED,
    Failure,
    failing,
)

import servicelink
from servicelink import Call, CircuitBreaker, CircuitState, Outcome, RateLimit


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(request.param, await stack.enter_async_context(serving_users()), stack)


@pytest.fixture
def mounted(world: World, mount: Mount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mounted:
    monkeypatch.setenv("SERVICE_BINDING_ROOT", str(tmp_path))
    return Mounted(world, mount, tmp_path)


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
    world: World, mounted: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However long it takes, only a refusal is a reason to look.
    monkeypatch.setattr("servicelink.folder.CHECK_EVERY", 3600.0)
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
