"""Keys, certificates and roots change under gRPC calls of all four kinds, and under streams, and no call fails."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from figures import Figures
from grpc_servers import LINK, VERIFIER, Served, key_entry, plain_stub, serving, write_grpc_verifier
from grpc_worlds import GrpcCaller, open_grpc
from sdk_servers import make_key, swap
from sdk_worlds import WORLDS, in_thread
from users_service import generated

import servicelink
from servicelink.authority import Authority
from servicelink.verify import Code
from servicelink_contract.key import ApiKey

pytestmark = [pytest.mark.proof, pytest.mark.traffic, pytest.mark.timeout(0)]

IDENTITY = "spiffe://cluster.local/ns/shop/link/web"
# Rotations that a stream sees before it ends and another one begins.
STREAM = 10


@dataclass(slots=True)
class Traffic:
    """Calls of all four kinds, each after the other and all at once, until they are told to end; none is repeated."""

    users: GrpcCaller
    over: bool = False
    answered: int = 0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def begin(self) -> None:
        """Begin to call."""
        kinds: tuple[Callable[[], Awaitable[Any]], ...] = (
            lambda: self.users.create("1"),
            lambda: self.users.list(2),
            lambda: self.users.add([generated()[0].User()] * 2),
            lambda: self.users.chat(["a", "b"]),
        )
        self.tasks = [asyncio.create_task(self._call(kind)) for kind in kinds]

    async def _call(self, kind: Callable[[], Awaitable[Any]]) -> None:
        while not self.over:
            await kind()
            self.answered += 1

    def check(self) -> None:
        """Raise what went wrong, if anything did."""
        for task in self.tasks:
            if task.done():
                task.result()

    async def end(self) -> int:
        """Let the calls under way end; answers how many were answered. Raises what went wrong."""
        self.over = True
        await asyncio.gather(*self.tasks)
        return self.answered


class Stream:
    """A stream of both directions that stays open; each word is answered before the next one is sent."""

    def __init__(self, users: GrpcCaller, world: str) -> None:
        self._words: asyncio.Queue[str | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._is_asynchronous = world == "asynchronous"
        self._call: Any = users.stub.Chat(self._lines() if self._is_asynchronous else self._plain_lines())

    async def _lines(self) -> AsyncIterator[Any]:
        while (word := await self._words.get()) is not None:
            yield generated()[0].Line(text=word)

    def _plain_lines(self) -> Any:
        while (word := asyncio.run_coroutine_threadsafe(self._words.get(), self._loop).result(60)) is not None:
            yield generated()[0].Line(text=word)

    async def say(self, word: str) -> str:
        """Send a word, and answer what comes back."""
        await self._words.put(word)
        read = self._call.read() if self._is_asynchronous else in_thread(next, self._call)
        return str((await asyncio.wait_for(read, 30)).text)

    async def end(self) -> grpc.StatusCode:
        """End it, and answer its status."""
        await self._words.put(None)
        if self._is_asynchronous:
            assert await self._call.read() is grpc.aio.EOF
            code: grpc.StatusCode = await self._call.code()
            return code
        assert await in_thread(next, self._call, None) is None
        found: grpc.StatusCode = await in_thread(self._call.code)
        return found


class Place:
    """The folders of a client's binding and of a server."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.keys = map(make_key, itertools.count(100))

    def accept(self, *keys: ApiKey) -> None:
        """Hand the server a verifier that takes these keys."""
        link = replace(LINK, keys=tuple(map(key_entry, keys)), allow=None)
        write_grpc_verifier(self.root / "verifier", replace(VERIFIER, links=(link,)))

    def hand(self, served: Served, key: ApiKey) -> None:
        """Hand the client a key."""
        files = {"uri": f"grpc://{served.address}", "api-key": key.text, "api-key-id": key.kid, "protocol": "grpc"}
        swap(self.root / "bindings" / "users", files)

    def trust(self, *authorities: Authority) -> None:
        """Hand the server a verifier that trusts these, and takes the identity."""
        link = replace(LINK, keys=(), identity=IDENTITY, allow=None)
        trust = "".join(one.trust for one in authorities)
        write_grpc_verifier(self.root / "verifier", replace(VERIFIER, links=(link,), trust=trust))

    def certify(self, authority: Authority) -> None:
        """Hand the server a certificate."""
        leaf = authority.server("localhost")
        swap(self.root / "tls" / "users", {"tls.crt": leaf.certificate, "tls.key": leaf.private_key})

    def hand_certificate(self, served: Served, authority: Authority, *trusted: Authority) -> str:
        """Hand the client a certificate and the roots that it is to trust; answers the serial number."""
        leaf = authority.client(IDENTITY)
        files = {"uri": f"grpcs://localhost:{served.port}", "tls.crt": leaf.certificate, "tls.key": leaf.private_key}
        trust = "".join(one.trust for one in trusted)
        swap(self.root / "bindings" / "users", {**files, "ca.crt": trust, "protocol": "grpc"})
        return leaf.serial


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("SERVICELINK_VERIFIER_DIR", str(tmp_path / "verifier"))
    monkeypatch.setenv("SERVICE_BINDING_ROOT", str(tmp_path / "bindings"))
    monkeypatch.delenv("INTERNAL_API_KEY", raising=False)
    return Place(tmp_path)


@pytest.fixture
def rotations(request: pytest.FixtureRequest) -> int:
    number: int = request.config.getoption("--rotations")
    return number


