"""gRPC servers of both worlds check every call, of all four kinds, before the application sees it."""

import asyncio
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_servers import ADD, KEY, KINDS, LINK, OTHER_KEY, VERIFIER, Served, plain_stub, serving, write_grpc_verifier
from grpc_worlds import open_grpc
from sdk_servers import entry_of, make_key
from sdk_worlds import WORLDS, in_thread
from users_service import FULL_NAME, generated

import servicelink
from servicelink import Counted, sync
from servicelink.grpc import server_parts
from servicelink.grpc.server_door import HEALTH
from servicelink.verify import Allowed, Code
from servicelink_contract.paths import MalformedPatternError
from servicelink_contract.rules import GrpcRule
from servicelink_contract.verifier import Mode

UNAUTHENTICATED = (grpc.StatusCode.UNAUTHENTICATED, "INVALID_SERVICE_AUTH")
DENIED = (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
WEB = Allowed("shop/web", "uid-1", KEY.kid)
Start = Callable[..., Awaitable[Served]]


@dataclass(slots=True)
class Client:
    """grpcio's own client of a server; the synchronous one, since grpc.aio's loses the status of streams that it sends.

    (github.com/grpc/grpc, issue 36066.)
    """

    channel: grpc.Channel

    async def call(self, method: str, *metadata: tuple[str, Any]) -> Any:
        """Call a method; answers what it answers, of streams a list. Raises grpc.RpcError."""
        return await in_thread(self._call, method, metadata)

    def _call(self, method: str, metadata: tuple[tuple[str, Any], ...]) -> Any:
        pb2, stub = generated()[0], plain_stub(self.channel)
        if method == "GetUser":
            return stub.GetUser(pb2.GetUserRequest(user_id="7"), metadata=metadata).user_id
        if method == "CreateUser":
            return stub.CreateUser(pb2.User(user_id="7"), metadata=metadata).user_id
        if method == "ListUsers":
            return [user.user_id for user in stub.ListUsers(pb2.ListUsersRequest(count=2), metadata=metadata)]
        if method == "AddUsers":
            return stub.AddUsers(iter([pb2.User(), pb2.User()]), metadata=metadata).count
        return [line.text for line in stub.Chat(iter([pb2.Line(text="a"), pb2.Line(text="b")]), metadata=metadata)]

    async def failure(self, method: str, *metadata: tuple[str, Any]) -> Any:
        """Call a method, and answer how it fails."""
        with pytest.raises(grpc.RpcError) as failed:
            await self.call(method, *metadata)
        return failed.value

    async def refusal(self, method: str, *metadata: tuple[str, Any]) -> tuple[grpc.StatusCode, str | None]:
        """Call a method, and answer how it is refused."""
        refused = await self.failure(method, *metadata)
        return refused.code(), dict(refused.trailing_metadata()).get("x-servicelink-code")


ANSWERS = {"GetUser": "7", "ListUsers": ["0", "1"], "AddUsers": 2, "Chat": ["A", "B"]}
AUTH = ("x-service-auth", KEY.text)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> AsyncIterator[Start]:
    """`await start(**options)` answers a server with a verifier."""
    monkeypatch.setenv("SERVICELINK_VERIFIER_DIR", str(tmp_path))
    monkeypatch.delenv("INTERNAL_API_KEY", raising=False)
    write_grpc_verifier(tmp_path)
    async with AsyncExitStack() as stack:

        async def begin(**options: Any) -> Served:
            return await stack.enter_async_context(serving(kind, **options))

        yield begin


@pytest.fixture
async def client_of() -> AsyncIterator[Callable[[Served], Client]]:
    """`client_of(served)` answers grpcio's own client."""
    channels: list[grpc.Channel] = []

    def make(served: Served) -> Client:
        channels.append(grpc.insecure_channel(served.address))
        return Client(channels[-1])

    yield make
    for channel in channels:
        channel.close()


ClientOf = Callable[[Served], Client]


async def test_calls_of_all_kinds_pass_and_the_application_knows_who_calls(start: Start, client_of: ClientOf) -> None:
    served = await start()
    client = client_of(served)

    assert {method: await client.call(method, AUTH) for method in ANSWERS} == ANSWERS
    assert [one.link for one in served.users.reached] == [WEB] * 4
    assert {one.method: one.in_order for one in served.users.reached if one.in_order} == dict.fromkeys(
        ("ListUsers", "AddUsers", "Chat"), (WEB, WEB)
    )
    assert servicelink.current_link() is None


async def test_a_handler_sees_neither_the_credential_nor_what_only_we_may_say(
    start: Start, client_of: ClientOf
) -> None:
    served = await start()
    client = client_of(served)
    for method in ANSWERS:
        await client.call(method, AUTH, ("x-servicelink-link", "shop/admin"), ("x-tenant", "a"), ("x-raw-bin", b"\0"))

    assert [one.keys - {"user-agent"} for one in served.users.reached] == [{"x-tenant", "x-raw-bin"}] * 4


class Looking(grpc.aio.ServerInterceptor, grpc.ServerInterceptor):
    """An application's own interceptor, of either world."""

    def __init__(self) -> None:
        self.keys: set[str] = set()

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Note which metadata it sees."""
        self.keys |= {key for key, _ in handler_call_details.invocation_metadata}
        return continuation(handler_call_details)


async def test_interceptors_behind_ours_see_no_credential_either(start: Start, client_of: ClientOf) -> None:
    looking = Looking()
    served = await start(interceptors=[looking])
    client = client_of(served)
    await client.call("GetUser", AUTH, ("x-tenant", "a"))
    await client.refusal("GetUser", ("x-other", "a"))

    assert looking.keys - {"user-agent"} == {"x-tenant"}


@pytest.mark.parametrize("method", [*ANSWERS, "CreateUser"])
@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("x-service-auth", ""),),
        (("x-service-auth", KEY.text[:-1] + ("A" if KEY.text[-1] != "A" else "B")),),
        (("x-service-auth", KEY.text[:-4]),),
        (("x-service-auth", KEY.text.upper()),),
        (AUTH, AUTH),
        (AUTH, ("x_service_auth", KEY.text)),
        (("x_service_auth", KEY.text),),
        (("authorization", f"Bearer {KEY.text}"),),
        (("x-service-auth-bin", KEY.text.encode()),),
    ],
)
async def test_who_is_not_known_is_refused(
    start: Start, client_of: ClientOf, method: str, metadata: tuple[Any, ...]
) -> None:
    served = await start()

    assert await client_of(served).refusal(method, *metadata) == UNAUTHENTICATED
    assert served.users.reached == []


async def test_what_the_rules_do_not_allow_is_refused(start: Start, client_of: ClientOf) -> None:
    served = await start()
    client = client_of(served)

    assert await client.refusal("CreateUser", AUTH) == DENIED
    # Of another protocol, and a method that there is not.
    assert await client.refusal("GetUser", ("x-service-auth", OTHER_KEY.text)) == DENIED
    absent: Any = client.channel.unary_unary(f"/{FULL_NAME}/Nothing")
    for metadata, expected in ((AUTH,), DENIED), ((), UNAUTHENTICATED):
        refused: Any = await in_thread(absent.future, b"", metadata=metadata)
        assert (await in_thread(refused.code), dict(refused.trailing_metadata())["x-servicelink-code"]) == expected
    assert served.users.reached == []


async def test_a_refused_call_says_what_happened_and_never_the_credential(
    start: Start, client_of: ClientOf, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    served = await start()
    wrong = make_key(9).text
    refused = await client_of(served).failure("GetUser", ("x-service-auth", wrong))

    assert refused.details() == "no valid service credential came with this call"
    assert [record.getMessage() for record in caplog.records if record.name == "servicelink"] == [
        "refused a call of nobody known: no link to this server has that key"
    ]
    assert wrong[13:56] not in caplog.text


async def test_in_audit_a_call_passes_without_an_identity(tmp_path: Path, start: Start, client_of: ClientOf) -> None:
    write_grpc_verifier(tmp_path, replace(VERIFIER, mode=Mode.AUDIT))
    served = await start()
    client = client_of(served)
    for metadata in ((), (AUTH,), (("x-service-auth", make_key(9).text),)):
        await client.call("CreateUser", *metadata)
    await client.call("GetUser", AUTH)

    assert [one.link for one in served.users.reached] == [None, None, None, WEB]
    assert all("x-service-auth" not in one.keys for one in served.users.reached)
    counts = served.counts()
    assert counts.accepted == {Counted("shop/web", KEY.kid, None): 1}
    assert counts.refused == {}
    assert counts.would_refuse == {
        Counted(None, None, Code.INVALID_SERVICE_AUTH): 2,
        Counted("shop/web", KEY.kid, Code.PERMISSION_DENIED): 1,
    }


async def test_calls_are_counted_by_link_and_key(start: Start, client_of: ClientOf) -> None:
    served = await start()
    client = client_of(served)
    await client.call("GetUser", AUTH)
    await client.call("Chat", AUTH)
    await client.refusal("GetUser")
    await client.refusal("CreateUser", AUTH)

    assert served.counts().accepted == {Counted("shop/web", KEY.kid, None): 2}
    assert served.counts().refused == {
        Counted(None, None, Code.INVALID_SERVICE_AUTH): 1,
        Counted("shop/web", KEY.kid, Code.PERMISSION_DENIED): 1,
    }


async def test_a_link_that_calls_too_often_is_told_when_to_come_back(start: Start, client_of: ClientOf) -> None:
    served = await start(rate_limit=servicelink.RateLimit(calls=1, per=60))
    client = client_of(served)
    await client.call("GetUser", AUTH)
    refused = await client.failure("GetUser", AUTH)
    trailing = dict(refused.trailing_metadata())

    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert trailing["x-servicelink-code"] == "RATE_LIMITED"
    assert 0 < int(trailing["grpc-retry-pushback-ms"]) <= 60_000


@pytest.mark.parametrize("world", WORLDS)
async def test_our_clients_understand_every_refusal(start: Start, world: str) -> None:
    served = await start(rate_limit=servicelink.RateLimit(calls=1, per=60))
    known = open_grpc(world, service_name="users", address=served.address, api_key=KEY.text, retries=0)
    unknown = open_grpc(world, service_name="users", address=served.address, api_key=make_key(9).text)
    try:
        with pytest.raises(servicelink.InvalidServiceAuth):
            await unknown.get()
        with pytest.raises(servicelink.PermissionDenied):
            await known.create()
        assert await known.chat(["a"]) == ["A"]
        with pytest.raises(servicelink.RemoteError) as limited:
            await known.list(1)
        assert limited.value.code == "RESOURCE_EXHAUSTED"
    finally:
        await known.close()
        await unknown.close()


@pytest.mark.parametrize("world", WORLDS)
async def test_ids_and_the_deadline_go_on_to_the_calls_that_serve_it(start: Start, world: str) -> None:
    served = await start()
    users = open_grpc(world, service_name="users", address=served.address, api_key=KEY.text)
    with servicelink.carry({"x-request-id": "r-1", "x-correlation-id": "c-1"}):
        await users.get(timeout=5)
        await users.list(1, timeout=5)
        await users.list(1)
    await users.close()
    *limited, unlimited = served.users.reached

    assert [(one.incoming.request_id, one.incoming.correlation_id) for one in limited] == [("r-1", "c-1")] * 2
    # gRPC rounds it up a little (gRPC over HTTP/2, "Timeout").
    assert all(0 < one.deadline - time.monotonic() < 5.1 for one in limited)
    assert (unlimited.incoming.correlation_id, unlimited.deadline) == ("c-1", math.inf)
    # What a handler started and left running has its own time.
    assert [one.incoming.deadline for one in limited] == [math.inf] * 2


async def test_a_header_is_no_deadline_of_a_call_that_can_have_one(start: Start, client_of: ClientOf) -> None:
    served = await start()
    await client_of(served).call("GetUser", AUTH, ("x-request-timeout-ms", "1"), ("traceparent", "nonsense"))

    assert served.users.reached[0].deadline == math.inf
    assert served.users.reached[0].incoming.traceparent is None


async def test_health_is_for_everybody_and_reflection_for_whoever_may(
    tmp_path: Path, start: Start, client_of: ClientOf
) -> None:
    served = await start()
    stub: Any = health_pb2_grpc.HealthStub(client_of(served).channel)
    for name in ("", FULL_NAME):
        answer = await in_thread(stub.Check, health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    stream = stub.Watch(health_pb2.HealthCheckRequest())
    assert (await in_thread(next, stream)).status == health_pb2.HealthCheckResponse.SERVING
    stream.cancel()
    with grpc.insecure_channel(served.address) as plain, pytest.raises(grpc.RpcError):
        await in_thread(ProtoReflectionDescriptorDatabase(plain).get_services)
    open_ = await start(exempt=(HEALTH, "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"))
    with grpc.insecure_channel(open_.address) as plain:
        found = await in_thread(ProtoReflectionDescriptorDatabase(plain).get_services)

    assert FULL_NAME in found


async def test_an_exempt_call_still_hides_the_credential(start: Start, client_of: ClientOf) -> None:
    served = await start(exempt=(f"{FULL_NAME}/GetUser",))
    client = client_of(served)
    await client.call("GetUser")
    await client.call("GetUser", AUTH)

    assert [(one.link, "x-service-auth" in one.keys) for one in served.users.reached] == [(None, False)] * 2
    assert await client.refusal("ListUsers") == UNAUTHENTICATED


async def test_only_who_is_verified_sets_a_time_limit(start: Start, client_of: ClientOf) -> None:
    served = await start(exempt=(f"{FULL_NAME}/GetUser",))
    stub = plain_stub(client_of(served).channel)
    request = generated()[0].GetUserRequest(user_id="7")
    await in_thread(lambda: stub.GetUser(request, metadata=(AUTH, ("x-correlation-id", "order-7")), timeout=30))
    [reached] = served.users.reached

    assert (reached.incoming.correlation_id, reached.deadline) == ("order-7", math.inf)


@pytest.mark.parametrize("text", ["", "a.B", "/a.B/C", "a.B/C/", "*/*", "a.B/**", "a.B/Get*", "a..B/C"])
def test_what_names_no_method_exempts_nothing(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERNAL_API_KEY", KEY.text)
    with pytest.raises(MalformedPatternError):
        servicelink.LinkInterceptor(exempt=(text,))


async def test_without_anything_to_check_calls_with_a_server_does_not_start(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SERVICELINK_VERIFIER_DIR", "INTERNAL_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(servicelink.LinkConfigurationError):
        async with serving(kind):
            pass
    monkeypatch.setenv("INTERNAL_API_KEY", "")
    with pytest.raises(servicelink.LinkConfigurationError):
        async with serving(kind):
            pass


async def test_with_a_shared_key_alone_a_server_is_protected(
    start: Start, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SERVICELINK_VERIFIER_DIR")
    monkeypatch.setenv("INTERNAL_API_KEY", "one, two")
    served = await start()
    client = client_of(served)

    for text in ("one", "two"):
        assert await client.call("CreateUser", ("x-service-auth", text)) == "7"
    assert await client.refusal("GetUser", ("x-service-auth", "three")) == UNAUTHENTICATED
    assert {one.link and one.link.link for one in served.users.reached} == {"shared key"}


async def test_rules_and_keys_are_followed_while_it_runs(tmp_path: Path, start: Start, client_of: ClientOf) -> None:
    served = await start()
    client = client_of(served)
    await client.call("GetUser", AUTH)
    younger = make_key(5)
    everything = (GrpcRule(FULL_NAME, None),)
    write_grpc_verifier(
        tmp_path, replace(VERIFIER, links=(replace(LINK, keys=(entry_of(younger),), allow=everything),))
    )
    await asyncio.sleep(0.06)

    assert await client.refusal("GetUser", AUTH) == UNAUTHENTICATED
    assert await client.call("CreateUser", ("x-service-auth", younger.text)) == "7"


async def test_a_handler_that_fails_or_aborts_is_told_as_grpcio_tells_it(
    start: Start, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await start()
    client = client_of(served)

    def fail(method: str, rpc: Any) -> None:
        rpc.set_code(grpc.StatusCode.DATA_LOSS)
        rpc.set_details("gone")
        raise RuntimeError("as the test said")

    monkeypatch.setattr(type(served.users), "note", staticmethod(fail))
    for method in ANSWERS:
        failed = await client.failure(method, AUTH)
        assert failed.code() in {grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}


async def test_no_client_keeps_a_connection_for_ever(
    start: Start, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Five minutes are 300 ms here.
    options = server_parts._OPTIONS  # noqa: SLF001 - what there is, only sooner
    quick = tuple((name, value // 1000 if name.endswith("_ms") else value) for name, value in options)
    monkeypatch.setattr(server_parts, "_OPTIONS", quick)
    client = client_of(await start())
    was_open, was_ended = threading.Event(), threading.Event()

    def note(state: grpc.ChannelConnectivity) -> None:
        if state is grpc.ChannelConnectivity.READY:
            was_open.set()
        elif was_open.is_set():
            was_ended.set()

    client.channel.subscribe(note, try_to_connect=True)

    assert await in_thread(was_open.wait, 10)
    assert await in_thread(was_ended.wait, 10)
    client.channel.unsubscribe(note)


async def test_a_port_that_is_taken_is_an_error(start: Start) -> None:
    served = await start()
    with pytest.raises(RuntimeError):
        await start(port=served.port)


PROGRAM = """
import asyncio, sys
sys.path.insert(0, {harness!r})
from grpc_servers import ADD, AioUsers, ThreadUsers
import servicelink
from servicelink import sync

async def run():
    server = await servicelink.grpc_server({{ADD: AioUsers()}}, host="127.0.0.1", port=0)
    print(server.port, flush=True)
    await server.serve()

def run_threads():
    with sync.grpc_server({{ADD: ThreadUsers()}}, host="127.0.0.1", port=0) as server:
        print(server.port, flush=True)
        server.serve()

asyncio.run(run()) if sys.argv[1] == "aio" else run_threads()
print("ended", flush=True)
"""


async def is_served(stub: Any) -> bool:
    """Ask a server for its health, and answer whether it answered."""
    call = stub.Check(health_pb2.HealthCheckRequest())
    return await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("how", ["aio", "threads"])
async def test_a_server_that_is_told_to_end_lets_calls_end_first(how: str) -> None:
    program = PROGRAM.format(harness=str(Path(__file__).parents[2] / "harness"))
    environ = {**os.environ, "INTERNAL_API_KEY": KEY.text}
    environ.pop("SERVICELINK_VERIFIER_DIR", None)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, how, env=environ, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        chat = plain_stub(channel).Chat(metadata=(AUTH,))
        await chat.write(generated()[0].Line(text="a"))
        assert (await chat.read()).text == "A"
        process.send_signal(signal.SIGTERM)
        stub = health_pb2_grpc.HealthStub(channel)
        # It may serve until it has noticed, and then takes nothing more.
        while await is_served(stub):
            continue
        await chat.write(generated()[0].Line(text="b"))
        assert (await chat.read()).text == "B"
        await chat.done_writing()
        assert await chat.read() is grpc.aio.EOF
    said, _ = await process.communicate()

    assert (process.returncode, said) == (0, b"ended\n")


def test_the_interceptors_stand_in_servers_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERNAL_API_KEY", KEY.text)

    assert isinstance(servicelink.LinkInterceptor(), grpc.aio.ServerInterceptor)
    assert isinstance(sync.LinkInterceptor(), grpc.ServerInterceptor)
    assert callable(ADD)


# Without an empty one, which grpcio's server of threads drops before it asks any interceptor.
HOSTILE_PATHS = [
    "/",
    "//",
    FULL_NAME,
    f"/{FULL_NAME}",
    f"/{FULL_NAME}/",
    f"//{FULL_NAME}/GetUser",
    f"/{FULL_NAME}//GetUser",
    f"/{FULL_NAME}/GetUser/",
    f"/{FULL_NAME}/GetUser/x",
    f"/{FULL_NAME}/GetUser?x=1",
    f"/{FULL_NAME}/GetUser;x",
    f"/{FULL_NAME}/GetUser%00",
    f"/{FULL_NAME}/%47etUser",
    f"/{FULL_NAME}%2fGetUser",
    f"/{FULL_NAME}/getUser",
    f"/{FULL_NAME.upper()}/GetUser",
    f"/{FULL_NAME}./GetUser",
    f"/.{FULL_NAME}/GetUser",
    f"/{FULL_NAME}/../{FULL_NAME}/GetUser",
    f"/grpc.health.v1.Health/../{FULL_NAME}/GetUser",
    f"/grpc.health.v1.Health//{FULL_NAME}/GetUser",
    "/grpc.health.v1.Health%2fCheck",
    "/grpc.health.v1.health/Check",
    "/grpc.health.v1.Health",
    f"/{FULL_NAME}/{'a' * 4000}",
    f"/{'a.' * 2000}b/C",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
]


async def test_no_trick_with_a_path_gets_through(start: Start, client_of: ClientOf) -> None:
    served = await start()
    channel = client_of(served).channel
    codes = set()
    for path in HOSTILE_PATHS:
        for metadata in ((), (AUTH,)):
            call: Any = channel.unary_unary(path)
            future = call.future(b"", metadata=metadata, timeout=10)
            codes.add((await in_thread(future.code), bool(metadata)))

    assert codes == {(UNAUTHENTICATED[0], False), (DENIED[0], True)}
    assert served.users.reached == []


async def test_much_metadata_is_the_librarys_to_refuse_and_a_large_message_is_not_read(
    start: Start, client_of: ClientOf
) -> None:
    served = await start()
    client = client_of(served)
    large: Any = client.channel.unary_unary(f"/{FULL_NAME}/CreateUser")
    future = large.future(bytes(3_000_000), metadata=(), timeout=10)
    many = tuple(("x-service-auth", f"{number:060d}") for number in range(1000))

    assert await in_thread(future.code) is grpc.StatusCode.UNAUTHENTICATED
    assert (await client.failure("GetUser", *many)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await client.call("GetUser", AUTH) == "7"
