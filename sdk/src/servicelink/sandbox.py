"""Real bindings and verifiers in a folder, by an issuer that rotates when a test says so: what `link_sandbox` answers.

    def test_charging_survives_a_rotation(link_sandbox):
        payments = link_sandbox.link("payments")
        with payments.served():
            before = charge(100)
            payments.rotate()
            assert charge(100) == before

Nothing is mocked: clients and servers read files as in a Pod, and those are written as the kubelet writes them and in
the order in which the operator issues, server side first. Only who issues is the test's.
"""

import datetime as dt
import inspect
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from servicelink.extras import explain_missing
from servicelink.guard import SHARED_KEY_VARIABLE, VERIFIER_DIR
from servicelink.mounted import swap
from servicelink.server_tls import TLS_DIR
from servicelink_contract.binding import (
    DEFAULT_HEADER,
    ROOT_VARIABLE,
    BindingKey,
    LinkDocument,
    render_link_document,
)
from servicelink_contract.key import SECRET_BYTES, ApiKey, render_key
from servicelink_contract.rules import Protocol
from servicelink_contract.verifier import KeyEntry, LinkEntry, Mode, Verifier, render_verifier
from servicelink_contract.wire import parse_rules

if TYPE_CHECKING:
    from servicelink.authority import Authority, Leaf
    from servicelink.standin import App

NAMESPACE = "sandbox"
GRAPHQL_PATH = "/graphql"
# As Kubernetes names objects (RFC 1123); it is the name of a folder as well.
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_ENCRYPTED = frozenset({"https", "grpcs"})
# Certificates are issued a second apart, so that one can be retired and the next not; a day has room for many.
_BACK_DATED = dt.timedelta(days=1)
_LASTS = 2 * _BACK_DATED.total_seconds()


@dataclass(frozen=True, slots=True)
class _Credential:
    """What was issued to a link: a key or a certificate."""

    key: ApiKey | None = None
    leaf: "Leaf | None" = None


class LinkSandbox:
    """A folder of links and their servers; changed by the methods of its links and its own.

    `environ` are the variables by which clients and servers find it: the fixture sets them in this process, and other
    processes can be given them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._links: list[SandboxLink] = []
        self._authorities: list[Authority] = []
        self._began = dt.datetime.now(dt.UTC).replace(microsecond=0) - _BACK_DATED
        self._issued = 0

    @property
    def environ(self) -> dict[str, str]:
        """The variables that lead here; the shared key's is empty, so that no call passes by it."""
        folders = {ROOT_VARIABLE: "bindings", VERIFIER_DIR: "verifier", TLS_DIR: "tls"}
        return {name: str(self.folder / folder) for name, folder in folders.items()} | {SHARED_KEY_VARIABLE: ""}

    def link(
        self,
        name: str,
        uri: str = "",
        *,
        server: str = "",
        protocol: str = Protocol.REST,
        certificate: bool = False,
        allow: Iterable[dict[str, Any]] | None = None,
    ) -> "SandboxLink":
        """Make a link, and hand it over to its client and its server.

        `uri` is where it leads (see `SandboxLink.lead_to`), `server` the name of its Service (the link's without it),
        `allow` rules as of a ServiceLink (None: everything). With `certificate` the client has one instead of a key;
        over `https:` or `grpcs:` the server has one, for localhost and for the host of `uri`. Raises ValueError for a
        name that there is, or that can be none, and for rules that are not understood.
        """
        for kind, text in (("link", name), ("Service", server or name)):
            if not _NAME.fullmatch(text):
                raise ValueError(f"{text!r} is no name of a {kind}: lower-case letters, digits, dots and dashes")
        if any(one.name == name for one in self._links):
            raise ValueError(f"there is a link {name} already")
        made = SandboxLink(self, name, server or name, Protocol(_full_name(protocol)), certificate=certificate)
        made.uri = uri or f"{_scheme(made.protocol, encrypted=certificate)}://localhost"
        made.rules = None if allow is None else _parse_rules(made.protocol, tuple(allow))
        if made.is_encrypted:
            # First, since what it needs may not be installed: there is no such link then.
            self._authority()
        self._links.append(made)
        (self.folder / "bindings").mkdir(parents=True, exist_ok=True)
        if made.is_encrypted:
            self.certify(made.server)
        made.rotate()
        return made

    def write_verifier(self, server: str) -> None:
        """Swap in the verifier of a server, as its links are now."""
        entries = tuple(one.entry() for one in self._links if one.server == server and one.is_consented)
        verifier = Verifier(f"{NAMESPACE}/{server}", Mode.ENFORCE, DEFAULT_HEADER, GRAPHQL_PATH, entries, self.trust)
        shards = render_verifier(verifier)
        swap(self.folder / "verifier" / server, {f"shard-{place}.json": text for place, text in enumerate(shards)})

    def certify(self, server: str) -> None:
        """Issue a new certificate to a server, and swap it in."""
        hosts = {urlsplit(one.uri).hostname or "localhost" for one in self._links if one.server == server}
        leaf = self._authority().server(*sorted(hosts | {"localhost", "127.0.0.1"}), lasts=_LASTS)
        files: dict[str, str] = {BindingKey.TLS_CERTIFICATE: leaf.certificate, BindingKey.TLS_KEY: leaf.private_key}
        swap(self.folder / "tls" / server, files)

    @property
    def trust(self) -> str:
        """The roots that are trusted now, as PEM, "" where no link needs any."""
        return "".join(one.trust for one in self._authorities)

    def rotate_authority(self) -> None:
        """Change the authority: everybody trusts the next one, then has certificates of it; the old one stays trusted.

        The same as `prepare_authority` and then `activate_authority`. Where calls are under way, let them end between
        the two, as the operator waits: a handshake that began before the one fails after the other.
        """
        self.prepare_authority()
        self.activate_authority()

    def prepare_authority(self) -> None:
        """Have everybody trust the next authority as well."""
        self._authority()
        self._add_authority()
        self._write_trust()

    def activate_authority(self) -> None:
        """Have servers, then clients, get certificates of the newest authority."""
        for server in self._servers():
            self.certify(server)
        for one in self._encrypted():
            one.rotate()

    def revoke_authority(self) -> None:
        """Have nobody trust any authority but the newest."""
        del self._authorities[:-1]
        self._write_trust()

    def issue(self, link: "SandboxLink") -> _Credential:
        """Answer a new credential for a link; each is younger than all before."""
        self._issued += 1
        if not link.has_certificate:
            return _Credential(key=render_key(secrets.token_hex(4), secrets.token_bytes(SECRET_BYTES)))
        issued = self._began + dt.timedelta(seconds=self._issued)
        return _Credential(leaf=self._authority().client(link.identity, issued=issued, lasts=_LASTS))

    def _authority(self) -> "Authority":
        if not self._authorities:
            self._add_authority()
        return self._authorities[-1]

    def _add_authority(self) -> None:
        try:
            from servicelink.authority import Authority  # noqa: PLC0415 - links with keys do without cryptography
        except ModuleNotFoundError as error:
            explain_missing("certificate=True", error)
            raise

        self._authorities.append(Authority(f"sandbox-{secrets.token_hex(4)}"))

    def _encrypted(self) -> list["SandboxLink"]:
        return [one for one in self._links if one.is_encrypted]

    def _servers(self) -> list[str]:
        return sorted({one.server for one in self._encrypted()})

    def _write_trust(self) -> None:
        for server in self._servers():
            self.write_verifier(server)
        for one in self._encrypted():
            one.write_binding()


