"""What is seen of gRPC calls: spans and durations by the conventions, log lines and counts; and never a credential."""

import asyncio
import io
import logging
import re
import traceback
from collections import deque
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from grpc_worlds import GrpcCaller, GrpcStage, open_grpc, serving_users
from opentelemetry import trace
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sdk_worlds import WORLDS, Hands, in_thread
from users_service import DENIED, FULL_NAME, REFUSED, Failure, failing, generated

import servicelink
from servicelink import Call, Measured, Outcome, Protocol, sync
from servicelink.measures import CallRow
from servicelink.otel import Tracing
from servicelink_contract.key import render_key

KEY = render_key("AAAAAAAA", b"a" * 32).text
OPERATION = f"{FULL_NAME}/GetUser"


class World:
    """A server, and clients of one kind."""

    def __init__(self, kind: str, stage: GrpcStage, stack: AsyncExitStack) -> None:
        self.kind = kind
        self.stage = stage
        self._stack = stack

    def connect(self, hands: Hands | None = None, **options: Any) -> GrpcCaller:
        """Answer a client, closed at the test's end."""
        given = {"service_name": "users", "address": self.stage.address, "api_key": KEY, **options}
        caller = open_grpc(self.kind, hands, **given)
        self._stack.push_async_callback(caller.close)
        return caller

    def fail(self, *failures: Failure) -> None:
        """Have the next calls fail like this."""
        self.stage.users.failures = deque(failures)


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(request.param, await stack.enter_async_context(serving_users()), stack)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Spans of a provider of this test's own: a process may set its own only once."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("opentelemetry.trace.get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


