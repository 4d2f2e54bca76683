"""The binding Secret's content that is not secret: what it says beside the key."""

import json
from collections.abc import Mapping

from servicelink_contract.binding import BindingKey, LinkDocument, render_link_document
from servicelink_core.api.links import Link
from servicelink_core.api.names import GROUP, digest
from servicelink_core.resolve import Endpoint


def render_content(link: Link, endpoint: Endpoint, header: str) -> dict[str, str]:
    """Answer keys and values of the binding without its credential."""
    document = LinkDocument(
        link=link.full_name,
        server=str(link.server),
        timeout=link.resilience.timeout,
        retries=link.resilience.retries,
        breaker_failures=link.resilience.breaker_failures,
        breaker_open_for=link.resilience.breaker_open_for,
    )
    return {
        BindingKey.TYPE: "servicelink",
        BindingKey.PROVIDER: GROUP,
        BindingKey.PROTOCOL: link.protocol.lower(),
        BindingKey.URI: endpoint.uri,
        BindingKey.HOST: endpoint.host,
        BindingKey.PORT: str(endpoint.port),
        BindingKey.HEADER: header,
        BindingKey.LINK: render_link_document(document),
    }


def content_hash(content: Mapping[str, str]) -> str:
    """Answer a hash that changes with the content, for the Secret's annotation."""
    return digest(json.dumps(dict(content), sort_keys=True))[:16]