class SandboxLink:
    """One link of a sandbox. A change is done when its method returns; who looks, sees it.

    `name` is what clients connect to, `uri` where that leads, `server` the name of the Service.
    """

    def __init__(
        self, sandbox: LinkSandbox, name: str, server: str, protocol: Protocol, *, certificate: bool = False
    ) -> None:
        self.name = name
        self.server = server
        self.protocol = protocol
        self.has_certificate = certificate
        self.identity = f"spiffe://{NAMESPACE}/ns/{NAMESPACE}/link/{name}"
        self.uri = ""
        self.rules: tuple[Any, ...] | None = None
        self.is_consented = True
        self._sandbox = sandbox
        # What the server accepts, the oldest first, and of that what the client has.
        self._accepted: list[_Credential] = []
        self._published: _Credential | None = None
        self._issued_after: dt.datetime | None = None

    def __repr__(self) -> str:
        return f"SandboxLink({self.name!r}, {self.uri!r})"

    @property
    def is_encrypted(self) -> bool:
        """Whether it leads to a server with TLS."""
        return self.has_certificate or urlsplit(self.uri).scheme in _ENCRYPTED

    @property
    def headers(self) -> dict[str, str]:
        """What its client sends now, for a server that a test calls by itself; nothing for a certificate."""
        key = None if self._published is None else self._published.key
        return {} if key is None else {DEFAULT_HEADER: key.text}

    def lead_to(self, uri: str) -> None:
        """Let it lead somewhere else: to a server that a test has started."""
        self.uri = uri
        if self.is_encrypted:
            self._sandbox.certify(self.server)
            self._sandbox.write_verifier(self.server)
        self.write_binding()

    def rotate(self) -> None:
        """Give it a new credential: the server accepts both, the client has the new one.

        The same as `prepare` and then `publish`, for what runs in this process and follows at once. Where others run as
        well, let 50 ms pass between the two.
        """
        self.prepare()
        self.publish()

    def prepare(self) -> None:
        """Issue a new credential, and have the server accept it beside the one that the client has."""
        kept = [self._published] if self._published is not None else []
        self._accepted = [*kept, self._sandbox.issue(self)]
        self._sandbox.write_verifier(self.server)

    def publish(self) -> None:
        """Hand the newest credential over to the client."""
        self._published = self._accepted[-1]
        self.write_binding()

    def retire(self) -> None:
        """Have the server refuse every credential but the one that the client has."""
        retired = [one.leaf.not_before for one in self._accepted if one.leaf and one is not self._published]
        self._issued_after = max(retired, default=self._issued_after)
        self._accepted = [one for one in self._accepted if one is self._published]
        self._sandbox.write_verifier(self.server)

    def withdraw(self) -> None:
        """Withdraw the server's consent: the client keeps its credential, and the server does not know it any more."""
        self.is_consented = False
        self._sandbox.write_verifier(self.server)

    def consent(self) -> None:
        """Give the consent back."""
        self.is_consented = True
        self._sandbox.write_verifier(self.server)

    def allow(self, *rules: dict[str, Any]) -> None:
        """Allow these rules, as of a ServiceLink, and nothing else; raises ValueError for what is not understood."""
        self.rules = _parse_rules(self.protocol, rules)
        self._sandbox.write_verifier(self.server)

    @contextmanager
    def served(self, app: "App | None" = None) -> Iterator[str]:
        """Serve a WSGI application behind the middleware, lead the link there, and answer the address.

        Without one, every call that the link allows is answered by 200 and `{}`. Raises ValueError for a link of gRPC
        and one that needs TLS, which WSGI does not know of, and TypeError for an ASGI application.
        """
        from servicelink.standin import serve_wsgi  # noqa: PLC0415 - only where it is asked for

        if _is_asgi(app):
            raise TypeError(
                f"served() takes a WSGI application, and {app!r} is one of ASGI: start a server and lead_to() it, "
                "or send the link's headers by a client for tests"
            )
        if self.protocol is Protocol.GRPC:
            raise ValueError(f"{self.name} is a link of gRPC: start a server of yours, and lead_to() it")
        if self.is_encrypted:
            raise ValueError(f"{self.name} needs TLS: serve it by servicelink.uvicorn_config")
        with serve_wsgi(app, self.server) as address:
            self.lead_to(address)
            yield address

    def entry(self) -> LinkEntry:
        """Answer what the verifier says of it."""
        keys = tuple(KeyEntry(key.kid, key.sha256, _now()) for one in self._accepted if (key := one.key))
        full_name, uid = f"{NAMESPACE}/{self.name}", f"uid-{self.name}"
        entry = LinkEntry(full_name, uid, urlsplit(self.uri).port or 0, self.protocol, keys, allow=self.rules)
        if not self.has_certificate:
            return entry
        return replace(entry, identity=self.identity, issued_after=self._issued_after)

    def write_binding(self) -> None:
        """Swap in its binding, as it is now."""
        if self._published is None:
            return
        url = urlsplit(self.uri)
        files: dict[str, str] = {
            BindingKey.TYPE: "servicelink",
            BindingKey.PROVIDER: NAMESPACE,
            BindingKey.PROTOCOL: self.protocol.lower(),
            BindingKey.URI: self.uri,
            BindingKey.HOST: url.hostname or "",
            BindingKey.PORT: str(url.port or ""),
            BindingKey.HEADER: DEFAULT_HEADER,
            BindingKey.LINK: render_link_document(
                LinkDocument(f"{NAMESPACE}/{self.name}", f"{NAMESPACE}/{self.server}")
            ),
            **({BindingKey.TRUST_BUNDLE: self._sandbox.trust} if self.is_encrypted else {}),
            **_credential_files(self._published),
        }
        swap(self._sandbox.folder / "bindings" / self.name, files)


