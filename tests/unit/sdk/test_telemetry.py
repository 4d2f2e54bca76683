"""Traces and durations are those of OpenTelemetry's conventions; without it a trace is passed on as it came."""

import asyncio
import io
import logging
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.instrumentation.utils import is_instrumentation_enabled, suppress_instrumentation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sdk_seen import KEY, PARENT, World, play
from sdk_worlds import WORLDS, Hands, in_thread, staged

import servicelink
from servicelink import CircuitBreaker, sync


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(request.param, await stack.enter_async_context(staged(play)), stack)


@pytest.fixture(scope="module")
def telemetry() -> Iterator[tuple[InMemorySpanExporter, InMemoryMetricReader]]:
    """OpenTelemetry as an application sets it up, with aiohttp's own instrumentation.

    Of this module's own, since what a process sets it keeps for good: later tests would be traced as well.
    """
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    provider, meters = TracerProvider(), MeterProvider([reader])
    provider.add_span_processor(SimpleSpanProcessor(spans))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("opentelemetry.trace.get_tracer", provider.get_tracer)
        patch.setattr("opentelemetry.metrics.get_meter", meters.get_meter)
        AioHttpClientInstrumentor().instrument(tracer_provider=provider, meter_provider=meters)
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


async def look_up(address: str) -> bytes:
    """Make a call as an application that keeps its aiohttp, which traces itself."""
    async with aiohttp.ClientSession() as session, session.get(address) as answer:
        return await answer.read()


def looked_up(world: World) -> Any:
    """Answer a body whose pieces are looked up one by one."""
    tracer = trace.get_tracer("test")

    async def asynchronous() -> AsyncIterator[bytes]:
        with tracer.start_as_current_span("making"):
            for _ in range(2):
                yield await look_up(world.stage.address)

    def synchronous() -> Iterator[bytes]:
        with tracer.start_as_current_span("making"):
            for _ in range(2):
                yield asyncio.run(look_up(world.stage.address))

    return asynchronous() if world.kind == "asynchronous" else synchronous()


async def test_what_an_application_does_while_it_makes_a_body_is_traced_as_ever(
    world: World, spans: InMemorySpanExporter
) -> None:
    with trace.get_tracer("test").start_as_current_span("outer") as outer:
        await world.connect().post("/", content=looked_up(world))
    found = {span.context.span_id: span for span in spans.get_finished_spans() if span.context}
    names = {key: span.name for key, span in found.items()} | {outer.get_span_context().span_id: "outer"}

    assert world.stage.requests[-1].body == b"{}{}"
    # The engine's own call is not among them.
    assert sorted((span.name, names[span.parent.span_id]) for span in found.values() if span.parent) == [
        ("GET", "making"),
        ("GET", "making"),
        ("POST", "outer"),
        ("making", "outer"),
    ]


class Asking(io.BytesIO):
    """A file that asks whether instrumentations speak, whenever it is read."""

    def __init__(self) -> None:
        super().__init__(b"ab")
        self.heard: list[bool] = []

    def read(self, size: int | None = -1, /) -> bytes:
        """Ask."""
        self.heard.append(is_instrumentation_enabled())
        return super().read(size)


async def test_an_applications_own_silence_is_kept_while_it_makes_a_body(
    world: World, spans: InMemorySpanExporter
) -> None:
    assert not spans.get_finished_spans()
    api, loud, quiet = world.connect(), Asking(), Asking()
    await api.post("/", files={"file": loud})
    with suppress_instrumentation():
        await api.post("/", files={"file": quiet})

    assert (set(loud.heard), set(quiet.heard)) == ({True}, {False})


async def test_a_mocked_server_keeps_nothing_silent_either(world: World, spans: InMemorySpanExporter) -> None:
    assert not spans.get_finished_spans()
    mocks = {"asynchronous": servicelink.create_mock_service_client, "synchronous": sync.create_mock_service_client}
    mocked: Any = mocks[world.kind]("api")
    mocked.post.returns({})
    body = looked_up(world)
    await (
        mocked.post("/", content=body) if world.kind == "asynchronous" else in_thread(mocked.post, "/", content=body)
    )

    assert [span.name for span in spans.get_finished_spans()] == ["GET", "GET", "making", "POST"]


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
