"""A server over TLS knows its clients by their certificates, checks each request anew, and follows its files."""

import asyncio
import datetime as dt
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from sdk_servers import KEY, swap
from sdk_worlds import WORLDS, in_thread, open_caller
from tls_servers import running
from tls_world import BY_CERTIFICATE, IDENTITY, World, calling

import servicelink
from servicelink.authority import Authority
from servicelink.binding import TlsFiles
from servicelink.server_tls import ServerFiles, following_context, server_context
from servicelink.verify import Allowed, SharedKeys


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("SERVICELINK_VERIFIER_DIR", str(tmp_path / "verifier"))
    monkeypatch.delenv("INTERNAL_API_KEY", raising=False)
    made = World(tmp_path, Authority("one"))
    made.certify(made.authority.server("localhost"))
    made.write()
    return made


Start = Callable[..., Any]


@pytest.fixture
async def start(world: World) -> AsyncIterator[Start]:
    """`await start()` answers the address of a server over the world's application."""
    async with AsyncExitStack() as stack:

        async def begin(**options: Any) -> tuple[str, int]:
            middleware = servicelink.LinkMiddleware(world.app)
            return await stack.enter_async_context(running(middleware, **options))

        yield begin


async def code_of(client: httpx.AsyncClient, path: str = "/v1/x", **headers: str) -> str:
    """Make a call, and answer "" for one that passes, else its code."""
    answer = await client.get(path, headers=headers)
    return "" if answer.status_code == 200 else str(answer.json()["error"]["code"])


@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_a_client_is_known_by_its_certificate_and_named_by_its_serial(
    world: World, start: Start, http: str
) -> None:
    leaf = world.authority.client(IDENTITY)
    async with calling(await start(http=http), world.context(leaf)) as client:
        codes = [await code_of(client) for _ in range(2)]
    told = world.app.scopes[0]["extensions"]["tls"]

    assert codes == ["", ""]
    assert world.app.links[0] == Allowed("shop/web", "uid-1", leaf.serial)
    assert (told["tls_version"], len(told["client_cert_chain"])) == (0x0304, 1)
    assert told["client_cert_chain"][0] in leaf.certificate.replace("\r", "")


async def test_without_a_certificate_a_key_or_an_exempt_path_is_needed(world: World, start: Start) -> None:
    async with calling(await start(), world.context()) as client:
        codes = [
            await code_of(client),
            await code_of(client, "/healthz"),
            await code_of(client, **{"x-service-auth": KEY.text}),
        ]

    assert codes == ["INVALID_SERVICE_AUTH", "", ""]
    assert [link and link.link for link in world.app.links] == [None, "shop/other"]


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
    async with calling(await start(), world.context(world.authority.client(*identities))) as client:
        assert await code_of(client) == "INVALID_SERVICE_AUTH"
    assert world.app.scopes == []


async def test_rules_hold_for_certificates(world: World, start: Start) -> None:
    async with calling(await start(), world.context(world.authority.client(IDENTITY))) as client:
        assert await code_of(client, "/v2") == "PERMISSION_DENIED"


async def test_an_open_connection_is_refused_once_its_certificate_is_retired(world: World, start: Start) -> None:
    leaf = world.authority.client(IDENTITY)
    younger = world.authority.client(IDENTITY, issued=leaf.not_before + dt.timedelta(minutes=5, seconds=1))
    address = await start()
    async with calling(address, world.context(leaf)) as client, calling(address, world.context(younger)) as other:
        before = [await code_of(client), await code_of(other)]
        world.links = (replace(BY_CERTIFICATE, issued_after=leaf.not_before),)
        world.write()
        await asyncio.sleep(0.06)
        after = [await code_of(client), await code_of(other)]

    assert (before, after) == (["", ""], ["INVALID_SERVICE_AUTH", ""])


