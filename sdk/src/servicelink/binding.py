"""Where a link is found by its name, and what it says: address, credential, time limit.

A mounted binding comes first, by the link's name and then by its server's; then environment variables, which serve a
laptop as well as a container without mounts. Nothing is looked at before the first call; what was found once is kept
to, and followed as its files change.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from typing import Protocol

from servicelink.errors import LinkNotFound
from servicelink.folder import SwappedFolder
from servicelink_contract.binding import (
    DEFAULT_HEADER,
    DEFAULT_ROOT,
    ROOT_VARIABLE,
    BindingKey,
    LinkDocument,
    LinkDocumentError,
    parse_link_document,
)
from servicelink_contract.key import MalformedKeyError, parse_key

# Seconds for a whole call where no `link.json` says otherwise.
DEFAULT_TIMEOUT = 5.0
SHARED_KEY_VARIABLE = "INTERNAL_API_KEY"


@dataclass(frozen=True, slots=True)
class Credential:
    """What goes into the header `header`; `kid` is public and empty for a key that is none of ours."""

    header: str
    text: str = field(repr=False)
    kid: str = ""


@dataclass(frozen=True, slots=True)
class Binding:
    """One link as its client sees it: the server's base address, the credential, seconds for a whole call."""

    link: str
    uri: str
    credential: Credential | None
    timeout: float = DEFAULT_TIMEOUT


class Source(Protocol):
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


class FolderSource:
    """A mounted binding, one file per key."""

    def __init__(self, folder: Path) -> None:
        self._files = SwappedFolder(folder, lambda target: observe_binding(target, folder.name))

    def current(self) -> Binding:
        """Answer the newest good binding; raises LinkNotFound while there was none."""
        return self._require(self._files.current())

    def reload(self) -> Binding:
        """As `current`, but looked at now."""
        return self._require(self._files.reload())

    def _require(self, binding: Binding | None) -> Binding:
        if binding is None:
            problem = self._files.problem or f"{self._files.folder} is empty"
            raise LinkNotFound(
                problem, link=self._files.folder.name, next_step="See the conditions of the ServiceLink of that name"
            )
        return binding


class KeyFileSource:
    """An address from the environment with its key in a file."""

    def __init__(self, link: str, uri: str, key_file: Path) -> None:
        def observe(folder: Path) -> Binding:
            return Binding(link, uri, parse_credential((folder / key_file.name).read_text(encoding="utf-8")))

        self._link = link
        self._files = SwappedFolder(key_file.parent, observe, pattern=escape(key_file.name))

    def current(self) -> Binding:
        """Answer the address with the newest good key; raises LinkNotFound while there was none."""
        return self._require(self._files.current())

    def reload(self) -> Binding:
        """As `current`, but looked at now."""
        return self._require(self._files.reload())

    def _require(self, binding: Binding | None) -> Binding:
        if binding is None:
            raise LinkNotFound(f"its key file: {self._files.problem}", link=self._link)
        return binding


def parse_credential(text: str, header: str = DEFAULT_HEADER) -> Credential:
    """Parse the text of a key, ours or a shared one; raises ValueError for an empty one."""
    text = text.strip()
    if not text or not text.isascii() or not text.isprintable():
        raise ValueError("the key is empty, or has characters that no header can hold")
    try:
        return Credential(header, text, parse_key(text).kid)
    except MalformedKeyError:
        return Credential(header, text)


def observe_binding(folder: Path, name: str) -> Binding:
    """Read a binding (REST with an API key); raises ValueError with what is missing or not served, and OSError."""
    files = {key: _read(folder / key) for key in _READ}
    protocol = files[BindingKey.PROTOCOL] or "rest"
    if protocol.lower() != "rest":
        raise ValueError(f"it is a link for {protocol}, and connect() speaks REST")
    uri, key = files[BindingKey.URI], files[BindingKey.API_KEY]
    if not uri:
        raise ValueError(f"it has no {BindingKey.URI.value}: its Secret has not come yet, or is no binding")
    if not key:
        raise ValueError(f"it has no {BindingKey.API_KEY.value}, and this release calls with API keys only")
    document = _parse_document(files[BindingKey.LINK])
    timeout = DEFAULT_TIMEOUT if document is None else document.timeout
    link = name if document is None else document.link
    return Binding(link, uri, parse_credential(key, files[BindingKey.HEADER] or DEFAULT_HEADER), timeout)


