"""Servers over https are checked by the roots that the binding names, in both worlds."""

import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import certifi
import pytest
from sdk_worlds import WORLDS, Hands, Peer, Request, Stage, open_caller, staged

import servicelink
from servicelink.authority import Authority, Leaf
from servicelink_contract.key import render_key

KEY = render_key("AAAAAAAA", b"a" * 32).text
Mount = Callable[[Path, Mapping[str, str]], None]


def served_by(leaf: Leaf, folder: Path) -> ssl.SSLContext:
    """Answer a server's context."""
    folder.mkdir()
    (folder / "crt").write_text(leaf.certificate)
    (folder / "key").write_text(leaf.private_key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "crt", folder / "key")
    return context


async def fine(peer: Peer, request: Request) -> None:
    await peer.reply(200, b"fine")


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


async def bind(
    stack: AsyncExitStack, mount: Mount, root: Path, *, name: str = "localhost", trusted: bool = True
) -> Stage:
    """Serve over https, and mount a binding that trusts the server's root, or another."""
    authority = Authority("authority")
    stage = await stack.enter_async_context(staged(fine, tls=served_by(authority.server(name), root / "server")))
    trust = authority.trust if trusted else Authority("other").trust
    mount(root / "bindings" / "api", {"uri": stage.address, "api-key": KEY, "ca.crt": trust})
    return stage


async def test_a_server_with_a_certificate_of_the_bindings_root_is_called(  # noqa: PLR0917 - fixtures
    world: str, stack: AsyncExitStack, mount: Mount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVICE_BINDING_ROOT", str(tmp_path / "bindings"))
    stage = await bind(stack, mount, tmp_path)
    api = open_caller(world, service_name="api")
    answers = [(await api.get("/")).text for _ in range(2)]
    await api.close()

    assert (answers, stage.connections) == (["fine", "fine"], 1)


@pytest.mark.parametrize("wrong", [{"trusted": False}, {"name": "elsewhere.example"}])
async def test_a_server_that_cannot_prove_its_name_is_sent_nothing(
    world: str,
    stack: AsyncExitStack,
    mount: Mount,
    tmp_path: Path,
    *,
    monkeypatch: pytest.MonkeyPatch,
    wrong: dict[str, bool],
) -> None:
    monkeypatch.setenv("SERVICE_BINDING_ROOT", str(tmp_path / "bindings"))
    stage = await bind(stack, mount, tmp_path, **wrong)  # type: ignore[arg-type] # a table's column
    api = open_caller(world, Hands(), service_name="api")
    with pytest.raises(servicelink.ServiceUnavailable) as refused:
        await api.get("/", retries=0)
    await api.close()

    assert refused.value.unsent
    assert stage.requests == []


async def test_without_roots_of_its_own_a_client_trusts_what_the_system_trusts_and_no_other_list(
    world: str, stack: AsyncExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority("authority")
    listed = tmp_path / "cacert.pem"
    listed.write_text(authority.trust)
    monkeypatch.setattr(certifi, "where", lambda: str(listed))
    server = served_by(authority.server("localhost"), tmp_path / "server")
    stage = await stack.enter_async_context(staged(fine, tls=server))
    api = open_caller(world, service_name="api", base_url=stage.address, retries=0)
    with pytest.raises(servicelink.ServiceUnavailable):
        await api.get("/")
    await api.close()

    assert stage.requests == []
