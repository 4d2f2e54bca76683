"""Clients that show a certificate, in both worlds: which one, what follows when it changes, and what is not resumed."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from leaks import leaks_of
from sdk_worlds import WORLDS, Peer, Request, Stage, in_thread, open_caller, staged

import servicelink
from servicelink.authority import Authority, Leaf
from servicelink.binding import FolderSource, TlsFiles
from servicelink.rest.tls import ssl_context
from servicelink.tls import FollowingContext, client_context, load_chain, load_trust
from servicelink_contract.rules import Protocol

IDENTITY = "spiffe://cluster.local/ns/shop/link/web-to-api"
Mount = Callable[[Path, Mapping[str, str]], None]


def server_context(leaf: Leaf, roots: str) -> ssl.SSLContext:
    """Answer the context of a server that wants a certificate of these roots."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_chain(context, leaf.certificate, leaf.private_key)
    load_trust(context, roots)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@dataclass(slots=True)
class World:
    """A server on loopback that asks for certificates, and the binding that leads there."""

    folder: Path
    mount: Mount
    authority: Authority
    stage: Stage = field(init=False)
    seen: list[str] = field(default_factory=list)
    came: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def play(self, peer: Peer, request: Request) -> None:
        """Note who calls, and answer."""
        async with self.came:
            self.seen.append(peer.serial)
            self.came.notify_all()
        await peer.reply(200, b"fine")

    async def until_seen(self, leaf: Leaf) -> None:
        """Wait until somebody showed this certificate."""
        async with self.came:
            await self.came.wait_for(lambda: leaf.serial in self.seen[-20:])

    def bind(self, leaf: Leaf, trust: str = "") -> Leaf:
        """Hand a certificate over."""
        files = {"uri": self.stage.address, "protocol": "rest", "tls.crt": leaf.certificate}
        self.mount(self.folder, {**files, "tls.key": leaf.private_key, "ca.crt": trust or self.authority.trust})
        return leaf


