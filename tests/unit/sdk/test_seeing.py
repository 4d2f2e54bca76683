"""What is seen of a call: log lines, IDs that are carried on, traces, measurements; and never a credential."""

import copy
import logging
import pickle
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from sdk_seen import KEY, PARENT, World, play
from sdk_worlds import WORLDS, Hands, staged
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

import servicelink
from servicelink import CircuitBreaker, Measured, Protocol, errors
from servicelink.context import read_incoming
from servicelink.measures import CallRow, CallTally, PrometheusCollector


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(request.param, await stack.enter_async_context(staged(play)), stack)


async def test_a_call_is_logged_at_its_start_and_end_with_its_correlation_id(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "servicelink")
    api = world.connect()
    await api.get("/", headers={"x-correlation-id": "c-1"})
    await api.get("/500")
    levels = [record.levelname for record in caplog.records if record.name == "servicelink"]
    first = caplog.records[1]

    assert levels == ["DEBUG", "INFO", "DEBUG", "WARNING"]
    assert "c-1" in first.getMessage()
    assert (first.__dict__["link"], first.__dict__["operation"], first.__dict__["correlation_id"]) == (
        "api",
        "GET /",
        "c-1",
    )


async def test_no_path_writes_a_log_line_of_its_own(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "servicelink")
    await world.connect().get("/200%0aall%20keys%1b[2J%C3%A4", params={"token": "secret"})
    lines = [record.getMessage() for record in caplog.records if record.name == "servicelink"]

    assert ["GET /200%0aall%20keys%1b[2J%C3%A4: " in line for line in lines] == [True, True]
    assert all(line.isprintable() and "secret" not in line for line in lines)


@pytest.mark.parametrize("method", ["G T", "GET\r\nx: y", "", "GÄT"])
async def test_a_method_that_is_none_is_its_callers_error_alone(world: World, method: str) -> None:
    api = world.connect()
    for _ in range(6):
        with pytest.raises(servicelink.ServiceError, match="no name that a method can have") as bad:
            await api.request(method, "/")
        assert str(bad.value).isprintable()

    assert (world.stage.requests, api.client.breaker.state) == ([], servicelink.CircuitState.CLOSED)


async def test_ids_trace_and_time_left_of_an_incoming_call_go_out_again(world: World) -> None:
    headers = {
        "X-Request-ID": "r-1",
        "X-Correlation-ID": "c-1",
        "traceparent": PARENT,
        "tracestate": "a=b",
        "X-Request-Timeout-Ms": "30000",
    }
    with servicelink.carry(headers):
        assert (servicelink.current_correlation_id(), servicelink.current_request_id()) == ("c-1", "r-1")
        await world.connect(timeout=60).get("/")
    sent = world.headers

    assert (sent["x-request-id"], sent["x-correlation-id"], sent["tracestate"]) == ("r-1", "c-1", "a=b")
    assert sent["traceparent"].split("-")[1] == PARENT.split("-")[1]
    assert 0 < int(sent["x-request-timeout-ms"]) <= 30_000
    assert (servicelink.current_correlation_id(), servicelink.current_request_id()) == (None, None)


async def test_calls_of_nobodys_have_fresh_ids(world: World) -> None:
    api = world.connect()
    await api.get("/")
    first = world.headers
    await api.get("/")

    assert first["x-request-id"] == first["x-correlation-id"] != world.headers["x-request-id"]


async def test_an_application_may_set_ids_and_trace_itself(world: World) -> None:
    with servicelink.carry({"x-request-id": "r-1", "traceparent": PARENT}):
        await world.connect().get("/", headers={"X-Request-ID": "own", "X-Correlation-ID": "own-c"})

    assert (world.headers["x-request-id"], world.headers["x-correlation-id"]) == ("own", "own-c")


@pytest.mark.parametrize("text", ["", "a b", "a\nb", "x" * 129, "ä", "a;b"])
def test_ids_that_are_not_well_formed_are_not_carried_on(text: str) -> None:
    found = read_incoming({"x-request-id": text, "x-correlation-id": text}, 0.0)

    assert (found.request_id, found.correlation_id) == (None, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        PARENT.upper(),
        PARENT.replace("00-", "ff-", 1),
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        PARENT[:-1],
        f"{PARENT}\n",
    ],
)
def test_a_trace_that_is_not_well_formed_is_not_carried_on(text: str) -> None:
    found = read_incoming({"traceparent": text, "tracestate": "a=b"}, 0.0)

    assert (found.traceparent, found.tracestate) == (None, None)


@pytest.mark.parametrize("text", ["", " ", " a=b", "a=b ", "a=b\n", "a=\t"])
def test_a_state_of_the_trace_that_no_header_can_hold_is_not_carried_on(text: str) -> None:
    found = read_incoming({"traceparent": PARENT, "tracestate": text}, 0.0)

    assert (found.traceparent, found.tracestate) == (PARENT, None)


