"""Mistakes that a type checker must find: every line with an `error:` comment, and no other."""

import servicelink
from servicelink import sync


async def call() -> None:
    """Make mistakes."""
    payments = servicelink.connect("payments")
    await payments.get("/", follow_redirects=True)  # error: no such option
    await payments.get("/", timeout="5")  # error: no number
    payments.get("/").json()  # error: not awaited
    servicelink.connect("payments", retry=1)  # error: no such setting
    servicelink.connect("payments", interceptors=[object()])  # error: no interceptor
    with sync.connect("payments") as plain:
        await plain.get("/")  # error: nothing to await


async def ask() -> None:
    """Make mistakes with GraphQL."""
    catalog = servicelink.connect_graphql("catalog")
    await catalog.query("{ a }", id="1")  # error: variables come as a dictionary
    (await catalog.query("{ a }")).json()  # error: data, and no response
    await catalog.batch(["{ a }"])  # error: no operations
    sync.GraphQLClient(base_url="http://a")  # error: no name


def serve_and_choose() -> None:
    """Make mistakes with the rest."""
    servicelink.choose_protocol(True)  # error: which wish?
    servicelink.choose_protocol(fast=True)  # error: no such wish
    servicelink.choose_protocol().protokol.lower()  # error: no such attribute
    servicelink.LinkMiddleware()  # error: no application
    servicelink.uvicorn_config(None, connection_age="5m")  # error: no number
    servicelink.current_link().link.lower()  # error: there may be none
    servicelink.create_mock_service_client().get.returns(status="201")  # error: no number