@pytest.fixture(params=WORLDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def world(tmp_path: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setenv("SERVICE_BINDING_ROOT", str(tmp_path))
    authority = Authority("root-1")
    tls = server_context(authority.server("localhost"), authority.trust)
    async with AsyncExitStack() as stack:
        made = World(tmp_path / "api", mount, authority)
        made.stage = await stack.enter_async_context(staged(made.play, tls=tls))
        yield made


async def test_a_client_shows_its_certificate_and_sends_no_key(world: World, kind: str) -> None:
    leaf = world.bind(world.authority.client(IDENTITY))
    api = open_caller(kind, service_name="api")
    answers = [(await api.get("/")).status_code for _ in range(2)]
    await api.close()

    assert (answers, world.seen, world.stage.connections) == ([200, 200], [leaf.serial] * 2, 1)
    assert "x-service-auth" not in world.stage.requests[0].headers


async def test_calls_after_a_change_come_with_the_new_certificate_although_the_connection_is_open(
    world: World, kind: str
) -> None:
    before = world.bind(world.authority.client(IDENTITY))
    api = open_caller(kind, service_name="api")
    await api.get("/")
    after = world.bind(world.authority.client(IDENTITY))
    source = api.client._line.source  # noqa: SLF001 - so that nobody has to wait 50 ms
    source.reload()
    await api.get("/")
    await api.close()

    assert world.seen == [before.serial, after.serial]


@pytest.mark.traffic
async def test_certificates_change_under_calls_and_none_fails(
    world: World, kind: str, request: pytest.FixtureRequest
) -> None:
    world.bind(world.authority.client(IDENTITY))
    api = open_caller(kind, service_name="api", limits=httpx.Limits(max_keepalive_connections=2))
    over = asyncio.Event()

    async def call() -> int:
        answered = 0
        while not over.is_set():
            answered += (await api.get("/", retries=0)).status_code == 200
        return answered

    callers = [asyncio.create_task(call()) for _ in range(4)]
    shown = []
    for _ in range(request.config.getoption("--rotations")):
        leaf = world.bind(world.authority.client(IDENTITY))
        shown.append(leaf.serial)
        await world.until_seen(leaf)
    over.set()
    answered = sum(await asyncio.gather(*callers))
    if kind == "synchronous":
        # Those of earlier certificates are closed once nothing is under way in them; unclosed sockets are warnings.
        assert len(api.client._wire._pools) == 1  # noqa: SLF001 - nobody can see it otherwise
    await api.close()

    assert answered == len(world.seen)
    assert set(shown) <= set(world.seen)


async def test_a_server_that_does_not_trust_the_certificate_is_an_error_that_shows_no_key(
    world: World, kind: str
) -> None:
    leaf = world.bind(Authority("another").client(IDENTITY))
    api = open_caller(kind, service_name="api")
    with pytest.raises(servicelink.ServiceUnavailable) as refused:
        await api.get("/", retries=0)
    await api.close()

    assert leaks_of(refused.value, leaf.private_key) == []
    assert world.seen == []


def test_a_pair_that_does_not_fit_leaves_the_last_good_one(tmp_path: Path, mount: Mount) -> None:
    authority = Authority("root")
    first, second = authority.client(IDENTITY), authority.client(IDENTITY)
    files = {"uri": "https://api", "ca.crt": authority.trust}
    mount(tmp_path / "api", {**files, "tls.crt": first.certificate, "tls.key": first.private_key})
    source = FolderSource(tmp_path / "api", Protocol.REST)
    before = source.current()
    mount(tmp_path / "api", {**files, "tls.crt": second.certificate, "tls.key": first.private_key})

    assert source.reload() is before
    assert first.private_key not in repr(before)


def test_a_key_that_is_encrypted_is_refused_and_nobody_is_asked_for_a_password() -> None:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - only this test's

    leaf = Authority("root").client(IDENTITY)
    key = serialization.load_pem_private_key(leaf.private_key.encode(), None)
    secret = serialization.BestAvailableEncryption(b"password")
    text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret).decode()

    with pytest.raises(ValueError, match="is encrypted"):
        client_context(TlsFiles(leaf.certificate, text, ""))


def test_a_key_is_written_to_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority("root")
    leaf = authority.client(IDENTITY)
    # Where it is written to a disk it is in there.
    monkeypatch.setattr("tempfile.TemporaryDirectory", None)

    assert isinstance(client_context(TlsFiles(leaf.certificate, leaf.private_key, authority.trust)), ssl.SSLContext)


def test_a_system_without_files_in_memory_reads_certificates_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.memfd_create")
    authority = Authority("root")
    leaf = authority.client(IDENTITY)

    assert isinstance(client_context(TlsFiles(leaf.certificate, leaf.private_key, authority.trust)), ssl.SSLContext)


def test_comments_in_a_trust_bundle_may_be_in_any_language(tmp_path: Path, mount: Mount) -> None:
    authority = Authority("root")
    trust = f"# Főtanúsítvány\n{authority.trust}"
    leaf = authority.client(IDENTITY)
    files = {"uri": "https://api", "protocol": "rest", "tls.crt": leaf.certificate, "tls.key": leaf.private_key}
    mount(tmp_path, files | {"ca.crt": trust})
    context = server_context(authority.server("localhost"), trust)
    tls = FolderSource(tmp_path, Protocol.REST).current().tls

    assert tls is not None
    assert tls.trust == trust.strip()
    assert len(context.get_ca_certs()) == 1
    with pytest.raises(ValueError, match="the roots are not understood"):
        load_trust(context, "# Főtanúsítvány")


async def test_a_client_of_ones_own_follows_with_one_context(world: World) -> None:
    context = ssl_context("api")
    before = world.bind(world.authority.client(IDENTITY))
    with httpx.Client(verify=context, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)) as own:
        await in_thread(own.get, world.stage.address)
        after = world.bind(world.authority.client(IDENTITY))
        while world.seen[-1] != after.serial:
            await in_thread(own.get, world.stage.address)

    assert world.seen[0] == before.serial


class Server:
    """A server's end of connections in memory; its context follows `generation`."""

    def __init__(self, generation: ssl.SSLContext) -> None:
        self.generation = generation
        self._follows = FollowingContext(lambda: self.generation, server_side=True)

    def shake(self, client: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession | None]:
        """Connect once; answer whether a session was resumed, and the one to resume; raises ssl.SSLError."""
        served, called = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = self._follows.wrap_bio(served, called, server_side=True)
        return _finish(server, client.wrap_bio(called, served, server_hostname="localhost", session=session))


def _finish(server: ssl.SSLObject, caller: ssl.SSLObject) -> tuple[bool, ssl.SSLSession | None]:
    for _ in range(4):
        for end in (caller, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    # Tickets come after the handshake (RFC 8446, section 4.6.1), and are read with what follows.
    server.write(b"x")
    caller.read(1)
    return bool(caller.session_reused), caller.session


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_resumed_within_a_generation_and_refused_past_a_root_that_was_removed(
    version: ssl.TLSVersion,
) -> None:
    old, new = Authority("old"), Authority("new")
    leaf, served = old.client(IDENTITY), new.server("localhost")
    server = Server(server_context(served, old.trust + new.trust))
    client = client_context(TlsFiles(leaf.certificate, leaf.private_key, new.trust))
    client.maximum_version = version
    _, session = server.shake(client, None)
    resumed, session = server.shake(client, session)
    server.generation = server_context(served, new.trust)

    assert resumed
    with pytest.raises(ssl.SSLError):
        server.shake(client, session)
