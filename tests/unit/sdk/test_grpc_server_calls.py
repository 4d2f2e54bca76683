"""Handlers behind our interceptor are run as grpcio alone would run them, whatever kind of function they are."""

import asyncio
import functools
import gc
import inspect
import math
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_guarded import AUTH, UNAUTHENTICATED, Client
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_servers import KINDS, VERIFIER, serving, write_grpc_verifier
from sdk_worlds import in_thread
from users_service import FULL_NAME

import servicelink
from servicelink import context, sync
from servicelink.authority import Authority
from servicelink.grpc.server_door import HEALTH
from servicelink_contract.verifier import Mode

SHARED = ("x-service-auth", "one")
METHOD = "/a.B/C"


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a shared key, and no verifier."""
    monkeypatch.setenv("INTERNAL_API_KEY", "one")
    monkeypatch.delenv("SERVICELINK_VERIFIER_DIR", raising=False)


@pytest.fixture
def verifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have a verifier, and no shared key."""
    monkeypatch.delenv("INTERNAL_API_KEY")
    monkeypatch.setenv("SERVICELINK_VERIFIER_DIR", str(tmp_path))
    write_grpc_verifier(tmp_path)
    return tmp_path


def adding(handler: Any) -> Callable[[Any, Any], None]:
    """Answer what adds one method to a server."""
    handlers = {"C": handler}
    return lambda _, server: server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.B", handlers),))


@contextmanager
def threads_serving(handler: Any, **options: Any) -> Iterator[grpc.Channel]:
    """Serve one method by a server of threads; answers a client's channel."""
    with (
        sync.grpc_server({adding(handler): None}, host="127.0.0.1", port=0, **options) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        yield channel


def test_a_function_that_hands_on_its_answers_later_keeps_no_thread_and_its_deadline_to_the_end() -> None:
    reached: list[Any] = []

    def tell(request: bytes, rpc: Any, send: Callable[[bytes | None], None]) -> None:
        """Leave the rest to the test."""
        reached.append((servicelink.current_link(), context.incoming.get(), send))
        send(request)

    behaviour: Any = tell
    behaviour.experimental_non_blocking = True
    with threads_serving(grpc.unary_stream_rpc_method_handler(tell), threads=1) as channel:
        method: Any = channel.unary_stream(METHOD)
        calls = [method(b"a", metadata=(SHARED,), timeout=10) for _ in range(3)]
        firsts = [next(call) for call in calls]
        limited = [came.deadline for _, came, _ in reached]
        for _, _, send in reached:
            send(b"b")
            send(None)
        rests = [list(call) for call in calls]

    assert (firsts, rests) == ([b"a"] * 3, [[b"b"]] * 3)
    assert [link and link.link for link, _, _ in reached] == ["shared key"] * 3
    assert all(deadline < math.inf for deadline in limited)
    assert [came.deadline for _, came, _ in reached] == [math.inf] * 3


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
def test_a_function_runs_in_the_threads_that_it_asks_for(kind: str) -> None:
    def name(request: Any, rpc: Any) -> Any:
        """Answer which thread this is."""
        found = threading.current_thread().name.encode()
        return iter([found]) if kind.endswith("_stream") else found

    behaviour: Any = name
    with ThreadPoolExecutor(1, "own") as behaviour.experimental_thread_pool:
        handler = getattr(grpc, f"{kind}_rpc_method_handler")(name)
        with threads_serving(handler) as channel:
            asked: Any = iter([b"a"]) if kind.startswith("stream_") else b"a"
            answer = getattr(channel, kind)(METHOD)(asked, metadata=(SHARED,), timeout=10)
            answers = list(answer) if kind.endswith("_stream") else [answer]

    assert [text.decode().partition("_")[0] for text in answers] == ["own"]


def test_a_handler_may_note_on_its_context_what_it_likes() -> None:
    def note(request: bytes, rpc: Any) -> bytes:
        """Answer what was noted."""
        rpc.note = request
        noted: bytes = rpc.note
        return noted

    with threads_serving(grpc.unary_unary_rpc_method_handler(note)) as channel:
        method: Any = channel.unary_unary(METHOD)

        assert method(b"a", metadata=(SHARED,), timeout=10) == b"a"


@pytest.mark.parametrize("kind", KINDS)
async def test_who_watches_health_keeps_no_thread_from_others(kind: str, verifier: Path) -> None:
    threads = {"threads": 2} if kind == "threads" else {}
    async with serving(kind, exempt=(HEALTH,), **threads) as served:
        with grpc.insecure_channel(served.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=10) for _ in range(4)]
            seen = [(await in_thread(next, watch)).status for watch in watches]

            assert seen == [health_pb2.HealthCheckResponse.SERVING] * 4
            assert await Client(channel).call("GetUser", AUTH) == "7"
            for watch in watches:
                watch.cancel()