_READ = (BindingKey.PROTOCOL, BindingKey.URI, BindingKey.API_KEY, BindingKey.HEADER, BindingKey.LINK)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


def _parse_document(text: str) -> LinkDocument | None:
    return parse_link_document(text) if text else None


def observe_source(name: str, environ: Mapping[str, str]) -> Source:
    """Find a link: by its name, by its server's (namespace/name or bare), in variables. Raises LinkNotFound."""
    root = Path(environ.get(ROOT_VARIABLE) or DEFAULT_ROOT)
    if folder := _observe_folder(root, name):
        return FolderSource(folder)
    found = _observe_variables(name, environ)
    if found is None:
        first, second = (variable for variable, _ in _url_variables(name))
        raise LinkNotFound(
            f"there is no {root}/{name}, no binding there with the server {name}, and neither {first} nor {second}",
            link=name,
            next_step="In a cluster apply a ServiceLink for this workload; elsewhere set these variables",
        )
    return found


def _observe_folder(root: Path, name: str) -> Path | None:
    # A name such as `..` or `a/b` is no link's.
    if "/" not in name and not name.startswith(".") and (root / name).is_dir():
        return root / name
    found = [path.parent for path in sorted(root.glob(f"*/{BindingKey.LINK}")) if _is_server(path, name)]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise LinkNotFound(f"several links lead to it: {names}", link=name, next_step="Connect by the link's name")
    return found[0] if found else None


def _is_server(path: Path, name: str) -> bool:
    try:
        server = parse_link_document(path.read_text(encoding="utf-8")).server
    except (OSError, UnicodeDecodeError, LinkDocumentError):
        return False
    return name in {server, server.rpartition("/")[2]}


def _url_variables(name: str) -> tuple[tuple[str, tuple[str, ...]], tuple[str, tuple[str, ...]]]:
    """Answer the variables for an address, each with the prefixes of those for its key."""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name.rpartition("/")[2]).upper()
    service = f"{plain}_SERVICE"
    return (f"{service}_URL", (service, plain)), (f"{plain}_URL", (plain,))


def _observe_variables(name: str, environ: Mapping[str, str]) -> Source | None:
    for variable, prefixes in _url_variables(name):
        if uri := environ.get(variable):
            return _keyed(name, uri, prefixes, environ)
    return None


def _keyed(name: str, uri: str, prefixes: tuple[str, ...], environ: Mapping[str, str]) -> Source:
    for prefix in prefixes:
        if path := environ.get(f"{prefix}_API_KEY_FILE"):
            return KeyFileSource(name, uri, Path(path))
        if key := environ.get(f"{prefix}_API_KEY"):
            return FixedSource(Binding(name, uri, _usable(name, f"{prefix}_API_KEY", key)))
    if key := shared_key(environ):
        return FixedSource(Binding(name, uri, _usable(name, SHARED_KEY_VARIABLE, key)))
    tried = ", ".join(f"{prefix}_API_KEY_FILE, {prefix}_API_KEY" for prefix in prefixes)
    raise LinkNotFound(
        f"its address is set, but no key: there is none of {tried}, {SHARED_KEY_VARIABLE}",
        link=name,
        next_step="Set one of them",
    )


def shared_key(environ: Mapping[str, str]) -> str:
    """Answer the first of the comma-separated shared keys, "" where there is none."""
    parts = (part.strip() for part in environ.get(SHARED_KEY_VARIABLE, "").split(","))
    return next((part for part in parts if part), "")


def _usable(name: str, variable: str, key: str) -> Credential:
    try:
        return parse_credential(key)
    except ValueError as error:
        raise LinkNotFound(f"{variable}: {error}", link=name) from None
