"""What a link's binding says: address, credential, limits; and where it is read from, again and again.

A `Source` answers the newest good binding whenever it is asked, which costs a look at the clock, and every 50 ms one at
the folder. Files that are not good leave the last good binding in use.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from typing import Protocol as Interface

from servicelink.context import CARRIED
from servicelink.errors import LinkNotFound
from servicelink.folder import SwappedFolder
from servicelink_contract.binding import DEFAULT_HEADER, BindingKey, LinkDocument, parse_link_document
from servicelink_contract.key import MalformedKeyError, parse_key
from servicelink_contract.rules import Protocol


@dataclass(frozen=True, slots=True)
class Credential:
    """What goes into the header `header`; `kid` is public and empty for a key that is none of ours."""

    header: str
    text: str = field(repr=False)
    kid: str = ""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM texts of one moment: the client's certificate with its chain, its key, the roots to trust ("": absent)."""

    certificate: str = field(repr=False)
    private_key: str = field(repr=False)
    trust: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds for calls that say nothing else: seconds for a whole call, further attempts, the circuit's."""

    timeout: float = 5.0
    retries: int = 2
    breaker_failures: int = 5
    breaker_open_for: float = 30.0


DEFAULTS = Limits()
LAST_PORT = 65535
_SHOWN = re.compile(r"([a-z][a-z0-9+.-]*://)?([^?#]*@)?([^?#]*)([?#].*)?", re.ASCII | re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Origin:
    """Which variables or arguments an address and a key came from, as errors name them.

    `uri` is the address as it may be shown; `key` is None where none is sent.
    """

    address: str
    uri: str
    key: str | None


def show_address(uri: str) -> str:
    """Answer an address as errors may show it: a user, a password and a query may be secret."""
    found = _SHOWN.fullmatch(uri)
    assert found is not None, "it fits any text"
    scheme, user, place, more = (part or "" for part in found.groups())
    if "@" in more:
        # A password may hold what else begins a query.
        return f"{scheme}***"
    return f"{scheme}{'***@' if user else ''}{place}{f'{more[0]}***' if more else ''}"


_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
# As of a ServiceLinkPolicy, and what every call says of itself.
_TAKEN_PREFIXES = ("x-forwarded-", "x-servicelink-", "grpc-")
_TAKEN = CARRIED | {
    *("host", "cookie", "set-cookie", "connection", "keep-alive", "proxy-authenticate", "proxy-authorization"),
    *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length", "content-type"),
    *("content-encoding", "expect", "forwarded", "user-agent", "via"),
}


@dataclass(frozen=True, slots=True)
class Binding:
    """One link as its client sees it: names, the server's base address, what to show it, limits."""

    link: str
    uri: str
    credential: Credential | None
    server: str = ""
    limits: Limits = DEFAULTS
    tls: TlsFiles | None = None
    # None: mounted.
    origin: Origin | None = None

    @property
    def kid(self) -> str:
        """The public name of the key, "" where there is none."""
        return "" if self.credential is None else self.credential.kid


def refuse_address(binding: Binding, kinds: str, next_step: str) -> LinkNotFound:
    """Answer the error of an address that is none of these kinds."""
    place = "" if binding.origin is None else f"{binding.origin.address} is "
    problem = f"its address is no {kinds}: {place}{show_address(binding.uri)!r}"
    return LinkNotFound(problem, link=binding.link, next_step=next_step)


class Source(Interface):
    """Where a binding comes from."""

    def current(self) -> Binding:
        """Answer it as it is now; raises LinkNotFound while there is none."""

    def reload(self) -> Binding:
        """As `current`, but looked at now."""


@dataclass(frozen=True, slots=True)
class FixedSource:
    """A binding that never changes."""

    binding: Binding

    def current(self) -> Binding:
        """Answer the binding."""
        return self.binding

    def reload(self) -> Binding:
        """Answer the binding."""
        return self.binding


class FoundSource:
    """A binding that is looked for when it is first needed; what was found is kept to, and followed as it changes."""

    def __init__(self, name: str, find: Callable[[], Source]) -> None:
        self.name = name
        self.find = find
        self._found: Source | None = None

    def current(self) -> Binding:
        """Answer the binding as it is now; raises LinkNotFound while there is none."""
        return self.found().current()

    def reload(self) -> Binding:
        """As `current`, but looked at now."""
        return self.found().reload()

    def found(self) -> Source:
        """Answer what was found; raises LinkNotFound while there is nothing."""
        if self._found is None:
            self._found = self.find()
        return self._found


class FolderSource:
    """A mounted binding of one protocol, one file per key; or a folder like one that a variable names."""

    def __init__(self, folder: Path, protocol: Protocol, variable: str = "") -> None:
        self._variable = variable
        self._files = SwappedFolder(folder, lambda target: observe_binding(target, folder.name, protocol))

    def current(self) -> Binding:
        """Answer the newest good binding; raises LinkNotFound while there was none."""
        return self._files.current() or self._refuse()

    def reload(self) -> Binding:
        """As `current`, but looked at now."""
        return self._files.reload() or self._refuse()

    def _refuse(self) -> Binding:
        problem = self._files.problem or f"{self._files.folder} is empty"
        step = "See the conditions of the ServiceLink of that name"
        if self._variable:
            step = f"{self._variable} names a folder with uri, tls.crt, tls.key and ca.crt"
        raise LinkNotFound(problem, link=self._files.folder.name, next_step=step)


class KeyFileSource:
    """An address from the environment with its key in a file; a binding's says beside it which header it goes in."""

    def __init__(self, link: str, uri: str, key_file: Path, origin: Origin | None = None) -> None:
        def observe(folder: Path) -> Binding:
            key, header = _text(folder / key_file.name), folder / BindingKey.HEADER
            named = _text(header) if header.is_file() else ""
            return Binding(link, uri, parse_credential(key, parse_header(named)), origin=origin)

        self._link = link
        self._title = f"its key file {key_file}" if origin is None else f"its key, {origin.key}"
        self._files = SwappedFolder(key_file.parent, observe, pattern=escape(key_file.name), title=str(key_file))

    def current(self) -> Binding:
        """Answer the address with the newest good key; raises LinkNotFound while there was none."""
        return self._files.current() or self._refuse()

    def reload(self) -> Binding:
        """As `current`, but looked at now."""
        return self._files.reload() or self._refuse()

    def _refuse(self) -> Binding:
        step = "Have the file hold the key and nothing else"
        raise LinkNotFound(f"{self._title}: {self._files.problem}", link=self._link, next_step=step)


def parse_credential(text: str, header: str = DEFAULT_HEADER) -> Credential:
    """Parse the text of a key, ours or a shared one; raises ValueError for one that no header can hold.

    A text that begins as a key of ours does and is none was cut off or mistyped, so it is refused as well.
    """
    text = text.strip()
    if not text or not text.isascii() or not text.isprintable():
        raise ValueError("the key is empty, or has characters that no header can hold")
    try:
        return Credential(header, text, parse_key(text).kid)
    except MalformedKeyError:
        if text.startswith("slk_"):
            raise ValueError("the key is cut off or mistyped") from None
        return Credential(header, text)


def parse_header(text: str) -> str:
    """Parse the name of a key's header, the usual one for ""; raises ValueError for one that can hold no key."""
    name = text.lower() or DEFAULT_HEADER
    if not _TOKEN.fullmatch(name):
        raise ValueError("its header is no name that a header can have (RFC 9110)")
    if name in _TAKEN or name.startswith(_TAKEN_PREFIXES) or name.endswith("-bin"):
        raise ValueError(f"its header {name} has another meaning on the way")
    return name


_READ = (
    BindingKey.PROTOCOL,
    BindingKey.URI,
    BindingKey.API_KEY,
    BindingKey.HEADER,
    BindingKey.LINK,
    BindingKey.TLS_CERTIFICATE,
    BindingKey.TLS_KEY,
    BindingKey.TRUST_BUNDLE,
)


def observe_binding(folder: Path, name: str, protocol: Protocol) -> Binding:
    """Read a binding; raises ValueError with what is missing or does not fit, and OSError."""
    files = {key: _read(folder / key) for key in _READ}
    spoken = files[BindingKey.PROTOCOL] or protocol
    if spoken.lower() != protocol.lower():
        raise ValueError(f"it is a link for {spoken}, and this client speaks {protocol}")
    if not files[BindingKey.URI]:
        raise ValueError(f"it has no {BindingKey.URI.value}: its Secret has not come yet, or is no binding")
    document = parse_link_document(files[BindingKey.LINK]) if files[BindingKey.LINK] else None
    key, tls = files[BindingKey.API_KEY], _tls(files)
    if not key and not files[BindingKey.TLS_CERTIFICATE]:
        raise ValueError(f"it has neither {BindingKey.API_KEY.value} nor {BindingKey.TLS_CERTIFICATE.value}")
    return Binding(
        link=name if document is None else document.link,
        server="" if document is None else document.server,
        uri=files[BindingKey.URI],
        credential=parse_credential(key, parse_header(files[BindingKey.HEADER])) if key else None,
        limits=DEFAULTS if document is None else _limits(document),
        tls=tls,
    )


def _tls(files: dict[BindingKey, str]) -> TlsFiles | None:
    certificate, key, trust = (
        files[BindingKey.TLS_CERTIFICATE],
        files[BindingKey.TLS_KEY],
        files[BindingKey.TRUST_BUNDLE],
    )
    if not certificate and not key and not trust:
        return None
    if bool(certificate) != bool(key):
        raise ValueError(f"{BindingKey.TLS_CERTIFICATE.value} and {BindingKey.TLS_KEY.value} go together")
    if certificate and not trust:
        # The system's roots instead would let somebody else's certificate for the server's name pass.
        raise ValueError(f"{BindingKey.TLS_CERTIFICATE.value} goes with {BindingKey.TRUST_BUNDLE.value}")
    if certificate and files[BindingKey.URI].startswith(_PLAINTEXT):
        raise ValueError(f"its {BindingKey.URI.value} leads where no certificate is shown")
    found = TlsFiles(certificate, key, trust)
    _require_fit(found)
    return found


_PLAINTEXT = ("http:", "grpc:")


def _require_fit(files: TlsFiles) -> None:
    """Raise ValueError for texts that make no context: the last good ones must stay in use."""
    from servicelink.tls import client_context  # noqa: PLC0415 - most bindings need no ssl

    client_context(files)


def _limits(document: LinkDocument) -> Limits:
    # 0 is no limit, as for timeouts of the Gateway API (GEP-1742).
    timeout = document.timeout or math.inf
    return Limits(timeout, document.retries, document.breaker_failures, document.breaker_open_for)


def _read(path: Path) -> str:
    try:
        return _text(path)
    except FileNotFoundError:
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        # Whose words quote a byte of what may be a key.
        raise ValueError(f"{path.name} is no text in UTF-8") from None