async def test_a_removed_root_ends_open_connections_and_lets_no_new_one_in(world: World, start: Start) -> None:
    second = Authority("two")
    world.trust = world.authority.trust + second.trust
    world.write()
    address = await start()
    old, new = world.context(world.authority.client(IDENTITY)), world.context(second.client(IDENTITY))
    async with calling(address, old) as client, calling(address, new) as other:
        before = [await code_of(client), await code_of(other)]
        world.trust = second.trust
        world.write()
        await asyncio.sleep(0.06)
        after = [await code_of(client), await code_of(other)]

    assert (before, after) == (["", ""], ["INVALID_SERVICE_AUTH", ""])
    async with calling(address, old) as client:
        with pytest.raises(httpx.TransportError):
            await client.get("/v1/x")


def ask(address: tuple[str, int], context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[bytes, Any, bool]:
    """Ask over a new connection that tries to resume a session; answers the answer, its session, whether it did."""
    with (
        socket.create_connection(address, timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost", session=session) as tls,
    ):
        tls.sendall(b"GET /v1/x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        answer = b""
        while piece := tls.recv(65536):
            answer += piece
        return answer, tls.session, bool(tls.session_reused)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_session_that_began_under_a_removed_root_is_not_resumed(
    world: World, start: Start, version: ssl.TLSVersion
) -> None:
    second = Authority("two")
    world.trust = world.authority.trust + second.trust
    world.write()
    address = await start()
    context = world.context(world.authority.client(IDENTITY))
    context.minimum_version = context.maximum_version = version
    first, session, _ = await in_thread(ask, address, context, None)
    again, _, reused = await in_thread(ask, address, context, session)
    world.trust = second.trust
    world.write()
    await asyncio.sleep(0.06)
    refused: Any = b""
    try:
        refused, _, resumed = await in_thread(ask, address, context, session)
    except (ssl.SSLError, ConnectionError):
        resumed = False

    assert first.startswith(b"HTTP/1.1 200")
    # Without tickets TLS 1.3 has nothing to resume.
    assert (again[:12], reused) == (b"HTTP/1.1 200", version is ssl.TLSVersion.TLSv1_2)
    assert not resumed
    assert not refused.startswith(b"HTTP/1.1 200")
    assert session is None or not session.has_ticket


async def test_tickets_would_not_help_an_old_session_either(
    world: World, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each generation has a context, and with it a key for tickets, of its own."""

    def with_tickets(files: TlsFiles) -> ssl.SSLContext:
        context = server_context(files)
        context.options &= ~ssl.OP_NO_TICKET
        context.num_tickets = 2
        return context

    monkeypatch.setattr("servicelink.server_tls.server_context", with_tickets)
    second = Authority("two")
    world.trust = world.authority.trust + second.trust
    world.write()
    address = await start()
    context = world.context(world.authority.client(IDENTITY))
    _, session, _ = await in_thread(ask, address, context, None)
    again, _, reused = await in_thread(ask, address, context, session)
    world.trust = second.trust
    world.write()
    await asyncio.sleep(0.06)

    assert session.has_ticket
    assert (again[:12], reused) == (b"HTTP/1.1 200", True)
    refused: Any = b""
    try:
        refused, _, resumed = await in_thread(ask, address, context, session)
    except (ssl.SSLError, ConnectionError):
        resumed = False
    assert not resumed
    assert not refused.startswith(b"HTTP/1.1 200")


def test_what_an_engine_offers_is_offered_by_every_generation(world: World) -> None:
    following = following_context(ServerFiles(world.root / "tls" / "api", SharedKeys(["key"])))
    following.set_alpn_protocols(["http/1.1"])
    chosen = [agree(following, world.context())]
    world.certify(world.authority.server("localhost"))
    chosen.append(agree(following, world.context()))

    assert chosen == ["http/1.1"] * 2


def agree(server: ssl.SSLContext, client: ssl.SSLContext) -> str | None:
    """Let two ends shake hands in memory, and answer the protocol that they chose."""
    client.set_alpn_protocols(["h2", "http/1.1"])
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(back, there, server_hostname="localhost")
    answering = server.wrap_bio(there, back, server_side=True)
    for _ in range(3):
        for end in (asking, answering):
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return asking.selected_alpn_protocol()


def test_neither_end_speaks_older_versions_or_negotiates_anew(world: World) -> None:
    leaf = world.authority.server("localhost")
    server = server_context(TlsFiles(leaf.certificate, leaf.private_key, world.authority.trust))

    # Whatever the system's own policy says, which refuses older versions on some systems and not on others.
    assert {server.minimum_version, world.context().minimum_version} == {ssl.TLSVersion.TLSv1_2}
    assert server.options & ssl.OP_NO_RENEGOTIATION
    assert server.options & ssl.OP_NO_TICKET


async def test_older_versions_of_tls_are_refused(world: World, start: Start) -> None:
    address = await start()
    context = world.context()
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        await in_thread(ask, address, context, None)


def serial_of(address: tuple[str, int], context: ssl.SSLContext) -> str:
    """Answer the serial number of the certificate that a server shows."""
    with (
        socket.create_connection(address, timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        found: Any = tls.getpeercert()
        return str(found["serialNumber"]).lower().lstrip("0")


async def test_the_servers_certificate_is_followed_and_what_runs_goes_on(world: World, start: Start) -> None:
    address = await start()
    async with calling(address, world.context(world.authority.client(IDENTITY))) as client:
        before = await code_of(client)
        leaf = world.certify(world.authority.server("localhost"))
        await asyncio.sleep(0.06)
        shown = await in_thread(serial_of, address, world.context())
        # Half of a pair, and one that does not fit: the last good one stays.
        other = world.authority.server("localhost")
        swap(world.root / "tls" / "api", {"tls.crt": other.certificate, "tls.key": leaf.private_key})
        await asyncio.sleep(0.06)
        unfit = await in_thread(serial_of, address, world.context())
        swap(world.root / "tls" / "api", {"tls.crt": other.certificate})
        await asyncio.sleep(0.06)
        half = await in_thread(serial_of, address, world.context())
        world.trust = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        world.write()
        await asyncio.sleep(0.06)
        broken = await in_thread(serial_of, address, world.context())

    assert before == ""
    assert [shown, unfit, half, broken] == [leaf.serial] * 4


async def test_a_connection_that_has_lasted_too_long_ends_with_its_answer(world: World, start: Start) -> None:
    address = await start(connection_age=0.0)
    async with calling(address, world.context(world.authority.client(IDENTITY))) as client:
        old = await client.get("/v1/x")
    async with calling(await start(), world.context(world.authority.client(IDENTITY))) as client:
        young = await client.get("/v1/x")

    assert (old.status_code, old.headers.get("connection")) == (200, "close")
    assert (young.status_code, young.headers.get("connection")) == (200, None)


@pytest.mark.parametrize("kind", WORLDS)
async def test_the_sdks_clients_call_it_with_what_their_binding_holds(
    world: World, start: Start, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    _, port = await start()
    leaf = world.authority.client(IDENTITY)
    files = {"uri": f"https://localhost:{port}", "tls.crt": leaf.certificate, "tls.key": leaf.private_key}
    swap(world.root / "bindings" / "api", {**files, "protocol": "rest", "ca.crt": world.authority.trust})
    monkeypatch.setenv("SERVICE_BINDING_ROOT", str(world.root / "bindings"))
    client = open_caller(kind, service_name="api")
    answer = await client.get("/v1/x")
    await client.close()

    assert answer.status_code == 200
    assert world.app.links == [Allowed("shop/web", "uid-1", leaf.serial)]


async def test_what_looks_like_a_certificate_in_another_servers_scope_is_not_believed(world: World) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    told = {"servicelink": {"uris": (IDENTITY,), "serial": "1"}, "client_cert_chain": ["PEM"]}
    scope = {"type": "http", "method": "GET", "path": "/v1/x", "raw_path": b"/v1/x", "headers": []}
    await servicelink.LinkMiddleware(world.app)({**scope, "extensions": {"tls": told}}, receive, send)

    assert sent[0]["status"] == 403
