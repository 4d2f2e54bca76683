"""The sandbox of the test kit: real bindings and verifiers, an issuer that rotates, consent that is withdrawn."""

import asyncio
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from grpc_worlds import serving_users
from sdk_servers import AsgiApp
from sdk_worlds import WORLDS, open_caller
from tls_servers import running
from users_service import generated

import servicelink
from servicelink import sync
from servicelink.mounted import swap
from servicelink.testing import LinkSandbox, SandboxLink
from servicelink_contract.rules import Protocol

Serve = Callable[[Any], Any]


@pytest.fixture(params=WORLDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


async def code_of(client: Any) -> str:
    """Make a call, and answer "" for one that passes, else its error."""
    try:
        answer = await client.get("/v1/x", retries=0)
    except servicelink.ServiceError as error:
        return type(error).__name__
    assert answer.status_code == 200
    return ""


async def test_a_key_goes_through_all_its_phases(link_sandbox: LinkSandbox, serve: Serve, kind: str) -> None:
    app = AsgiApp()
    api = link_sandbox.link("api")
    api.lead_to(await serve(servicelink.LinkMiddleware(app)))
    client = open_caller(kind, service_name="api")
    first, codes = api.headers, []
    for change in (api.prepare, api.publish, api.retire, api.withdraw, api.consent, api.rotate):
        change()
        codes.append(await code_of(client))
    await client.close()
    kids = [link.kid for link in app.links if link is not None]
    async with httpx.AsyncClient(base_url=api.uri, trust_env=False) as plain:
        old = await plain.get("/v1/x", headers=first)
        new = await plain.get("/v1/x", headers=api.headers)

    assert codes == ["", "", "", "InvalidServiceAuth", "", ""]
    assert [link and link.link for link in app.links] == ["sandbox/api"] * 6
    # Prepared: still the first; published: the second, also after the consent came back; rotated: the third.
    assert (kids[0] != kids[1], kids[1:4], kids[4] != kids[3]) == (True, [kids[1]] * 3, True)
    assert (old.status_code, new.status_code) == (403, 200)


async def test_rules_hold_and_change(link_sandbox: LinkSandbox, serve: Serve, kind: str) -> None:
    api = link_sandbox.link("api", allow=[{"methods": ["GET"], "paths": ["/v2/**"]}])
    api.lead_to(await serve(servicelink.LinkMiddleware(AsgiApp())))
    client = open_caller(kind, service_name="api")
    before = await code_of(client)
    api.allow({"methods": ["GET"], "paths": ["/v1/**"]})
    after = await code_of(client)
    await client.close()

    assert (before, after) == ("PermissionDenied", "")


async def test_several_links_lead_to_one_server(link_sandbox: LinkSandbox, serve: Serve, kind: str) -> None:
    app = AsgiApp()
    links = [link_sandbox.link(name, server="api") for name in ("web", "app")]
    address = await serve(servicelink.LinkMiddleware(app))
    for link in links:
        link.lead_to(address)
    links[0].rotate()
    links[1].withdraw()
    clients = [open_caller(kind, service_name=link.name) for link in links]
    codes = [await code_of(client) for client in clients]
    for client in clients:
        await client.close()

    assert codes == ["", "InvalidServiceAuth"]
    assert [one and one.link for one in app.links] == ["sandbox/web"]


@pytest.fixture
async def encrypted(link_sandbox: LinkSandbox) -> AsyncIterator[tuple[SandboxLink, AsgiApp]]:
    """A link whose client has a certificate, and what its server sees."""
    app = AsgiApp()
    api = link_sandbox.link("api", certificate=True)
    async with running(servicelink.LinkMiddleware(app)) as (_, port):
        api.lead_to(f"https://localhost:{port}")
        yield api, app


async def test_certificates_go_through_all_their_phases(
    link_sandbox: LinkSandbox, encrypted: tuple[SandboxLink, AsgiApp], kind: str
) -> None:
    api, app = encrypted
    client, codes = open_caller(kind, service_name="api"), []
    before = servicelink.ssl_context("api")
    changes = (api.rotate, api.retire, link_sandbox.rotate_authority, link_sandbox.revoke_authority, api.withdraw)
    for change in changes:
        change()
        codes.append(await code_of(client))
    await client.close()
    serials = [link.kid for link in app.links if link is not None]

    assert codes == ["", "", "", "", "InvalidServiceAuth"]
    assert (serials[0] == serials[1], serials[1] != serials[2], serials[2] == serials[3]) == (True, True, True)
    assert api.headers == {}
    assert isinstance(before, ssl.SSLContext)


async def test_a_certificate_that_was_retired_is_refused_and_so_is_one_of_a_revoked_authority(
    link_sandbox: LinkSandbox, encrypted: tuple[SandboxLink, AsgiApp], kind: str
) -> None:
    api, _ = encrypted
    client = open_caller(kind, service_name="api")
    folder = link_sandbox.folder / "bindings" / "api"
    old = {path.name: path.read_text() for path in folder.iterdir() if path.name[0] != "."}
    api.rotate()
    swap(folder, old)
    both = await code_of(client)
    api.retire()
    retired = await code_of(client)
    api.write_binding()
    renewed = await code_of(client)
    link_sandbox.rotate_authority()
    link_sandbox.revoke_authority()
    swap(folder, old)
    revoked = await code_of(client)
    await client.close()

    assert (both, retired, renewed, revoked) == ("", "InvalidServiceAuth", "", "ServiceUnavailable")


class Traffic:
    """Callers that call one after the other until it is over."""

    def __init__(self, client: Any, callers: int = 2) -> None:
        self.codes: list[list[str]] = [[] for _ in range(callers)]
        self._client = client
        self._over = False
        self._ended = asyncio.Condition()
        self._tasks = [asyncio.create_task(self._call(codes)) for codes in self.codes]

    async def _call(self, codes: list[str]) -> None:
        while not self._over:
            code = await code_of(self._client)
            async with self._ended:
                codes.append(code)
                self._ended.notify_all()

    async def turn(self) -> None:
        """Wait until every caller has made a whole call: what is under way now has ended then."""
        before = [len(codes) for codes in self.codes]
        async with self._ended:
            await self._ended.wait_for(
                lambda: all(len(codes) >= count + 2 for codes, count in zip(self.codes, before, strict=True))
            )

    async def end(self) -> set[str]:
        """Answer how calls ended."""
        self._over = True
        await asyncio.gather(*self._tasks)
        return {code for codes in self.codes for code in codes}


async def test_an_authority_changes_under_calls_and_none_fails(
    link_sandbox: LinkSandbox, encrypted: tuple[SandboxLink, AsgiApp], kind: str
) -> None:
    client = open_caller(kind, service_name="api")
    traffic = Traffic(client)
    for _ in range(3):
        for phase in (
            link_sandbox.prepare_authority,
            link_sandbox.activate_authority,
            link_sandbox.revoke_authority,
        ):
            phase()
            await traffic.turn()
    codes = await traffic.end()
    await client.close()

    assert codes == {""}
    assert len({link.kid for link in encrypted[1].links if link is not None}) >= 4


async def test_the_server_of_a_link_with_a_key_may_be_encrypted_as_well(link_sandbox: LinkSandbox, kind: str) -> None:
    app = AsgiApp()
    api = link_sandbox.link("api", "https://localhost")
    async with running(servicelink.LinkMiddleware(app)) as (_, port):
        api.lead_to(f"https://127.0.0.1:{port}")
        client = open_caller(kind, service_name="api")
        codes = [await code_of(client)]
        link_sandbox.rotate_authority()
        link_sandbox.revoke_authority()
        codes.append(await code_of(client))
        await client.close()

    assert codes == ["", ""]


def test_a_served_link_answers_and_survives_rotations_under_calls(link_sandbox: LinkSandbox) -> None:
    api = link_sandbox.link("api")
    over, answered = threading.Event(), threading.Condition()
    statuses: list[int] = []
    with api.served() as address, sync.connect("api") as client:
        first = client.get("/v1/x").json()

        def call() -> None:
            while not over.is_set():
                status = client.get("/v1/x").status_code
                with answered:
                    statuses.append(status)
                    answered.notify()

        thread = threading.Thread(target=call)
        thread.start()
        for _ in range(20):
            api.rotate()
            with answered:
                assert all(answered.wait(20) for _ in range(2))
            api.retire()
        over.set()
        thread.join()
        refused = httpx.get(address, trust_env=False)

    assert first == {}
    assert set(statuses) == {200}
    assert len(statuses) >= 40
    assert refused.status_code == 403


def test_an_application_of_ones_own_is_served(link_sandbox: LinkSandbox) -> None:
    links: list[Any] = []

    def app(environ: dict[str, Any], start: Any) -> list[bytes]:
        links.append(environ["servicelink"].link)
        start("200 OK", [("content-length", "4")])
        return [b"mine"]

    with link_sandbox.link("api").served(app), sync.connect("api") as client:
        answer = client.get("/v1/x")

    assert (answer.content, links) == (b"mine", ["sandbox/api"])


class Asgi:
    """An ASGI application, as frameworks have them."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer nothing."""


@pytest.mark.parametrize("app", [Asgi(), Asgi().__call__])
def test_an_asgi_application_is_served_by_another_server(link_sandbox: LinkSandbox, app: Any) -> None:
    link = link_sandbox.link("api")
    with (
        pytest.raises(TypeError, match=r"takes a WSGI application, and .* is one of ASGI: .*lead_to"),
        link.served(app),
    ):
        pytest.fail("it was served")


LATE = sync.connect("late")


@pytest.mark.parametrize("time", ["first", "second"])
def test_a_client_of_a_module_finds_its_link_in_every_test(link_sandbox: LinkSandbox, time: str) -> None:
    with link_sandbox.link("late").served():
        assert LATE.get("/v1/x").status_code == 200
    LATE.close()


def test_what_cannot_be_is_refused(link_sandbox: LinkSandbox) -> None:
    link_sandbox.link("api", protocol="rest")
    with pytest.raises(ValueError, match="there is a link api already"):
        link_sandbox.link("api")
    with pytest.raises(ValueError, match="unknown fields of a rule"):
        link_sandbox.link("other", allow=[{"service": "x"}])
    with pytest.raises(ValueError, match=r"the rule \{'methods': \['GET'\]\} has no 'paths'"):
        link_sandbox.link("other", allow=[{"methods": ["GET"]}])
    with pytest.raises(ValueError, match=r"the rule \{'paths': 'x'\} is none of REST: paths is no list"):
        link_sandbox.link("other").allow({"paths": "x"})
    with pytest.raises(ValueError, match="nothing"):
        link_sandbox.link("another", protocol="nothing")
    with pytest.raises(ValueError, match="needs TLS"), link_sandbox.link("last", certificate=True).served():
        pytest.fail("it was served")
    with pytest.raises(ValueError, match="link of gRPC"), link_sandbox.link("users", protocol="grpc").served():
        pytest.fail("it was served")


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "A", "a b", "-a", "a" * 254])
def test_a_name_that_no_link_and_no_service_can_have_writes_nothing(link_sandbox: LinkSandbox, name: str) -> None:
    with pytest.raises(ValueError, match="is no name of a link"):
        link_sandbox.link(name)
    if name:
        with pytest.raises(ValueError, match="is no name of a Service"):
            link_sandbox.link("api", server=name)

    assert not link_sandbox.folder.exists()


