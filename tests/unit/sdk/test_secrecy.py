"""No credential is in what reporters of errors collect: errors, the locals of their frames, the request they see."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from leaks import frames_of, leaks_of
from sdk_servers import KEY, write_verifier
from sdk_worlds import WORLDS, Peer, Play, Request, open_caller, staged

import servicelink
from servicelink import sync


async def cut(peer: Peer, request: Request) -> None:
    raise EOFError


async def garbage(peer: Peer, request: Request) -> None:
    await peer.send(b"nonsense\r\n\r\n")
    raise EOFError


async def silent(peer: Peer, request: Request) -> None:
    await asyncio.Event().wait()


async def refuse(peer: Peer, request: Request) -> None:
    await peer.reply(403, b'{"error": {"code": "INVALID_SERVICE_AUTH"}}', content_type="application/json")


async def fail(peer: Peer, request: Request) -> None:
    await peer.reply(500, b"{}")


@pytest.mark.parametrize("play", [cut, garbage, silent, refuse, fail])
@pytest.mark.parametrize("kind", WORLDS)
async def test_no_key_is_in_the_frames_of_a_failed_call(kind: str, play: Play) -> None:
    limit = 1.0 if play is silent else 5.0
    async with staged(play) as stage:
        api = open_caller(kind, service_name="api", base_url=stage.address, api_key=KEY.text, timeout=limit, retries=0)
        with pytest.raises(servicelink.ServiceError) as failed:
            await api.get("/v1/x", raise_for_status=True)
        await api.close()

    assert stage.requests[0].headers["x-service-auth"] == KEY.text
    assert leaks_of(failed.value, KEY.text) == []


async def half(peer: Peer, request: Request) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
    raise EOFError


def failing() -> Iterator[bytes]:
    """A body that an application fails to make."""
    yield b"ab"
    raise LookupError


async def failing_later() -> AsyncIterator[bytes]:
    """As `failing`."""
    for piece in failing():
        yield piece


@pytest.mark.parametrize("what", ["body", "host"])
@pytest.mark.parametrize("kind", WORLDS)
async def test_no_key_is_in_the_frames_of_a_call_that_cannot_be_sent(kind: str, what: str) -> None:
    body = failing_later() if kind == "asynchronous" else failing()
    options: Any = {"content": body} if what == "body" else {"headers": [("host", "a"), ("host", "b")]}
    async with staged(fail) as stage:
        api = open_caller(kind, service_name="api", base_url=stage.address, api_key=KEY.text, timeout=2, retries=0)
        with pytest.raises((LookupError, servicelink.ServiceError)) as failed:
            await api.request("POST", "/v1/x", raise_for_status=True, **options)
        await api.close()
        while not stage.connections:  # noqa: ASYNC110 - the stage tells of none
            # A connection that was closed at once is still to be taken.
            await asyncio.sleep(0)

    assert leaks_of(failed.value, KEY.text) == []


@pytest.mark.parametrize("kind", WORLDS)
async def test_no_key_is_in_the_frames_of_a_stream_that_breaks_off(kind: str) -> None:
    async with staged(half) as stage:
        api = open_caller(kind, service_name="api", base_url=stage.address, api_key=KEY.text)
        async with api.stream("GET", "/v1/x") as streamed:
            with pytest.raises(servicelink.ServiceUnavailable) as failed:
                await streamed.pieces()
        await api.close()

    assert leaks_of(failed.value, KEY.text) == []


@pytest.mark.parametrize("asked", ["rest", "graphql"])
async def test_no_key_is_in_the_frames_of_a_call_that_is_cancelled(asked: str) -> None:
    kind: Any = servicelink.ServiceClient if asked == "rest" else servicelink.GraphQLClient
    came = asyncio.Event()

    async def note(peer: Peer, request: Request) -> None:
        came.set()
        await silent(peer, request)

    async with staged(note) as stage, kind(service_name="api", base_url=stage.address, api_key=KEY.text) as api:
        task = asyncio.create_task(api.get("/v1/x") if asked == "rest" else api.query("{ kid }"))
        await came.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await task

    assert any("servicelink" in frame.f_code.co_filename for frame in frames_of(cancelled.value))
    assert leaks_of(cancelled.value, KEY.text) == []


@pytest.fixture
def verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICELINK_VERIFIER_DIR", str(tmp_path))
    write_verifier(tmp_path / "api")


@pytest.mark.parametrize("path", ["/v1/x", "/healthz"])
@pytest.mark.usefixtures("verified")
async def test_who_reports_an_asgi_applications_error_from_outside_sees_no_key(path: str) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError("broken")

    headers = [(b"x-service-auth", KEY.text.encode()), (b"x-other", b"stays")]
    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "headers": headers}
    nothing: Any = None
    with pytest.raises(LookupError) as failed:
        await servicelink.LinkMiddleware(broken)(scope, nothing, nothing)

    assert scope["headers"] == [(b"x-other", b"stays")]
    assert leaks_of(failed.value, KEY.text) == []


@pytest.mark.parametrize("path", ["/v1/x", "/healthz"])
@pytest.mark.usefixtures("verified")
def test_who_reports_a_wsgi_applications_error_from_outside_sees_no_key(path: str) -> None:
    def broken(environ: Any, start_response: Any) -> Iterable[bytes]:
        raise LookupError("broken")

    environ = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": ""}
    environ |= {"HTTP_X_SERVICE_AUTH": KEY.text, "HTTP_X_OTHER": "stays"}
    nothing: Any = None
    with pytest.raises(LookupError) as failed:
        sync.LinkMiddleware(broken)(environ, nothing)

    assert [name for name in environ if name.startswith("HTTP_")] == ["HTTP_X_OTHER"]
    assert leaks_of(failed.value, KEY.text) == []
