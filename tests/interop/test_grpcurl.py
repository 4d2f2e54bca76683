"""Our servers answer grpcurl, which knows nothing of us: by reflection, with a key, without one, and over TLS."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_health.v1 import health_pb2
from grpc_servers import KEY, LINK, VERIFIER, Served, serving, write_grpc_verifier
from sdk_servers import swap
from users_service import FULL_NAME, PROTO

import servicelink
from servicelink.authority import Authority
from servicelink.grpc.server_door import HEALTH

AUTH = ("-H", f"x-service-auth: {KEY.text}")
# grpcurl asks by the newer name first, and by the older where that is not known.
REFLECTION = tuple(f"grpc.reflection.{version}.ServerReflection/*" for version in ("v1", "v1alpha"))
IDENTITY = "spiffe://cluster.local/ns/shop/link/web"
Curl = Callable[..., Awaitable[tuple[int, str]]]


def as_file(descriptor: Any) -> FileDescriptorProto:
    """Answer what describes a generated module."""
    found = FileDescriptorProto()
    descriptor.CopyToProto(found)
    return found


@pytest.fixture
def curl(tool: Callable[[str], Path]) -> Curl:
    """`await curl(*words)` runs grpcurl, and answers how it ended and all that it said."""
    program = tool("grpcurl")

    async def run(*words: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            str(program), *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, said.decode()

    return run


@pytest.fixture(params=["aio", "threads"])
async def start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncIterator[Callable[..., Awaitable[Served]]]:
    """`await start(**options)` answers a server with a verifier."""
    monkeypatch.setenv("SERVICELINK_VERIFIER_DIR", str(tmp_path / "verifier"))
    write_grpc_verifier(tmp_path / "verifier")
    async with AsyncExitStack() as stack:

        async def begin(**options: Any) -> Served:
            return await stack.enter_async_context(serving(request.param, **options))

        yield begin


async def test_calls_of_all_kinds_are_answered_by_reflection(curl: Curl, start: Any) -> None:
    served = await start(exempt=(HEALTH, *REFLECTION))
    listed = await curl("-plaintext", served.address, "list")
    asking = ("-plaintext", *AUTH, "-d")
    got = await curl(*asking, '{"user_id": "7"}', served.address, f"{FULL_NAME}/GetUser")
    many = await curl(*asking, '{"count": 2}', served.address, f"{FULL_NAME}/ListUsers")
    added = await curl(*asking, "{} {}", served.address, f"{FULL_NAME}/AddUsers")
    chat = await curl(*asking, '{"text": "a"} {"text": "b"}', served.address, f"{FULL_NAME}/Chat")

    assert FULL_NAME in listed[1]
    assert "grpc.health.v1.Health" in listed[1]
    # By reflection fields have the names of the .proto: generated Python does not keep those of JSON.
    assert json.loads(got[1]) == {"user_id": "7"}
    assert many[1].count("user_id") == 2
    assert json.loads(added[1]) == {"count": 2}
    assert '"A"' in chat[1]
    assert '"B"' in chat[1]
    assert [one.link and one.link.link for one in served.users.reached] == ["shop/web"] * 4


async def test_without_a_key_or_a_rule_it_is_told_so(curl: Curl, start: Any, tmp_path: Path) -> None:
    served = await start()
    proto = ("-plaintext", "-import-path", str(PROTO.parent), "-proto", PROTO.name)
    described = tmp_path / "health.pb"
    described.write_bytes(FileDescriptorSet(file=[as_file(health_pb2.DESCRIPTOR)]).SerializeToString())
    health = await curl("-plaintext", "-protoset", str(described), served.address, "grpc.health.v1.Health/Check")
    nobody = await curl(*proto, served.address, f"{FULL_NAME}/GetUser")
    reflected = await curl("-plaintext", served.address, "list")
    denied = await curl(*proto, "-v", *AUTH, served.address, f"{FULL_NAME}/CreateUser")

    assert nobody[0] != 0
    assert "Code: Unauthenticated" in nobody[1]
    assert "Unauthenticated" in reflected[1]
    assert "Code: PermissionDenied" in denied[1]
    assert "x-servicelink-code: PERMISSION_DENIED" in denied[1]
    assert "SERVING" in health[1]
    assert served.users.reached == []


async def test_a_certificate_is_taken_for_a_key(curl: Curl, start: Any, tmp_path: Path) -> None:
    authority = Authority("one")
    link = replace(LINK, keys=(), identity=IDENTITY)
    write_grpc_verifier(tmp_path / "verifier", replace(VERIFIER, links=(link,), trust=authority.trust))
    server, client = authority.server("localhost"), authority.client(IDENTITY)
    swap(tmp_path / "tls" / "users", {"tls.crt": server.certificate, "tls.key": server.private_key})
    for name, text in (("ca.pem", authority.trust), ("crt.pem", client.certificate), ("key.pem", client.private_key)):
        (tmp_path / name).write_text(text)
    served = await start(credentials=servicelink.grpc_server_credentials())
    proto = ("-import-path", str(PROTO.parent), "-proto", PROTO.name, "-cacert", str(tmp_path / "ca.pem"))
    shown = ("-cert", str(tmp_path / "crt.pem"), "-key", str(tmp_path / "key.pem"))
    address, method = f"localhost:{served.port}", f"{FULL_NAME}/GetUser"
    got = await curl(*proto, *shown, "-d", '{"user_id": "7"}', address, method)
    refused = await curl(*proto, "-max-time", "5", address, method)

    assert json.loads(got[1]) == {"userId": "7"}
    assert refused[0] != 0
    assert served.users.reached[0].link.kid == client.serial
