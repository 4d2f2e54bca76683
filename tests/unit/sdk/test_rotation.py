"""Keys, certificates, authorities and folders change under traffic, in both worlds, and no call fails.

Few of each by default; `make proof` does it in the full count, by the options of `tests/conftest.py`. Nothing here is
quicker than what the SDK promises: whoever uses a file looks at it at most every 50 ms, so one step waits for the one
before, as the operator does, and calls that are under way may end.
"""

import asyncio
import itertools
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from figures import Figures
from sdk_apps import kid_app
from sdk_serving import serving_process
from sdk_worlds import WORLDS, in_thread
from tls_servers import running
from traffic import flowing

import servicelink
from servicelink import sync
from servicelink.authority import Authority, Leaf
from servicelink.binding import FolderSource, TlsFiles
from servicelink.folder import CHECK_EVERY
from servicelink.mounted import swap
from servicelink.sandbox import LinkSandbox, SandboxLink
from servicelink.server_tls import ServerFiles
from servicelink.tls import client_context
from servicelink.verify import SharedKeys
from servicelink_contract.rules import Protocol

pytestmark = [pytest.mark.proof, pytest.mark.traffic, pytest.mark.timeout(0)]
# Seconds after which everybody who makes or serves a call has seen a change.
SEEN = CHECK_EVERY + 0.02