def said(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


class Tenant:
    """An interceptor that writes a name as headers are written."""

    def intercept(self, call: Call) -> Generator[None, Outcome, None]:
        """Name the tenant."""
        call.metadata["X-Tenant"] = "shop"
        yield


async def test_an_interceptor_may_write_names_as_for_rest(world: World) -> None:
    await world.connect(interceptors=[Tenant()]).get()

    assert world.stage.users.seen[-1].all("x-tenant") == ["shop"]


@pytest.mark.parametrize("status", ["UNAVAILABLE", "NOT_FOUND", "INTERNAL"])
async def test_a_log_line_names_the_status(world: World, caplog: pytest.LogCaptureFixture, status: str) -> None:
    caplog.set_level(logging.INFO, "servicelink")
    world.fail(failing(status))
    with pytest.raises(servicelink.ServiceError):
        await world.connect(retries=0).get()
    [record] = [record for record in caplog.records if record.name == "servicelink"]

    assert re.search(rf"GetUser: \w+ {status} in \d+ ms", record.getMessage())
    assert record.__dict__["status"] == grpc.StatusCode[status].value[0]


async def test_every_attempt_has_a_span_by_the_conventions(world: World, spans: InMemorySpanExporter) -> None:
    world.fail(failing("UNAVAILABLE"))
    await world.connect(Hands()).get()
    first, second = spans.get_finished_spans()
    host, _, port = world.stage.address.rpartition(":")

    assert [first.name, second.name] == [OPERATION, OPERATION]
    assert first.kind is trace.SpanKind.CLIENT
    attributes = said(first)
    assert attributes["rpc.system.name"] == "grpc"
    assert attributes["rpc.method"] == OPERATION
    assert attributes["rpc.response.status_code"] == attributes["error.type"] == "UNAVAILABLE"
    assert (attributes["server.address"], attributes["server.port"]) == (host, int(port))
    assert attributes["service.peer.name"] == "users"
    assert said(second)["rpc.response.status_code"] == "OK"
    assert "error.type" not in said(second)


async def test_a_streams_span_ends_with_the_stream_and_the_server_is_told_of_it(
    world: World, spans: InMemorySpanExporter
) -> None:
    reader = await world.connect().open_list(2)
    await reader.next()
    meanwhile = len(spans.get_finished_spans())
    await reader.next()
    await reader.next()
    [span] = spans.get_finished_spans()
    assert span.context is not None
    [parent] = world.stage.users.seen[-1].all("traceparent")

    assert meanwhile == 0
    assert str(parent).split("-")[2] == f"{span.context.span_id:016x}"


def asking(heard: list[bool]) -> Iterator[Any]:
    """Answer requests whose making asks whether instrumentations speak."""
    for number in range(2):
        heard.append(is_instrumentation_enabled())
        yield generated()[0].User(user_id=str(number))


async def asking_later(heard: list[bool]) -> AsyncIterator[Any]:
    for user in asking(heard):
        await asyncio.sleep(0)
        yield user


async def test_what_an_application_does_while_it_makes_requests_is_traced_as_ever(world: World) -> None:
    users = world.connect()
    heard: list[bool] = []
    arrived = await users.add(asking(heard))
    if world.kind == "asynchronous":
        arrived += (await users.stub.AddUsers(asking_later(heard))).count
    mocks = {"asynchronous": servicelink.create_mock_grpc_client, "synchronous": sync.create_mock_grpc_client}
    mocked: Any = mocks[world.kind]("users")
    stub = mocked.stub(generated()[1].UserServiceStub)
    mocked.method("AddUsers").returns({"count": 2})
    if world.kind == "asynchronous":
        await stub.AddUsers(asking(heard))
    else:
        await in_thread(stub.AddUsers, asking(heard))

    assert heard == [True] * (2 + arrived)


def test_durations_are_measured_under_the_name_of_the_conventions() -> None:
    assert set(vars(Tracing())["_durations"]) == set(Protocol)


class Sink:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.seen: list[Measured] = []

    def record(self, measured: Measured) -> None:
        """Keep it."""
        self.seen.append(measured)


async def test_a_sink_and_the_process_are_told_of_every_call_however_it_ends(world: World) -> None:
    sink = Sink()
    users = world.connect(
        Hands(), metrics=sink, service_name=f"seen-{world.kind}", breaker=servicelink.CircuitBreaker()
    )
    for failure in (None, failing("NOT_FOUND"), failing("UNKNOWN"), REFUSED):
        world.fail(*([] if failure is None else [failure]))
        try:
            await users.get()
        except servicelink.ServiceError:
            continue
    await users.list(2)

    assert [(one.operation.rpartition("/")[2], one.result, one.status) for one in sink.seen] == [
        ("GetUser", "answered", 0),
        ("GetUser", "answered", 5),
        ("GetUser", "broken", 2),
        ("GetUser", "refused", 16),
        ("ListUsers", "answered", 0),
    ]
    assert servicelink.metrics()[CallRow(f"seen-{world.kind}", Protocol.GRPC, "answered")].calls == 3


async def test_no_credential_is_ever_seen(
    world: World, spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong: in messages, reprs, logs with their arguments, tracebacks with local variables, spans."""
    caplog.set_level(logging.DEBUG)
    output = io.StringIO()
    users = world.connect(Hands(), breaker=servicelink.CircuitBreaker(failures=99))
    failures = [*map(failing, ("NOT_FOUND", "UNAVAILABLE", "INTERNAL")), REFUSED, DENIED]
    wrong = (("x-tenant", "a\nb"),)
    for failure in [None, *failures]:
        for call in (users.create, lambda: users.list(1), lambda: users.add([]), lambda: users.chat(["a"])):
            world.fail(*([] if failure is None else [failure]))
            await _show(call(), output)
    await _show(users.get(metadata=wrong), output)
    await _show(users.add([{}]), output)
    await _show(users.mistake(users.stub.ListUsers, {}), output)
    world.stage.users.silent = True
    await _show(users.get(timeout=0.05), output)
    await _show(world.connect(address="127.0.0.1:1", retries=0).get(), output)
    print(repr(users.client), repr(users.client._caller), repr(users.stub), file=output)  # noqa: SLF001 - as shown
    print(*(repr(vars(record)) for record in caplog.records), file=output)
    print(*(span.to_json() for span in spans.get_finished_spans()), file=output)
    seen = output.getvalue()

    assert world.stage.users.seen[-1].all("x-service-auth") == [KEY]
    assert len(seen) > 20_000
    assert KEY not in seen
    assert KEY[13:56] not in seen


async def _show(calling: Any, output: io.StringIO) -> None:
    try:
        print(repr(await calling), file=output)
    except (servicelink.ServiceError, TypeError) as error:
        report = traceback.TracebackException.from_exception(error, capture_locals=True)
        print(str(error), repr(error), vars(error), *report.format(), file=output)
