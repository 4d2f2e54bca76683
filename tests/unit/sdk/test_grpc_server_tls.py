"""A gRPC server over TLS knows its clients by their certificates, checks each call anew, and follows its files."""

import asyncio
import datetime as dt
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_servers import KEY, LINK, VERIFIER, Served, plain_stub, serving, write_grpc_verifier
from grpc_worlds import open_grpc
from sdk_servers import swap
from sdk_worlds import WORLDS, in_thread
from users_service import FULL_NAME, generated

import servicelink
from servicelink.authority import Authority, Leaf
from servicelink.binding import TlsFiles
from servicelink.grpc.server_peers import Peers
from servicelink.tls import client_context
from servicelink.verify import Allowed
from servicelink_contract.verifier import Verifier

IDENTITY = "spiffe://cluster.local/ns/shop/link/web"
BY_CERTIFICATE = replace(LINK, keys=(), identity=IDENTITY)
BY_KEY = replace(LINK, link="shop/other", uid="uid-9")
AUTH = ("x-service-auth", KEY.text)


@dataclass(slots=True)
class World:
    """A server's folders, and an authority."""

    root: Path
    authority: Authority
    trust: str = ""
    links: tuple[Any, ...] = (BY_CERTIFICATE, BY_KEY)
    channels: list[grpc.Channel] = field(default_factory=list)

    @property
    def verifier(self) -> Verifier:
        """The verifier as it is to be."""
        return replace(VERIFIER, links=self.links, trust=self.trust or self.authority.trust)

    def write(self) -> None:
        """Swap the verifier in."""
        write_grpc_verifier(self.root / "verifier", self.verifier)

    def certify(self, leaf: Leaf) -> Leaf:
        """Swap the server's certificate in."""
        swap(self.root / "tls" / "users", {"tls.crt": leaf.certificate, "tls.key": leaf.private_key})
        return leaf

    def stub(self, served: Served, leaf: Leaf | None = None) -> Any:
        """Answer grpcio's own client, with one connection of its own."""
        shown = (None, None) if leaf is None else (leaf.private_key.encode(), leaf.certificate.encode())
        credentials = grpc.ssl_channel_credentials(self.authority.trust.encode(), *shown)
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channels.append(grpc.secure_channel(f"localhost:{served.port}", credentials, options))
        return plain_stub(self.channels[-1])

    def context(self, leaf: Leaf | None) -> ssl.SSLContext:
        """Answer a context of Python's own that speaks HTTP/2."""
        certificate, key = ("", "") if leaf is None else (leaf.certificate, leaf.private_key)
        context = client_context(TlsFiles(certificate, key, self.authority.trust))
        context.set_alpn_protocols(["h2"])
        return context


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setenv("SERVICELINK_VERIFIER_DIR", str(tmp_path / "verifier"))
    monkeypatch.delenv("INTERNAL_API_KEY", raising=False)
    made = World(tmp_path, Authority("one"))
    made.certify(made.authority.server("localhost"))
    made.write()
    yield made
    for channel in made.channels:
        channel.close()


Start = Callable[..., Awaitable[Served]]


@pytest.fixture(params=["aio", "aio-threads", "threads"])
async def start(request: pytest.FixtureRequest) -> AsyncIterator[Start]:
    """`await start()` answers a server over TLS; options as `grpc_server_credentials`."""
    async with AsyncExitStack() as stack:

        async def begin(**options: Any) -> Served:
            credentials = servicelink.grpc_server_credentials(**options)
            return await stack.enter_async_context(serving(request.param, credentials=credentials))

        yield begin