@pytest.fixture(params=WORLDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LinkSandbox:
    """A sandbox that is looked at as in production, every 50 ms."""
    made = LinkSandbox(tmp_path / "servicelink")
    for name, value in made.environ.items():
        monkeypatch.setenv(name, value)
    return made


class Caller:
    """A client of either world that makes one kind of call, and answers by which credential the server knew it."""

    def __init__(self, kind: str, protocol: Protocol, **options: Any) -> None:
        self._is_async = kind == "asynchronous"
        home: Any = servicelink if self._is_async else sync
        self.client = (home.connect if protocol is Protocol.REST else home.connect_graphql)("api", **options)
        self._protocol = protocol

    async def call(self) -> str:
        """Make a call, once."""
        if self._protocol is Protocol.GRAPHQL:
            return str((await self._run(self.client.query, "{ kid }", retries=0))["kid"])
        answer = await self._run(self.client.get, "/v1/x", retries=0, raise_for_status=True)
        return str(answer.json()["data"]["kid"])

    async def _run(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if self._is_async:
            return await method(*arguments, **options)
        return await in_thread(method, *arguments, **options)

    async def aclose(self) -> None:
        """Close the client."""
        await (self.client.aclose() if self._is_async else in_thread(self.client.close))


@dataclass(frozen=True, slots=True)
class Count:
    """How much of it."""

    rotations: int
    bundles: int
    swaps: int
    rate: float


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Count:
    return Count(*(request.config.getoption(name) for name in ("--rotations", "--bundles", "--swaps", "--rate")))


@pytest.mark.parametrize("protocol", [Protocol.REST, Protocol.GRAPHQL])
async def test_keys_change_under_traffic(
    sandbox: LinkSandbox, kind: str, count: Count, figures: Figures, *, protocol: Protocol
) -> None:
    api = sandbox.link("api", protocol=protocol)
    kids = [kid_of(api)]
    with serving_process("uvicorn-httptools", "kid_app", **sandbox.environ) as ((host, port), _):
        api.lead_to(f"http://{host}:{port}")
        async with aclosing(Caller(kind, protocol)) as caller, flowing(caller.call, count.rate) as traffic:
            for _ in range(count.rotations):
                api.prepare()
                await asyncio.sleep(SEEN)
                api.publish()
                kids.append(kid_of(api))
                await asyncio.sleep(SEEN)
                await traffic.turn(kids[-1].__eq__)
                assert not traffic.failures, traffic.failures
    figures.add(
        "keys, old and new accepted",
        f"{protocol}, {kind}",
        changes=count.rotations,
        calls=traffic.calls,
        failed=len(traffic.failures),
        seconds=traffic.seconds,
    )

    assert traffic.failures == []
    assert set(kids[1:]) <= set(traffic.answers) <= set(kids)
    assert len(set(kids)) == count.rotations + 1


def kid_of(link: SandboxLink) -> str:
    """Answer the public part of a link's key (its characters 5 to 12)."""
    return link.headers["x-service-auth"][4:12]


async def test_certificates_of_both_ends_change_under_connections_that_come_and_go(
    sandbox: LinkSandbox, kind: str, count: Count, figures: Figures
) -> None:
    api = sandbox.link("api", certificate=True)
    serials = [serial_of(sandbox)]
    async with running(kid_app(), log_level="critical") as (_, port):
        api.lead_to(f"https://localhost:{port}")
        # No connection is kept: every call is a handshake.
        churning = Caller(kind, Protocol.REST, limits=httpx.Limits(max_keepalive_connections=0))
        async with aclosing(churning) as caller, flowing(caller.call, min(count.rate, 50)) as traffic:
            for _ in range(count.rotations):
                api.rotate()
                sandbox.certify("api")
                serials.append(serial_of(sandbox))
                await asyncio.sleep(SEEN)
                await traffic.turn(serials[-1].__eq__)
                assert not traffic.failures, traffic.failures
    figures.add(
        "certificates of client and server, every call a handshake",
        f"REST, {kind}",
        changes=count.rotations,
        calls=traffic.calls,
        failed=len(traffic.failures),
        seconds=traffic.seconds,
    )

    assert traffic.failures == []
    assert set(serials[1:]) <= set(traffic.answers) <= set(serials)
    assert len(set(serials)) == count.rotations + 1


def serial_of(sandbox: LinkSandbox) -> str:
    """Answer the serial number of the certificate that the link's client has."""
    files = FolderSource(sandbox.folder / "bindings" / "api", Protocol.REST).current().tls
    assert files is not None
    return Leaf(files.certificate, files.private_key).serial


async def test_trust_bundles_change_under_traffic_and_a_removed_root_lets_nobody_in(
    sandbox: LinkSandbox, kind: str, count: Count, figures: Figures
) -> None:
    api = sandbox.link("api", certificate=True)
    refused: list[str] = []
    async with running(kid_app(), log_level="critical") as address:
        api.lead_to(f"https://localhost:{address[1]}")
        keeping = Caller(kind, Protocol.REST, limits=httpx.Limits(max_keepalive_connections=4, keepalive_expiry=60))
        async with aclosing(keeping) as caller, flowing(caller.call, min(count.rate, 50)) as traffic:
            for version in itertools.islice(itertools.cycle(VERSIONS), count.bundles):
                old = FolderSource(sandbox.folder / "bindings" / "api", Protocol.REST).current().tls
                assert old is not None
                sandbox.prepare_authority()
                await asyncio.sleep(SEEN)
                await traffic.turn()
                # Whoever is left behind trusts the server's next certificate: it is the server that has to refuse.
                behind = client_context(TlsFiles(old.certificate, old.private_key, sandbox.trust))
                behind.minimum_version = behind.maximum_version = version
                passed, session = await in_thread(ask, address, behind, None)
                sandbox.activate_authority()
                await asyncio.sleep(SEEN)
                await traffic.turn()
                sandbox.revoke_authority()
                await asyncio.sleep(SEEN)
                refused += [(await in_thread(ask, address, behind, one))[0] for one in (None, session)]
                await traffic.turn()
                assert passed == "200"
                assert not traffic.failures, traffic.failures
    figures.add(
        "trust bundles (prepared, activated, revoked)",
        f"REST, {kind}",
        changes=count.bundles,
        calls=traffic.calls,
        failed=len(traffic.failures),
        seconds=traffic.seconds,
    )
    figures.add(
        "clients with a removed root, anew and by an old session: how many passed",
        f"REST, {kind}",
        changes=count.bundles,
        calls=len(refused),
        failed=refused.count("200"),
        seconds=traffic.seconds,
    )

    assert traffic.failures == []
    assert len(refused) == 2 * count.bundles
    assert "200" not in refused


VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


def ask(address: tuple[str, int], context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[str, Any]:
    """Ask over a new connection that tries to resume a session; answers the status ("": no handshake), the session."""
    try:
        with (
            socket.create_connection(address, timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as tls,
        ):
            tls.sendall(b"GET /v1/x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            answer = b""
            while piece := tls.recv(65536):
                answer += piece
            return answer[9:12].decode(), tls.session
    except (ssl.SSLError, ConnectionError):
        return "", None


@pytest.mark.parametrize("end", ["client", "server"])
def test_folders_change_under_readers_and_no_triple_is_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: Count, figures: Figures, *, end: str
) -> None:
    monkeypatch.setattr("servicelink.folder.CHECK_EVERY", 0.0)
    made = [triple(number) for number in range(12)]
    write(tmp_path, made[0])
    source = FolderSource(tmp_path / "api", Protocol.REST)
    served = ServerFiles(tmp_path / "api", SharedKeys(["key"]))._files  # noqa: SLF001 - a context does not show its files
    # Read once in peace: before that there is no last good one to keep.
    assert source.current()
    assert served.current()
    whole = made if end == "client" else [replace(one, trust="") for one in made]
    reads: list[int] = []
    torn: list[Any] = []
    over = threading.Event()

    def read() -> None:
        seen = 0
        while not over.is_set():
            found = source.current().tls if end == "client" else served.current()
            seen += 1
            if found not in whole:
                torn.append(found)
        reads.append(seen)

    readers = [threading.Thread(target=read) for _ in range(3)]
    began = time.monotonic()
    for reader in readers:
        reader.start()
    for number in range(count.swaps):
        write(tmp_path, made[number % len(made)])
    over.set()
    for reader in readers:
        reader.join()
    figures.add(
        "directories with certificate, key and bundle",
        f"three readers, {end}'s end",
        changes=count.swaps,
        calls=sum(reads),
        failed=len(torn),
        seconds=time.monotonic() - began,
    )

    assert torn == []
    assert sum(reads) > 100


def triple(number: int) -> TlsFiles:
    """Answer a certificate, its key and the root of both, which nobody else has."""
    authority = Authority(f"root-{number}")
    leaf = authority.client(f"spiffe://sandbox/{number}")
    return TlsFiles(leaf.certificate.strip(), leaf.private_key.strip(), authority.trust.strip())


def write(folder: Path, files: TlsFiles) -> None:
    """Swap a binding in."""
    texts = {"tls.crt": files.certificate, "tls.key": files.private_key, "ca.crt": files.trust}
    swap(folder / "api", {"uri": "https://api", "protocol": "rest", **texts})