def test_a_certificate_without_what_makes_one_says_what_to_install(
    link_sandbox: LinkSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "servicelink.authority", raising=False)
    monkeypatch.setitem(sys.modules, "cryptography", None)

    with pytest.raises(ModuleNotFoundError, match=r"certificate=True needs .* pip install 'servicelink\[test\]'"):
        link_sandbox.link("api", certificate=True)

    assert link_sandbox.link("api").headers


def test_links_of_all_protocols_are_read(link_sandbox: LinkSandbox) -> None:
    from servicelink.find import source_of  # noqa: PLC0415 - only this test's

    made = [link_sandbox.link(one.lower(), protocol=one) for one in Protocol]
    for link, protocol in zip(made, Protocol, strict=True):
        assert source_of(link.name, protocol).current().link == f"sandbox/{link.name}"


async def test_a_grpc_client_has_the_newest_key(link_sandbox: LinkSandbox) -> None:
    users = link_sandbox.link("users", protocol="grpc")
    keys = []
    async with serving_users() as stage, servicelink.GrpcClient(service_name="users") as client:
        stub = client.stub(generated()[1].UserServiceStub)
        users.lead_to(f"grpc://{stage.address}")
        for change in (users.prepare, users.publish, users.rotate):
            change()
            keys.append(users.headers["x-service-auth"])
            await stub.GetUser(generated()[0].GetUserRequest(user_id="1"))

    assert [call.all("x-service-auth") for call in stage.users.seen] == [[key] for key in keys]
    assert len(set(keys)) == 3


def test_no_key_is_in_any_repr(link_sandbox: LinkSandbox) -> None:
    api = link_sandbox.link("api")
    key = api.headers["x-service-auth"]

    assert key not in repr([api, vars(api), vars(link_sandbox), api.entry()])


def test_a_swap_is_what_the_kubelet_does(tmp_path: Path) -> None:
    swap(tmp_path, {"a": "1", "b": "1"})
    first = (tmp_path / "..data").readlink()
    swap(tmp_path, {"b": "2", "c": "2"})
    names = sorted(path.name for path in tmp_path.iterdir() if path.is_symlink())

    assert names == ["..data", "b", "c"]
    assert ((tmp_path / "b").read_text(), (tmp_path / "b").readlink()) == ("2", Path("..data") / "b")
    assert not (tmp_path / first).exists()