async def code_of(stub: Any, *metadata: tuple[str, str], method: str = "GetUser") -> str:
    """Make a call; answer "" for one that passes, else what it is refused as, or its status."""

    def call() -> Any:
        pb2 = generated()[0]
        if method == "Chat":
            return list(stub.Chat(iter([pb2.Line(text="a")]), metadata=metadata, timeout=20))
        if method == "ListUsers":
            return list(stub.ListUsers(pb2.ListUsersRequest(count=1), metadata=metadata, timeout=20))
        if method == "AddUsers":
            return stub.AddUsers(iter([pb2.User()]), metadata=metadata, timeout=20)
        return getattr(stub, method)(pb2.GetUserRequest(user_id="1"), metadata=metadata, timeout=20)

    try:
        await in_thread(call)
    except grpc.RpcError as error:
        failed: Any = error
        trailing = dict(failed.trailing_metadata() or ())
        return str(trailing.get("x-servicelink-code", failed.code().name))
    return ""


async def code_of_bytes(channel: grpc.Channel, method: str, message: bytes) -> str:
    """Send a message as it is; answer the status."""
    method_of_bytes: Any = channel.unary_stream(f"/{FULL_NAME}/{method}")
    call = method_of_bytes(message, timeout=20)
    code: grpc.StatusCode = await in_thread(call.code)
    return code.name


async def test_a_client_is_known_by_its_certificate_in_calls_of_all_kinds(world: World, start: Start) -> None:
    leaf = world.authority.client(IDENTITY)
    served = await start()
    stub = world.stub(served, leaf)
    codes = [await code_of(stub, method=method) for method in ("GetUser", "ListUsers", "AddUsers", "Chat")]

    assert codes == [""] * 4
    assert [one.link for one in served.users.reached] == [Allowed("shop/web", "uid-1", leaf.serial)] * 4


async def test_a_certificate_of_an_intermediate_is_verified_to_its_root(world: World, start: Start) -> None:
    leaf = Authority("below", world.authority).client(IDENTITY)

    assert await code_of(world.stub(await start(), leaf)) == ""


@pytest.mark.parametrize(
    "identities",
    [
        (f"{IDENTITY}2",),
        (f"{IDENTITY}/",),
        (IDENTITY[:-1],),
        (IDENTITY.upper(),),
        (IDENTITY, "spiffe://cluster.local/ns/shop/link/other"),
        (),
    ],
)
async def test_another_identity_is_refused_with_an_answer(
    world: World, start: Start, identities: tuple[str, ...]
) -> None:
    served = await start()
    stub = world.stub(served, world.authority.client(*identities))
    codes = [await code_of(stub, method=method) for method in ("GetUser", "ListUsers", "AddUsers", "Chat")]

    assert codes == ["INVALID_SERVICE_AUTH"] * 4
    assert served.users.reached == []


async def test_rules_hold_for_certificates_and_a_key_goes_before_one(world: World, start: Start) -> None:
    served = await start()
    stub = world.stub(served, world.authority.client(IDENTITY))

    assert await code_of(stub, method="CreateUser") == "PERMISSION_DENIED"
    assert await code_of(stub, ("x-service-auth", "wrong")) == "INVALID_SERVICE_AUTH"
    # That a program behind may read it as a key is enough.
    assert await code_of(stub, ("x_service_auth", KEY.text)) == "INVALID_SERVICE_AUTH"
    assert await code_of(stub, AUTH) == ""
    assert [one.link and one.link.link for one in served.users.reached] == ["shop/other"]


async def test_strangers_learn_of_no_method_and_none_of_their_messages_is_read(world: World, start: Start) -> None:
    world.links = (replace(BY_CERTIFICATE, allow=None),)
    world.write()
    served = await start()
    for identity in (f"{IDENTITY}-not", IDENTITY):
        world.stub(served, world.authority.client(identity))
    # To read the first two would fail: they are no messages of protobuf's.
    calls = [("GetUser", b"\xff\xff"), ("ListUsers", b"\xff\xff"), ("Nothing", b"")]
    stranger, known = [[await code_of_bytes(channel, *call) for call in calls] for channel in world.channels]

    assert stranger == ["UNAUTHENTICATED"] * 3
    # The first two in the way of the kind of server.
    assert set(known[:2]) < {"UNKNOWN", "INTERNAL"}
    assert known[2] == "UNIMPLEMENTED"
    assert [sum(group.values()) for group in (served.counts().accepted, served.counts().refused)] == [3, 3]


