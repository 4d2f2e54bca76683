"""What an SDK reads of a link is read whole or not at all."""

import json
from typing import Any

import pytest

from servicelink_contract.binding import LinkDocument, LinkDocumentError, parse_link_document, render_link_document

DOCUMENT = LinkDocument("shop/web-to-api", "backend/api", 2.5, 0, 0, 0.0)


def test_a_document_comes_back_as_it_was() -> None:
    assert parse_link_document(render_link_document(DOCUMENT)) == DOCUMENT


@pytest.mark.parametrize("name", ["timeout", "breaker_open_for"])
@pytest.mark.parametrize("value", [-1, 10**320, -(10**320), float("nan"), float("inf"), True, "1", None])
def test_what_is_no_number_of_seconds_is_malformed(name: str, value: Any) -> None:
    found = json.loads(render_link_document(DOCUMENT)) | {name: value}

    with pytest.raises(LinkDocumentError, match=f"{name} is no number of seconds"):
        parse_link_document(json.dumps(found))


@pytest.mark.parametrize("name", ["retries", "breaker_failures"])
@pytest.mark.parametrize("value", [-5, 1.5, True, "1"])
def test_what_counts_nothing_is_malformed(name: str, value: Any) -> None:
    found = json.loads(render_link_document(DOCUMENT)) | {name: value}

    with pytest.raises(LinkDocumentError, match=name):
        parse_link_document(json.dumps(found))