def send_in_parts(channel: grpc.Channel, method: str, messages: Any, *metadata: tuple[str, str]) -> Any:
    """Call a method that takes one message, and send it others; answers the call under way."""
    anyhow: Any = channel.stream_stream(f"/{FULL_NAME}/{method}")
    return anyhow(messages, metadata=metadata, timeout=10)


@pytest.fixture
def silence() -> Iterator[Callable[[], Iterator[bytes]]]:
    """`silence()` answers messages that never come."""
    ended = threading.Event()

    def wait() -> Iterator[bytes]:
        ended.wait()
        yield from ()

    yield wait
    ended.set()


@pytest.mark.parametrize("method", ["GetUser", "ListUsers"])
@pytest.mark.parametrize("kind", KINDS)
async def test_strangers_who_send_nothing_are_refused_and_keep_no_thread(
    kind: str, method: str, verifier: Path, silence: Callable[[], Iterator[bytes]]
) -> None:
    write_grpc_verifier(verifier, replace(VERIFIER, trust=Authority("one").trust))
    threads = {"threads": 2} if kind == "threads" else {}
    async with serving(kind, **threads) as served:
        with grpc.insecure_channel(served.address) as channel:
            calls = [send_in_parts(channel, method, silence()) for _ in range(4)]
            refused = [(await in_thread(call.code), dict(call.trailing_metadata())) for call in calls]

            assert [(code, trailing["x-servicelink-code"]) for code, trailing in refused] == [UNAUTHENTICATED] * 4
            assert await Client(channel).call("GetUser", AUTH) == "7"


@pytest.mark.parametrize("method", ["GetUser", "ListUsers"])
@pytest.mark.parametrize("kind", KINDS)
async def test_who_is_let_in_late_sends_one_message_as_anybody_else(kind: str, method: str, verifier: Path) -> None:
    # In audit everybody is let in, and with roots not before the certificate was looked for.
    audit = replace(VERIFIER, mode=Mode.AUDIT, trust=Authority("one").trust)
    write_grpc_verifier(verifier, audit)
    async with serving(kind) as served:
        with grpc.insecure_channel(served.address) as channel:
            none = send_in_parts(channel, method, iter(()))
            several = send_in_parts(channel, method, iter([b"", b"", b""]))
            told = await in_thread(none.code), none.details()
            answers = await in_thread(list, several)

            assert told == (
                grpc.StatusCode.UNIMPLEMENTED,
                f'"/{FULL_NAME}/{method}" requires exactly one request message.',
            )
            assert (len(answers), several.code()) == (1 if method == "GetUser" else 0, grpc.StatusCode.OK)
            assert [one.method for one in served.users.reached] == [method]
            assert await Client(channel).call(method) == ("7" if method == "GetUser" else ["0", "1"])


class AioWrapping(grpc.aio.ServerInterceptor):
    """An application's own interceptor, which wraps what serves a call anew for each."""

    def __init__(self) -> None:
        self.made: list[weakref.ref[Any]] = []

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Wrap a handler of one message and one answer."""
        handler = await continuation(handler_call_details)

        async def serve(request: Any, rpc: Any) -> Any:
            return await handler.unary_unary(request, rpc)

        self.made.append(weakref.ref(serve))
        return grpc.unary_unary_rpc_method_handler(serve, handler.request_deserializer, handler.response_serializer)


class ThreadWrapping(grpc.ServerInterceptor):
    """As `AioWrapping`."""

    def __init__(self) -> None:
        self.made: list[weakref.ref[Any]] = []

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Wrap a handler of one message and one answer."""
        handler = continuation(handler_call_details)

        def serve(request: Any, rpc: Any) -> Any:
            return handler.unary_unary(request, rpc)

        self.made.append(weakref.ref(serve))
        return grpc.unary_unary_rpc_method_handler(serve, handler.request_deserializer, handler.response_serializer)