async def test_an_open_connection_is_refused_once_its_certificate_is_retired(world: World, start: Start) -> None:
    leaf = world.authority.client(IDENTITY)
    younger = world.authority.client(IDENTITY, issued=leaf.not_before + dt.timedelta(minutes=5, seconds=1))
    served = await start()
    old, new = world.stub(served, leaf), world.stub(served, younger)
    before = [await code_of(old), await code_of(new)]
    world.links = (replace(BY_CERTIFICATE, issued_after=leaf.not_before),)
    world.write()
    await asyncio.sleep(0.06)

    assert (before, [await code_of(old), await code_of(new)]) == (["", ""], ["INVALID_SERVICE_AUTH", ""])


async def test_a_removed_root_ends_open_connections_and_lets_no_new_one_in(world: World, start: Start) -> None:
    second = Authority("two")
    world.trust = world.authority.trust + second.trust
    world.write()
    served = await start()
    leaf, other = world.authority.client(IDENTITY), second.client(IDENTITY)
    old, new = world.stub(served, leaf), world.stub(served, other)
    before = [await code_of(old), await code_of(new)]
    world.trust = second.trust
    world.write()
    await asyncio.sleep(0.06)

    assert (before, [await code_of(old), await code_of(new)]) == (["", ""], ["INVALID_SERVICE_AUTH", ""])
    assert await code_of(world.stub(served, leaf)) == "UNAVAILABLE"
    assert await code_of(world.stub(served, other)) == ""


def shake(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool]:
    """Connect and try to resume a session; answer the newest session, and whether the old one was resumed.

    Raises ssl.SSLError and OSError where the connection is refused.
    """
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost", session=session) as tls,
    ):
        # The preface and empty settings (RFC 9113, section 3.4); what is answered brings the tickets.
        tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        if not tls.recv(65536):
            raise ConnectionError("closed")
        return tls.session, bool(tls.session_reused)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_session_that_began_under_a_removed_root_is_not_resumed(
    world: World, start: Start, version: ssl.TLSVersion
) -> None:
    second = Authority("two")
    world.trust = world.authority.trust + second.trust
    world.write()
    served = await start()
    context = world.context(world.authority.client(IDENTITY))
    context.minimum_version = context.maximum_version = version
    session, _ = await in_thread(shake, served.port, context, None)
    session, resumed = await in_thread(shake, served.port, context, session)
    world.trust = second.trust
    world.write()
    await asyncio.sleep(0.06)

    assert resumed
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await in_thread(shake, served.port, context, session)


async def test_older_versions_of_tls_are_refused(world: World, start: Start) -> None:
    served = await start()
    context = world.context(world.authority.client(IDENTITY))
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        await in_thread(shake, served.port, context, None)


async def test_without_roots_a_key_is_asked_for_and_with_roots_a_certificate(world: World, start: Start) -> None:
    demanding, asking = await start(), await start(client_certificates=False)

    assert await code_of(world.stub(demanding), AUTH) == "UNAVAILABLE"
    assert await code_of(world.stub(asking), AUTH) == ""
    assert await code_of(world.stub(asking)) == "INVALID_SERVICE_AUTH"
    # What is not asked for is not shown.
    assert await code_of(world.stub(asking, world.authority.client(IDENTITY))) == "INVALID_SERVICE_AUTH"


async def test_a_server_that_demands_certificates_lets_nobody_in_until_there_are_roots(
    world: World, start: Start
) -> None:
    write_grpc_verifier(world.root / "verifier", replace(world.verifier, trust=""))
    served = await start(client_certificates=True)
    leaf = world.authority.client(IDENTITY)
    before = await code_of(world.stub(served, leaf))
    world.write()
    await asyncio.sleep(0.06)

    assert (before, await code_of(world.stub(served, leaf))) == ("UNAVAILABLE", "")


