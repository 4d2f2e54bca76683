"""Servers over https are checked by the roots that the binding names, in both worlds."""

import datetime as dt
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sdk_worlds import WORLDS, Hands, Peer, Request, Stage, open_caller, staged

import servicelink
from servicelink_contract.key import render_key

KEY = render_key("AAAAAAAA", b"a" * 32).text
Mount = Callable[[Path, Mapping[str, str]], None]


class Authority:
    """A root that signs for a name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, folder.name)])
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        builder = _builder(self._name, self._name).public_key(self._key.public_key())
        self._root = builder.add_extension(constraints, critical=True).sign(self._key, hashes.SHA256())
        self.trust = self._root.public_bytes(serialization.Encoding.PEM).decode()

    def context_for(self, name: str) -> ssl.SSLContext:
        """Answer a server's context."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = _builder(subject, self._name).public_key(key.public_key()).add_extension(names, critical=False)
        leaf = builder.sign(self._key, hashes.SHA256())
        self._folder.mkdir()
        pem = serialization.Encoding.PEM
        plain = serialization.NoEncryption()
        (self._folder / "crt").write_bytes(leaf.public_bytes(pem))
        (self._folder / "key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._folder / "crt", self._folder / "key")
        return context


def _builder(subject: x509.Name, issuer: x509.Name) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - dt.timedelta(minutes=5)).not_valid_after(now + dt.timedelta(hours=1))


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
    authority = Authority(root / "authority")
    stage = await stack.enter_async_context(staged(fine, tls=authority.context_for(name)))
    trust = authority.trust if trusted else Authority(root / "other").trust
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