def _credential_files(credential: _Credential) -> dict[str, str]:
    if credential.key is not None:
        return {BindingKey.API_KEY: credential.key.text, BindingKey.API_KEY_ID: credential.key.kid}
    assert credential.leaf is not None
    leaf = credential.leaf
    return {BindingKey.TLS_CERTIFICATE: leaf.certificate, BindingKey.TLS_KEY: leaf.private_key}


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _is_asgi(app: Any) -> bool:
    """Say whether an application is one of ASGI: a coroutine function, or of a class whose calls are."""
    return any(inspect.iscoroutinefunction(one) for one in (app, type(app).__call__))


def _parse_rules(protocol: Protocol, rules: tuple[dict[str, Any], ...]) -> tuple[Any, ...]:
    """Parse rules as of a ServiceLink; raises ValueError for those that it could not have."""
    for rule in rules:
        try:
            parse_rules(protocol, [rule])
        except KeyError as error:
            raise ValueError(f"the rule {rule!r} has no {error}") from None
        except (TypeError, ValueError) as error:
            raise ValueError(f"the rule {rule!r} is none of {protocol}: {error}") from None
    return parse_rules(protocol, rules)


def _full_name(protocol: str) -> str:
    """Answer the protocol of that name, whatever its case."""
    return next((one for one in Protocol if one.lower() == protocol.lower()), protocol)


def _scheme(protocol: Protocol, *, encrypted: bool) -> str:
    return ("grpc" if protocol is Protocol.GRPC else "http") + ("s" if encrypted else "")