def serial_of(port: int, context: ssl.SSLContext) -> str:
    """Answer the serial number of the certificate that a server shows."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        found: Any = tls.getpeercert()
        return str(found["serialNumber"]).lower().lstrip("0")


async def test_the_servers_certificate_is_followed_and_what_runs_goes_on(world: World, start: Start) -> None:
    served = await start()
    shown = world.authority.client(IDENTITY)
    stub, context = world.stub(served, shown), world.context(shown)
    before = await code_of(stub)
    seen = []
    leaf = world.certify(world.authority.server("localhost"))
    other = world.authority.server("localhost")
    # Half of a pair, and one that does not fit: the last good one stays.
    for files in (None, {"tls.crt": other.certificate, "tls.key": leaf.private_key}, {"tls.crt": other.certificate}):
        if files is not None:
            swap(world.root / "tls" / "users", files)
        await asyncio.sleep(0.06)
        seen.append(await in_thread(serial_of, served.port, context))
    world.trust = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    world.write()
    await asyncio.sleep(0.06)
    seen.append(await in_thread(serial_of, served.port, context))

    assert before == ""
    assert seen == [leaf.serial] * 4


@pytest.mark.parametrize("what", ["absent", "unfit", "several", "nothing"])
def test_without_a_certificate_there_are_no_credentials(
    world: World, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    folder = world.root / "tls" / "users"
    if what == "absent":
        swap(folder, {})
    elif what == "unfit":
        swap(folder, {"tls.crt": "PEM", "tls.key": "PEM"})
    elif what == "several":
        (folder.parent / "other").mkdir()
    else:
        monkeypatch.delenv("SERVICELINK_VERIFIER_DIR")
    with pytest.raises(servicelink.LinkConfigurationError) as refused:
        servicelink.grpc_server_credentials()

    assert refused.value.next_step


@pytest.mark.parametrize("kind", WORLDS)
async def test_our_clients_call_it_with_what_their_binding_holds(
    world: World, start: Start, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    served = await start()
    leaf = world.authority.client(IDENTITY)
    files = {"uri": f"grpcs://localhost:{served.port}", "tls.crt": leaf.certificate, "tls.key": leaf.private_key}
    swap(world.root / "bindings" / "users", {**files, "protocol": "grpc", "ca.crt": world.authority.trust})
    monkeypatch.setenv("SERVICE_BINDING_ROOT", str(world.root / "bindings"))
    client = open_grpc(kind, service_name="users")
    answers = [(await client.get("3")).user_id, await client.chat(["a"])]
    await client.close()

    assert answers == ["3", ["A"]]
    assert served.users.reached[0].link == Allowed("shop/web", "uid-1", leaf.serial)


def test_nobody_vouches_for_longer_than_those_above_and_each_certificate_is_verified_once(world: World) -> None:
    leaf = world.authority.client(IDENTITY, lasts=48 * 3600.0)
    asked: list[dt.datetime] = []

    def now() -> dt.datetime:
        asked.append(dt.datetime.now(dt.UTC))
        return asked[-1]

    peers = Peers(now)
    proved = {"x509_pem_cert": [leaf.certificate.encode()], "peer_uri": [IDENTITY.encode()]}
    trust = world.authority.trust
    first, second = peers.read(proved, trust), peers.read(proved, trust)
    other = peers.read(proved, Authority("two").trust)

    assert first is second
    assert len(asked) == 2
    assert first is not None
    assert first.problem is None
    assert first.uris == (IDENTITY,)
    assert first.not_after < dt.datetime.now(dt.UTC) + dt.timedelta(hours=25)
    assert other is not None
    assert other.problem == "no root that is trusted now vouches for the certificate"
    assert peers.read({}, trust) is None
