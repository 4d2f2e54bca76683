"""Where a link is found by its name.

A mounted binding comes first, by the link's name and then by its server's; then environment variables, which serve a
laptop as well as a container without mounts.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from servicelink.binding import (
    Binding,
    Credential,
    FixedSource,
    FolderSource,
    FoundSource,
    KeyFileSource,
    Origin,
    Source,
    parse_credential,
    show_address,
)
from servicelink.errors import LinkNotFound
from servicelink_contract.binding import (
    DEFAULT_ROOT,
    ROOT_VARIABLE,
    BindingKey,
    LinkDocument,
    LinkDocumentError,
    parse_link_document,
)
from servicelink_contract.rules import Protocol

SHARED_KEY_VARIABLE = "INTERNAL_API_KEY"


def source_of(name: str, protocol: Protocol) -> Source:
    """Answer the source of a link, which is looked for when it is first used."""
    return FoundSource(name, lambda: observe_source(name, protocol, os.environ))


def explicit_source(name: str, protocol: Protocol, uri: str, *, api_key: str | None, shared_key: bool) -> Source:
    """Answer the source of an address that the application gives; a key goes there only where it says so.

    Raises ValueError for a key that no header can hold, LinkNotFound where the shared key is wanted and there is none.
    """
    argument = "address" if protocol is Protocol.GRPC else "base_url"
    if api_key is not None:
        try:
            credential = parse_credential(api_key)
        except ValueError as error:
            raise ValueError(f"api_key: {error}") from None
        return _fixed(name, argument, uri, credential, key="api_key")
    if not shared_key:
        return _fixed(name, argument, uri, None, key=None)
    key = first_shared_key(os.environ)
    if not key:
        raise LinkNotFound(
            f"shared_key=True, but {SHARED_KEY_VARIABLE} is not set", link=name, next_step="Set it, or pass api_key="
        )
    return _fixed(name, argument, uri, _usable(name, SHARED_KEY_VARIABLE, key), key=SHARED_KEY_VARIABLE)


def _fixed(name: str, place: str, uri: str, credential: Credential | None, *, key: str | None) -> Source:
    return FixedSource(Binding(name, uri, credential, name, origin=Origin(place, show_address(uri), key)))


def observe_source(name: str, protocol: Protocol, environ: Mapping[str, str]) -> Source:
    """Find a link: by its name, by its server's (namespace/name or bare), in variables. Raises LinkNotFound."""
    if not name:
        raise LinkNotFound("a link was asked for without a name", next_step="Connect by the link's name")
    root = Path(environ.get(ROOT_VARIABLE) or DEFAULT_ROOT)
    if folder := _observe_folder(root, name):
        return FolderSource(folder, protocol)
    found = _observe_variables(name, protocol, environ)
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
    try:
        if "/" not in name and not name.startswith(".") and (root / name).is_dir():
            return root / name
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise LinkNotFound(f"its folder in {root} cannot be looked at: {reason}", link=name) from None
    named = [(path.parent, document) for path in sorted(root.glob(f"*/{BindingKey.LINK}")) if (document := _read(path))]
    found = [folder for folder, document in named if name in {document.server, document.server.rpartition("/")[2]}]
    # As errors and logs name it.
    found = found or [folder for folder, document in named if name == document.link]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise LinkNotFound(f"several links lead to it: {names}", link=name, next_step="Connect by the link's name")
    return found[0] if found else None


def _read(path: Path) -> LinkDocument | None:
    try:
        return parse_link_document(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, LinkDocumentError):
        return None


def _url_variables(name: str) -> tuple[tuple[str, tuple[str, ...]], tuple[str, tuple[str, ...]]]:
    """Answer the variables for an address, each with the prefixes of those for its key."""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name.rpartition("/")[2]).upper()
    service = f"{plain}_SERVICE"
    return (f"{service}_URL", (service, plain)), (f"{plain}_URL", (plain,))


def _observe_variables(name: str, protocol: Protocol, environ: Mapping[str, str]) -> Source | None:
    for variable, prefixes in _url_variables(name):
        # A line break is what is left of a file that the variable was read from.
        if uri := environ.get(variable, "").strip():
            named = next((one for prefix in prefixes if environ.get(one := f"{prefix}_TLS_DIR")), None)
            if named is not None:
                # Certificates are this server's credential, so no key of another is shown to it.
                return FolderSource(Path(environ[named]), protocol, named)
            return _keyed(name, variable, uri, prefixes, environ=environ)
    return None


def _keyed(name: str, place: str, uri: str, prefixes: tuple[str, ...], *, environ: Mapping[str, str]) -> Source:
    for prefix in prefixes:
        if path := environ.get(file := f"{prefix}_API_KEY_FILE"):
            return KeyFileSource(name, uri, Path(path), Origin(place, show_address(uri), f"{file} ({path})"))
        if key := environ.get(variable := f"{prefix}_API_KEY"):
            return _fixed(name, place, uri, _usable(name, variable, key), key=variable)
    own = (f"{prefix}_{end}" for prefix in prefixes for end in ("TLS_DIR", "API_KEY_FILE", "API_KEY"))
    if empty := next((variable for variable in own if variable in environ), None):
        # Whoever set it meant a key of this server's, so no other goes there.
        step = f"Set it, or take it away where {SHARED_KEY_VARIABLE} is to be used"
        raise LinkNotFound(f"{empty} is set, but empty", link=name, next_step=step)
    if key := first_shared_key(environ):
        return _fixed(name, place, uri, _usable(name, SHARED_KEY_VARIABLE, key), key=SHARED_KEY_VARIABLE)
    tried = ", ".join(f"{prefix}_API_KEY_FILE, {prefix}_API_KEY" for prefix in prefixes)
    raise LinkNotFound(
        f"its address is set, but no key: there is none of {tried}, {SHARED_KEY_VARIABLE}",
        link=name,
        next_step="Set one of them",
    )


def first_shared_key(environ: Mapping[str, str]) -> str:
    """Answer the first of the comma-separated shared keys, "" where there is none."""
    parts = (part.strip() for part in environ.get(SHARED_KEY_VARIABLE, "").split(","))
    return next((part for part in parts if part), "")


def _usable(name: str, variable: str, key: str) -> Credential:
    try:
        return parse_credential(key)
    except ValueError as error:
        raise LinkNotFound(f"{variable}: {error}", link=name) from None
