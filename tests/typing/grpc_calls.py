"""Code that calls and serves over gRPC as users write it, checked and never run; as rest.py beside it."""

from collections.abc import AsyncIterator
from typing import Any, assert_type

import grpc.aio

import servicelink
from servicelink import sync


class Stub:
    """A stub as generators of typed code make them."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel

    async def GetUser(self, request: str) -> bytes:  # noqa: N802 - as generated
        """Answer a user."""
        return request.encode()


class PlainStub:
    """A synchronous one."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel


class Users:
    """A servicer."""

    async def ListUsers(self, request: str, context: object) -> AsyncIterator[str]:  # noqa: N802 - as generated
        """Answer users."""
        assert_type(servicelink.current_link(), servicelink.Allowed | None)
        yield request


def add_users(servicer: Users, server: Any) -> None:
    """Add it, as generated."""


async def call() -> None:
    """Call asynchronously."""
    users = servicelink.connect_grpc("users", stub=Stub, timeout=2, idempotent=["GetUser"], channel_options=[("a", 1)])
    assert_type(users, Stub)
    assert_type(await users.GetUser("1"), bytes)
    client = servicelink.connect_grpc("users", proto="users.proto", package="a.v1", service="Users")
    assert_type(client, servicelink.GrpcClient)
    assert_type(await client.call("getUser", {"user_id": "1"}, timeout=0.5, metadata=[("a", "b")]), dict[str, Any])
    async for user in client.stream("listUsers", {"page": 1}):
        assert_type(user, dict[str, Any])
    assert_type(client.stub(Stub), Stub)
    assert_type(client.breaker.state, servicelink.CircuitState)
    async with servicelink.GrpcClient(service_name="a", address="a:1", api_key="k") as other:
        assert_type(other.with_options(retries=0), servicelink.GrpcClient)
    channel: grpc.aio.Channel = servicelink.grpc_channel("users")
    await channel.close()


def call_synchronously() -> None:
    """Call synchronously."""
    assert_type(sync.connect_grpc("users", stub=PlainStub), PlainStub)
    with sync.connect_grpc("users", proto=b"", service="Users") as client:
        assert_type(client, sync.GrpcClient)
        assert_type(client.call("getUser"), dict[str, Any])
        for user in client.stream("listUsers"):
            assert_type(user, dict[str, Any])
    channel: grpc.Channel = sync.grpc_channel("users")
    channel.close()


async def serve() -> None:
    """Serve."""
    credentials: grpc.ServerCredentials = servicelink.grpc_server_credentials(service="users", client_certificates=True)
    server = await servicelink.grpc_server(
        {add_users: Users()},
        port=0,
        credentials=credentials,
        rate_limit=servicelink.RateLimit(calls=10),
        exempt=("a.B/*",),
    )
    assert_type(server, servicelink.GrpcServer)
    assert_type(server.port, int)
    assert_type(server.counts(), servicelink.Counts)
    await server.serve(grace=1)
    grpc.aio.server(interceptors=[servicelink.LinkInterceptor(service="users")])


def serve_synchronously() -> None:
    """Serve in threads."""
    with sync.grpc_server({add_users: Users()}, threads=4, reflection=False) as server:
        assert_type(server, sync.GrpcServer)
        server.serve()
    accept_interceptor(sync.LinkInterceptor())


async def mock() -> None:
    """Test an application."""
    client = servicelink.create_mock_grpc_client("users")
    client.method("GetUser").returns({"user_id": "1"}).in_turn(servicelink.ServiceTimeout)
    client.method("GetUser").raises(grpc.StatusCode.NOT_FOUND)
    assert_type(client.method("GetUser").calls[0].json, dict[str, Any])
    assert_type(client.stub(Stub), Stub)
    plain = sync.create_mock_grpc_client("users")
    assert_type(plain.call("getUser"), dict[str, Any])
    accept(client)


def accept(client: servicelink.GrpcClient) -> None:
    """Take any client, also a mocked one."""


def accept_interceptor(interceptor: grpc.ServerInterceptor) -> None:
    """Take any interceptor."""