async def until_accepted(served: Served, key: ApiKey) -> None:
    """Call with a key, aside, until the server takes it: whoever rotates moves no client before."""
    async with grpc.aio.insecure_channel(served.address) as channel:
        request = generated()[0].GetUserRequest(user_id="1")
        while True:
            call = plain_stub(channel).GetUser(request, metadata=(("x-service-auth", key.text),))
            if await call.code() is grpc.StatusCode.OK:
                return


async def until_seen(served: Served, kid: str, traffic: Traffic) -> None:
    """Wait until a call came by that key or certificate; raises what went wrong with the traffic."""
    reached = served.users.reached
    while not any(one.link is not None and one.link.kid == kid and one.method == "Chat" for one in reached[-50:]):
        traffic.check()
        # Not at every turn of the loop: calls have to get through.
        await asyncio.sleep(0.002)


@pytest.mark.parametrize("kind", ["aio", "threads"])
@pytest.mark.parametrize("world", WORLDS)
async def test_keys_change_under_calls_of_all_kinds_and_under_streams(
    place: Place, rotations: int, figures: Figures, *, kind: str, world: str
) -> None:
    key = next(place.keys)
    place.accept(key)
    async with serving(kind) as served:
        place.hand(served, key)
        users = open_grpc(world, service_name="users", retries=0)
        traffic, stream = Traffic(users), Stream(users, world)
        assert await stream.say("first") == "FIRST"
        traffic.begin()
        began = time.monotonic()
        for number in range(rotations):
            after = next(place.keys)
            # Both are taken while clients move.
            place.accept(key, after)
            await until_accepted(served, after)
            place.hand(served, after)
            await until_seen(served, after.kid, traffic)
            assert await stream.say(f"word-{number}") == f"WORD-{number}"
            if number % STREAM == STREAM - 1:
                assert await stream.end() is grpc.StatusCode.OK
                stream = Stream(users, world)
            key = after
        assert await stream.say("last") == "LAST"
        assert await stream.end() is grpc.StatusCode.OK
        answered = await traffic.end()
        seconds = time.monotonic() - began
        await users.close()
    figures.add(
        "keys, old and new accepted",
        f"GRPC, {world}, server of {kind}",
        changes=rotations,
        calls=answered,
        failed=0,
        seconds=seconds,
    )

    assert answered > rotations
    # Of whoever asked, aside, whether a key is taken yet.
    assert served.counts().refused.keys() <= {servicelink.Counted(None, None, Code.INVALID_SERVICE_AUTH)}
    assert sum(served.counts().accepted.values()) >= answered


@pytest.mark.parametrize("kind", ["aio", "threads"])
@pytest.mark.parametrize("world", WORLDS)
async def test_certificates_and_roots_change_under_calls_and_connections_come_and_go(
    place: Place, rotations: int, figures: Figures, *, kind: str, world: str
) -> None:
    before, authority = Authority("0"), Authority("1")
    place.trust(before, authority)
    place.certify(authority)
    credentials = servicelink.grpc_server_credentials()
    async with serving(kind, credentials=credentials) as served:
        place.hand_certificate(served, authority, before, authority)
        users = open_grpc(world, service_name="users", retries=0)
        traffic, stream = Traffic(users), Stream(users, world)
        assert await stream.say("first") == "FIRST"
        traffic.begin()
        began = time.monotonic()
        for number in range(rotations):
            # A new root is trusted on both sides before anything of it is shown, and the one before is let go.
            after = Authority(str(number + 2))
            place.trust(authority, after)
            serial = place.hand_certificate(served, authority, authority, after)
            await until_seen(served, serial, traffic)
            assert await stream.say(f"word-{number}") == f"WORD-{number}"
            place.certify(after)
            serial = place.hand_certificate(served, after, authority, after)
            await until_seen(served, serial, traffic)
            if number % STREAM == STREAM - 1:
                assert await stream.end() is grpc.StatusCode.OK
                stream = Stream(users, world)
            authority = after
        assert await stream.say("last") == "LAST"
        assert await stream.end() is grpc.StatusCode.OK
        answered = await traffic.end()
        seconds = time.monotonic() - began
        await users.close()
    figures.add(
        "certificates and roots of client and server",
        f"GRPC, {world}, server of {kind}",
        changes=rotations,
        calls=answered,
        failed=0,
        seconds=seconds,
    )

    assert answered > rotations
    assert served.counts().refused == {}


@pytest.mark.parametrize("world", WORLDS)
async def test_a_long_stream_goes_on_while_its_key_is_replaced_and_revoked(
    place: Place, figures: Figures, request: pytest.FixtureRequest, world: str
) -> None:
    """Ten times: whoever is let in once is not asked again, and nothing of a rotation reaches a call under way."""
    seconds, key, words = request.config.getoption("--stream"), next(place.keys), 0
    place.accept(key)
    async with serving("aio") as served:
        place.hand(served, key)
        users = open_grpc(world, service_name="users", retries=0)
        stream, began = Stream(users, world), time.monotonic()
        for number in range(STREAM):
            after = next(place.keys)
            place.accept(key, after)
            await until_accepted(served, after)
            place.hand(served, after)
            assert await users.create("1")
            place.accept(after)
            key = after
            while time.monotonic() < began + seconds * (number + 1) / STREAM:
                assert await stream.say(f"word-{words}") == f"WORD-{words}"
                words += 1
        assert await stream.end() is grpc.StatusCode.OK
        lasted = time.monotonic() - began
        await users.close()
    figures.add(
        "keys, under one stream",
        f"GRPC, {world}, {lasted:.0f} s",
        changes=STREAM,
        calls=words,
        failed=0,
        seconds=lasted,
    )

    assert lasted >= seconds
    assert words > STREAM