@pytest.mark.parametrize(("text", "left"), [("1500", 1.5), ("0", 0.0), ("-1", None), ("1e3", None), ("9" * 11, None)])
def test_the_time_left_is_a_number_of_milliseconds(text: str, left: float | None) -> None:
    deadline = read_incoming({"x-request-timeout-ms": text}, 10.0).deadline

    assert deadline == (float("inf") if left is None else 10.0 + left)


async def test_what_comes_in_through_the_middleware_goes_out_through_a_client(
    world: World, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SERVICELINK_VERIFIER_DIR", raising=False)
    monkeypatch.setenv("INTERNAL_API_KEY", KEY)
    inner = world.connect()

    async def relay(request: Any) -> JSONResponse:
        await inner.get("/")
        return JSONResponse({})

    address = await serve(servicelink.LinkMiddleware(Starlette(routes=[Route("/relay", relay)])))
    async with servicelink.ServiceClient(service_name="relay", base_url=address, shared_key=True) as outer:
        await outer.get("/relay", headers={"x-request-id": "r-1", "x-correlation-id": "c-1"}, timeout=2)

    assert (world.headers["x-request-id"], world.headers["x-correlation-id"]) == ("r-1", "c-1")
    assert 0 < int(world.headers["x-request-timeout-ms"]) <= 2000


class Sink:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.seen: list[Measured] = []

    def record(self, measured: Measured) -> None:
        """Keep it."""
        self.seen.append(measured)


class BrokenSink:
    """Fails."""

    def record(self, measured: Measured) -> None:
        """Fail."""
        raise LookupError


async def test_a_sink_is_told_of_every_call_however_it_ends(world: World) -> None:
    sink = Sink()
    api = world.connect(Hands(), metrics=sink, breaker=CircuitBreaker(failures=6))
    for path in ("/", "/404", "/500", "/503", "/drop", "/refused"):
        try:
            await api.get(path)
        except servicelink.ServiceError:
            continue

    assert [(one.result, one.status, one.attempts) for one in sink.seen] == [
        ("answered", 200, 1),
        ("answered", 404, 1),
        ("broken", 500, 1),
        ("away", 503, 3),
        ("cut", None, 1),
        ("refused", 403, 1),
    ]
    assert {(one.link, one.protocol) for one in sink.seen} == {("api", Protocol.REST)}


async def test_a_sink_that_fails_fails_no_call(world: World, caplog: pytest.LogCaptureFixture) -> None:
    assert (await world.connect(metrics=BrokenSink()).get("/")).status_code == 200
    assert "metrics sink" in caplog.text


async def test_the_process_counts_all_calls(world: World) -> None:
    api = world.connect(service_name="counted")
    await api.get("/")
    await api.get("/")
    found = servicelink.metrics()[CallRow("counted", Protocol.REST, "answered")]

    assert found.calls >= 2
    assert found.buckets[10.0] == found.calls


def test_counts_are_bounded() -> None:
    tally = CallTally(max_rows=2)
    for number in range(5):
        tally.record(Measured(f"link-{number}", Protocol.REST, "GET /", "answered", 200, 1, 0.01))

    assert tally.counts()[CallRow("(others)", Protocol.REST, "answered")].calls == 3


def test_prometheus_gets_the_numbers() -> None:
    from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415 - as an application would

    tally = CallTally()
    tally.record(Measured("api", Protocol.REST, "GET /", "answered", 200, 3, 0.02))
    registry = CollectorRegistry()
    registry.register(PrometheusCollector(tally))
    text = generate_latest(registry).decode()

    labels = 'link="api",protocol="REST",result="answered"'
    assert f'servicelink_client_call_seconds_bucket{{le="0.025",{labels}}} 1.0' in text
    assert f"servicelink_client_call_seconds_count{{{labels}}} 1.0" in text
    assert f"servicelink_client_resends_total{{{labels}}} 2.0" in text


@pytest.mark.parametrize("kind", [one for one in vars(errors).values() if isinstance(one, type)])
def test_errors_travel_between_processes(kind: type[Any]) -> None:
    if not issubclass(kind, servicelink.ServiceError):
        return
    place = {"link": "shop/web", "operation": "GET /", "request_id": "r-1", "next_step": "Wait"}
    error = kind(404, "GONE", "body", **place) if issubclass(kind, servicelink.RemoteError) else kind("it", **place)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 (our own)
        assert (str(again), vars(again)) == (str(error), vars(error))
        assert str(again).startswith("shop/web GET /: ")
        assert str(again).endswith("(request r-1). Wait")


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    drawn = {
        line.split("─ ")[1].split()[0]: line.index("─ ") for line in (errors.__doc__ or "").splitlines() if "─ " in line
    }
    real = {name: one for name, one in vars(errors).items() if isinstance(one, type) and one is not errors.ServiceError}
    real = {name: one for name, one in real.items() if issubclass(one, servicelink.ServiceError)}

    assert set(drawn) == set(real)
    assert {name for name, depth in drawn.items() if depth > min(drawn.values())} == {
        name for name, one in real.items() if one.__base__ is not servicelink.ServiceError
    }
