"""Waiting for a server: what counts as ready, what a caller finds afterwards, and what logs say meanwhile."""

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from grpc_worlds import open_grpc, serving_users
from sdk_faults import World, drop, fine
from sdk_worlds import WORLDS, Hands, Peer, Request, in_thread

import servicelink
from servicelink import CircuitBreaker, CircuitState, sync


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(request.param, stack)


def open_circuit(breaker: CircuitBreaker) -> None:
    while permit := breaker.admit():
        permit.settle(failed=True)


async def wait(world: World, client: object, seconds: float) -> None:
    waiting = client.wait_until_ready  # type: ignore[attr-defined] # of whichever protocol
    await (waiting(seconds) if world.kind == "asynchronous" else in_thread(waiting, seconds))


async def test_a_server_that_is_ready_is_called_though_its_circuit_had_opened(world: World) -> None:
    stage = await world.stage(fine)
    api = world.connect(stage)
    open_circuit(api.client.breaker)
    await wait(world, api.client, 5)

    assert (await api.get("/")).text == "fine"


async def test_a_circuit_of_the_applications_own_is_closed_as_well(world: World) -> None:
    stage = await world.stage(fine)
    breaker = CircuitBreaker(failures=1)
    open_circuit(breaker)
    await wait(world, world.connect(stage, breaker=breaker).client, 5)

    assert breaker.state is CircuitState.CLOSED


async def test_a_grpc_server_that_is_ready_is_called_though_its_circuit_had_opened(world: World) -> None:
    async with serving_users() as stage:
        users = open_grpc(world.kind, service_name="users", address=stage.address)
        open_circuit(users.client.breaker)
        await users.wait_until_ready(5)

        assert (await users.get("1")).user_id == "1"
        await users.close()


async def test_a_graphql_server_that_is_ready_is_called_though_its_circuit_had_opened(world: World) -> None:
    async def answer(peer: Peer, request: Request) -> None:
        await peer.reply(200, b'{"data": {"__typename": "Query"}}', content_type="application/json")

    stage = await world.stage(answer)
    if world.kind == "asynchronous":
        async with servicelink.GraphQLClient(service_name="catalog", base_url=stage.address) as catalog:
            open_circuit(catalog.breaker)
            await catalog.wait_until_ready(5)
            data = await catalog.query("{ __typename }")
    else:
        with sync.GraphQLClient(service_name="catalog", base_url=stage.address) as plain:
            open_circuit(plain.breaker)
            await in_thread(plain.wait_until_ready, 5)
            data = await in_thread(plain.query, "{ __typename }")

    assert data == {"__typename": "Query"}


@pytest.mark.parametrize(("status", "asked"), [(500, 2), (503, 2), (599, 2), (501, 1), (404, 1), (302, 1)])
async def test_a_server_in_need_is_not_ready_and_one_that_answers_is(world: World, status: int, asked: int) -> None:
    async def starting(peer: Peer, request: Request) -> None:
        await peer.reply(status if len(stage.requests) == 1 else 200)

    stage = await world.stage(starting)
    await wait(world, world.connect(stage, Hands()).client, 30)

    assert len(stage.requests) == asked


async def test_a_server_that_never_comes_is_one_warning(world: World, caplog: pytest.LogCaptureFixture) -> None:
    stage = await world.stage(drop)
    caplog.set_level(logging.INFO, "servicelink")
    with pytest.raises(servicelink.ServiceUnavailable):
        await wait(world, world.connect(stage, Hands()).client, 2)

    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("not ready after 2 s: api GET /healthz: the connection broke")
