"""Mistakes with gRPC that a type checker must find: every line with an `error:` comment, and no other."""

import servicelink
from servicelink import sync


async def call() -> None:
    """Make mistakes."""
    users = servicelink.connect_grpc("users", proto="a.proto", service="Users")
    await users.call("getUser", {"a": 1}, timeout="5")  # error: no number
    users.call("getUser")["a"]  # error: not awaited
    servicelink.connect_grpc("users", retry=1)  # error: no such setting
    servicelink.connect_grpc("users", stub=3)  # error: no stub
    with sync.connect_grpc("users", proto="a.proto", service="Users") as plain:
        await plain.call("getUser")  # error: nothing to await
    await servicelink.grpc_server({}, port="50051")  # error: no number
    sync.grpc_server([])  # error: no servicers
    servicelink.LinkInterceptor(exempt=1)  # error: no names