@pytest.mark.parametrize("kind", ["aio", "threads"])
async def test_what_interceptors_make_for_one_call_ends_with_it(kind: str, verifier: Path) -> None:
    wrapping = AioWrapping() if kind == "aio" else ThreadWrapping()
    async with serving(kind, interceptors=[wrapping]) as served:
        with grpc.insecure_channel(served.address) as channel:
            client = Client(channel)
            for _ in range(5):
                assert await client.call("GetUser", AUTH) == "7"
        async with asyncio.timeout(10):
            while any(made() is not None for made in wrapping.made):
                gc.collect()
                await asyncio.sleep(0)

    assert len(wrapping.made) == 5


class Methods:
    """Functions of other kinds than plain ones."""

    async def answer(self, request: bytes, rpc: Any) -> bytes:
        """Answer the message."""
        return request

    async def stream(self, request: bytes, rpc: Any) -> AsyncIterator[bytes]:
        """Answer the message, once."""
        yield request

    def __call__(self, request: bytes, rpc: Any) -> bytes:
        """Answer the message."""
        return request


@pytest.mark.parametrize(
    "behaviour",
    [
        Methods().answer,
        functools.partial(Methods.answer, Methods()),
        functools.partial(Methods().answer),
        Methods().stream,
        functools.partial(Methods.stream, Methods()),
        Methods(),
        functools.partial(Methods()),
    ],
)
async def test_functions_of_all_kinds_serve_on_grpc_aio(behaviour: Any) -> None:
    is_streamed = inspect.isasyncgenfunction(behaviour)
    name = "unary_stream" if is_streamed else "unary_unary"
    handler = getattr(grpc, f"{name}_rpc_method_handler")(behaviour)
    async with await servicelink.grpc_server({adding(handler): None}, host="127.0.0.1", port=0) as server:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            call = functools.partial(getattr(channel, name)(METHOD), b"a", metadata=(SHARED,), timeout=10)
            answer = await in_thread(lambda: list(call()) if is_streamed else [call()])

    assert answer == [b"a"]


@dataclass(slots=True)
class Endless:
    """Streams that end only when they are broken off, and note what they then know of their call."""

    ended: threading.Event = field(default_factory=threading.Event)
    known: list[tuple[Any, bool]] = field(default_factory=list)

    def note(self) -> None:
        """Note who calls, and whether there is still a time limit."""
        self.known.append((servicelink.current_link(), context.incoming.get().deadline < math.inf))
        self.ended.set()

    async def stream(self, request: bytes, rpc: Any) -> AsyncIterator[bytes]:
        """Answer without an end."""
        try:
            while True:
                yield request
        finally:
            self.note()

    def stream_in_thread(self, request: bytes, rpc: Any) -> Iterator[bytes]:
        """As `stream`."""
        try:
            while True:
                yield request
        finally:
            self.note()


async def break_off(port: int) -> None:
    """Read one answer of a stream, and want no more."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        method: Any = channel.unary_stream(METHOD)
        call = method(b"a" * 1000, metadata=(SHARED,), timeout=60)
        await in_thread(next, call)
        call.cancel()


async def test_a_stream_that_is_broken_off_ends_within_its_call() -> None:
    of_aio, of_threads = Endless(), Endless()
    handler: Any = grpc.unary_stream_rpc_method_handler(of_aio.stream)
    async with await servicelink.grpc_server({adding(handler): None}, host="127.0.0.1", port=0) as served:
        await break_off(served.port)
        assert await in_thread(of_aio.ended.wait, 10)
    handler = grpc.unary_stream_rpc_method_handler(of_threads.stream_in_thread)
    with sync.grpc_server({adding(handler): None}, host="127.0.0.1", port=0) as server:
        await break_off(server.port)
        assert await in_thread(of_threads.ended.wait, 10)

    for known in (of_aio.known, of_threads.known):
        assert [(link.link, limited) for link, limited in known] == [("shared key", True)]
