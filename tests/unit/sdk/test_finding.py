"""What a name leads to: a binding by the link's name or its server's, else variables; and no name leads astray."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import servicelink
from servicelink.find import observe_source
from servicelink_contract.binding import LinkDocument, render_link_document
from servicelink_contract.rules import Protocol

Mount = Callable[[Path, Mapping[str, str]], None]
SHARED = "shared-key"


@pytest.fixture
def root(tmp_path: Path, mount: Mount) -> Path:
    """A folder of one binding."""
    document = LinkDocument("web/pay-link", "shop/payments")
    files = {"uri": "http://pay", "api-key": "key", "link.json": render_link_document(document)}
    mount(tmp_path / "bindings" / "pay-link", files)
    return tmp_path / "bindings"


def uri_of(root: Path, name: str, **variables: str) -> str:
    return observe_source(name, Protocol.REST, {"SERVICE_BINDING_ROOT": str(root), **variables}).current().uri


@pytest.mark.parametrize("name", ["pay-link", "web/pay-link", "payments", "shop/payments"])
def test_a_link_is_found_by_its_own_name_or_its_servers_with_its_namespace_or_without(root: Path, name: str) -> None:
    assert uri_of(root, name) == "http://pay"


def test_two_bindings_of_one_full_name_are_an_error_that_lists_them(root: Path, mount: Mount) -> None:
    files = {path.name: path.read_text() for path in (root / "pay-link").iterdir() if not path.name.startswith("..")}
    mount(root / "twin", files)

    with pytest.raises(servicelink.LinkNotFound, match="pay-link, twin"):
        uri_of(root, "web/pay-link")


@pytest.mark.parametrize("name", ["", ".", "..", "../bindings/pay-link", "./pay-link", "web/../pay-link", "a\0b"])
def test_a_name_that_is_a_path_leads_to_no_folder(root: Path, name: str) -> None:
    # What stands beside the folder of bindings, and in it, would be taken for one.
    for folder in (root, root.parent):
        (folder / "uri").write_text("http://astray")
        (folder / "api-key").write_text("key")

    with pytest.raises(servicelink.LinkNotFound):
        uri_of(root, name)


def test_a_name_that_is_too_long_for_a_folder_is_not_found(root: Path) -> None:
    with pytest.raises(servicelink.LinkNotFound):
        uri_of(root, "a" * 300)


@pytest.mark.parametrize("variable", ["API_API_KEY", "API_API_KEY_FILE", "API_TLS_DIR"])
def test_a_variable_that_is_set_and_empty_is_an_error_and_no_other_key_goes_out(root: Path, variable: str) -> None:
    with pytest.raises(servicelink.LinkNotFound, match=f"{variable} is set, but empty"):
        uri_of(root, "api", API_URL="http://api", INTERNAL_API_KEY=SHARED, **{variable: ""})


def test_white_space_around_an_address_is_no_part_of_it(root: Path) -> None:
    assert uri_of(root, "api", API_URL="http://api\n", API_API_KEY="key") == "http://api"
