"""Tests of applications, as their users write them, as `rest.py`."""

from collections.abc import Mapping
from typing import Any, assert_type

import httpx

import servicelink
from servicelink import sync, testing


async def mock() -> None:
    """Test an application that calls over REST."""
    payments = servicelink.create_mock_service_client("payments", retries=0)
    assert_type(payments, testing.MockServiceClient)
    payments.get.in_turn({"id": 1}, testing.Answer(status=503), servicelink.ServiceTimeout)
    assert_type(await payments.get("/v1"), httpx.Response)
    assert_type(payments.calls, list[testing.RecordedCall])
    assert_type(payments.get.call_count, int)
    payments.clock.advance(30)
    accept(payments)


async def mock_graphql() -> None:
    """Test an application that asks GraphQL servers."""
    catalog = servicelink.create_mock_graphql_client("catalog")
    catalog.query.returns({"products": []}).fails("NOT_FOUND", operation="Product")
    assert_type(await catalog.query("{ products }"), dict[str, Any])
    assert_type(catalog.mutate.calls[0].variables, Mapping[str, Any])
    plain = sync.create_mock_graphql_client("catalog")
    plain.mutate.raises(servicelink.PermissionDenied)
    assert_type(plain.query("{ products }"), dict[str, Any])


def test_checkout(mock_link: testing.MockLink) -> None:
    """Use the plugin's fixture."""
    link = mock_link("payments")
    link.post.returns({"id": "ch_1"}, status=201)
    link.query.returns({"products": []})
    assert_type(link.calls, list[testing.RecordedCall])
    assert_type(link.operations, list[testing.RecordedOperation])


def test_rotation(link_sandbox: testing.LinkSandbox) -> None:
    """Use the other one."""
    link = link_sandbox.link("payments")
    assert_type(link, testing.SandboxLink)
    with link.served() as address:
        assert_type(address, str)


def accept(client: servicelink.ServiceClient) -> None:
    """Take any client, also a mocked one."""
