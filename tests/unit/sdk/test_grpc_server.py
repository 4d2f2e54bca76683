"""gRPC servers of both worlds check every call, of all four kinds, before the application sees it."""

import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_guarded import ANSWERS, AUTH, DENIED, UNAUTHENTICATED, WEB, Client, ClientOf, Start, opening, starting
from grpc_servers import KEY, KINDS, OTHER_KEY, VERIFIER, Served, plain_stub, write_grpc_verifier
from grpc_worlds import open_grpc
from sdk_servers import make_key
from sdk_worlds import WORLDS, in_thread
from users_service import FULL_NAME, generated

import servicelink
from servicelink import Counted
from servicelink.verify import Code
from servicelink_contract.paths import MalformedPatternError
from servicelink_contract.verifier import Mode


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> AsyncIterator[Start]:
    """`await start(**options)` answers a server with a verifier."""
    async with starting(kind, tmp_path, monkeypatch) as begin:
        yield begin


@pytest.fixture
async def client_of() -> AsyncIterator[Callable[[Served], Client]]:
    """`client_of(served)` answers grpcio's own client."""
    with opening() as make:
        yield make


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
    refused = await client_of(served).failure("GetUser", ("x-service-auth", wrong), ("x-correlation-id", "c-1"))

    assert refused.details() == "no valid service credential came with this call"
    [said] = [record.getMessage() for record in caplog.records if record.name == "servicelink"]
    assert said.startswith(f"refused '{FULL_NAME}/GetUser' of nobody known: no link to this server has that key")
    assert said.endswith("(correlation c-1, request None)")
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
