"""What is seen of a call: log lines, IDs that are carried on, traces, measurements; and never a credential."""

import asyncio
import copy
import io
import logging
import pickle
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sdk_worlds import WORLDS, Caller, Hands, Peer, Request, Stage, open_caller, staged
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

import servicelink
from servicelink import CircuitBreaker, Measured, Protocol, errors
from servicelink.context import read_incoming
from servicelink.measures import CallRow, CallTally, PrometheusCollector
from servicelink_contract.key import render_key

KEY = render_key("AAAAAAAA", b"a" * 32).text
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass(slots=True)
class World:
    """A server that answers by the path, and clients of one kind."""

    kind: str
    stage: Stage
    stack: AsyncExitStack

    def connect(self, hands: Hands | None = None, **options: Any) -> Caller:
        """Answer a client, closed at the test's end."""
        given: dict[str, Any] = {"service_name": "api", "base_url": self.stage.address, "api_key": KEY}
        caller = open_caller(self.kind, hands, **{**given, **options})
        self.stack.push_async_callback(caller.close)
        return caller

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the last request."""
        return self.stage.requests[-1].headers


async def play(peer: Peer, request: Request) -> None:
    path = request.line.split()[1].partition("?")[0]
    if path == "/drop":
        raise EOFError
    if path == "/silent":
        await peer.until_gone()
        raise EOFError
    refusals = {"/refused": "INVALID_SERVICE_AUTH", "/denied": "PERMISSION_DENIED"}
    if path in refusals:
        await peer.reply(403, f'{{"error": {{"code": "{refusals[path]}"}}}}'.encode(), content_type="application/json")
    elif path == "/echo":
        # A server that repeats what it was sent.
        await peer.reply(500, repr(request.headers).encode())
    else:
        await peer.reply(int(path[1:4] or "200"), b"{}")


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
        "X-Request-Timeout-Ms": "1000",
    }
    with servicelink.carry(headers):
        assert servicelink.current_correlation_id() == "c-1"
        await world.connect(interceptors=()).get("/")
    sent = world.headers

    assert (sent["x-request-id"], sent["x-correlation-id"], sent["tracestate"]) == ("r-1", "c-1", "a=b")
    assert sent["traceparent"].split("-")[1] == PARENT.split("-")[1]
    assert 0 < int(sent["x-request-timeout-ms"]) <= 1000
    assert servicelink.current_correlation_id() is None


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


@pytest.fixture(scope="module")
def telemetry() -> Iterator[tuple[InMemorySpanExporter, InMemoryMetricReader]]:
    """OpenTelemetry as an application sets it up, with aiohttp's own instrumentation."""
    from opentelemetry import metrics  # noqa: PLC0415 - the name is short where it is used

    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([reader]))
    AioHttpClientInstrumentor().instrument()
    yield spans, reader
    AioHttpClientInstrumentor().uninstrument()
    provider.shutdown()


@pytest.fixture
def spans(telemetry: tuple[InMemorySpanExporter, InMemoryMetricReader]) -> InMemorySpanExporter:
    telemetry[0].clear()
    return telemetry[0]


def said(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_every_attempt_has_a_span_by_the_conventions_and_engines_have_none(
    world: World, spans: InMemorySpanExporter
) -> None:
    api = world.connect(Hands())
    await api.get("/503?secret=1")
    found = spans.get_finished_spans()

    assert [span.name for span in found] == ["GET"] * 3
    assert [said(span).get("http.request.resend_count") for span in found] == [None, 1, 2]
    attributes = said(found[0])
    assert attributes["http.request.method"] == "GET"
    assert attributes["http.response.status_code"] == 503
    assert attributes["error.type"] == "503"
    assert attributes["service.peer.name"] == "api"
    assert attributes["server.address"] == "127.0.0.1"
    assert attributes["url.full"] == f"{world.stage.address}/503"
    assert found[0].kind is trace.SpanKind.CLIENT


async def test_the_server_is_told_the_span_that_calls_it(world: World, spans: InMemorySpanExporter) -> None:
    tracer = trace.get_tracer("test")
    with tracer.start_as_current_span("outer") as outer:
        await world.connect().get("/")
    inner = spans.get_finished_spans()[0]

    assert inner.parent is not None
    assert inner.parent.span_id == outer.get_span_context().span_id
    assert inner.context is not None
    assert world.headers["traceparent"].split("-")[2] == f"{inner.context.span_id:016x}"


async def test_without_a_span_of_its_own_a_call_belongs_to_the_incoming_trace(
    world: World, spans: InMemorySpanExporter
) -> None:
    with servicelink.carry({"traceparent": PARENT}):
        await world.connect().get("/")
    [span] = spans.get_finished_spans()

    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == PARENT.split("-")[1]


async def test_durations_are_measured_by_the_conventions(
    world: World, telemetry: tuple[InMemorySpanExporter, InMemoryMetricReader]
) -> None:
    await world.connect().get("/")
    data = telemetry[1].get_metrics_data()
    assert data is not None
    scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
    names = {(scope.scope.name, metric.name, metric.unit) for scope in scopes for metric in scope.metrics}

    assert ("servicelink", "http.client.request.duration", "s") in names


FORWARDS = """
import sys, servicelink
from servicelink import sync
with servicelink.carry({"traceparent": sys.argv[2], "tracestate": "a=b"}):
    sync.ServiceClient(service_name="api", base_url=sys.argv[1]).get("/")
sync.ServiceClient(service_name="api", base_url=sys.argv[1]).get("/")
assert not any(name.startswith("opentelemetry") for name in sys.modules)
"""


async def test_without_opentelemetry_a_trace_is_forwarded_as_it_came_and_never_invented() -> None:
    async with staged(play) as stage:
        command = [sys.executable, "-c", FORWARDS, stage.address, PARENT]
        process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE)
        _, problem = await process.communicate()

    assert (process.returncode, problem.decode()) == (0, "")
    assert [request.headers.get("traceparent") for request in stage.requests] == [PARENT, None]
    assert stage.requests[0].headers["tracestate"] == "a=b"


async def test_no_credential_is_ever_seen(
    world: World, spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong: in messages, reprs, logs with their arguments, tracebacks with local variables, spans."""
    caplog.set_level(logging.DEBUG)
    output = io.StringIO()
    api = world.connect(Hands(), breaker=CircuitBreaker(failures=9))
    calls: list[tuple[str, dict[str, Any]]] = [
        *[(path, {}) for path in ("/", "/500", "/503", "/drop", "/refused", "/denied", "/echo")],
        ("/silent", {"timeout": 0.05}),
        ("/404", {"raise_for_status": True}),
        ("http://127.0.0.1:9/", {}),
        ("/", {"headers": {"x": "a\nb"}}),
    ]
    for path, options in calls:
        try:
            answer = await api.get(path, **options)
            print(repr(answer), vars(answer.request), repr(answer.request.headers), file=output)
        except servicelink.ServiceError as error:
            report = traceback.TracebackException.from_exception(error, capture_locals=True)
            print(str(error), repr(error), vars(error), *report.format(), file=output)
    line = api.client._line  # noqa: SLF001 - as a debugger would show it
    print(repr(api.client), repr(line), repr(line.source), repr(line.source.current()), file=output)
    print(*(repr(vars(record)) for record in caplog.records), file=output)
    print(*(span.to_json() for span in spans.get_finished_spans()), file=output)
    seen = output.getvalue()

    assert world.headers["x-service-auth"] == KEY
    assert len(seen) > 10_000
    assert KEY not in seen
    assert KEY[13:56] not in seen


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
