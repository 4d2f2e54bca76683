"""What a client sends is what its caller gave: methods, URLs, headers and bodies; and the credential to nobody else."""

import asyncio
import io
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import httpx
import pytest
from sdk_bound import METHODS, OLD, World
from sdk_worlds import Caller, in_thread

import servicelink
from servicelink import CallRow, Protocol, sync


@pytest.mark.parametrize("method", METHODS)
async def test_every_method_reaches_the_server(world: World, method: str) -> None:
    world.bind()
    found = getattr(world.connect().client, method.lower())
    await (found("/") if world.kind == "asynchronous" else asyncio.to_thread(found, "/"))

    assert world.server.seen[0].method == method


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/",
        "//elsewhere.example/",
        "https://elsewhere.example/",
        "http://user:password@127.0.0.1/",
        "http:\\\\elsewhere.example",
    ],
)
async def test_the_credential_goes_to_no_other_origin(world: World, url: str) -> None:
    world.bind()

    with pytest.raises(servicelink.ServiceError):
        await world.connect().get(url)
    assert world.server.seen == []


@pytest.mark.parametrize("path", ["@elsewhere.example/", ":1/", "\\\\elsewhere.example", "/%00", "x/../../y"])
async def test_whatever_is_given_as_a_path_stays_on_the_links_host(world: World, path: str) -> None:
    world.bind()
    try:
        answer = await world.connect().get(path)
    except servicelink.ServiceError:
        return

    assert f"http://{answer.request.url.netloc.decode()}" == world.server.address


class Redirecting:
    """An interceptor that changes where a call goes."""

    def intercept(self, call: servicelink.Call) -> Generator[None, servicelink.Outcome, None]:
        """Lead it elsewhere."""
        call.message.url = httpx.URL("http://127.0.0.1:9/")
        yield


async def test_an_interceptor_cannot_lead_the_credential_elsewhere(world: World) -> None:
    world.bind()

    with pytest.raises(servicelink.ServiceError, match="leads elsewhere"):
        await world.connect(interceptors=[Redirecting()]).get("/")


async def test_an_interceptor_cannot_change_the_credential(world: World) -> None:
    class Forging:
        """An interceptor that sets the credential's header."""

        def intercept(self, call: servicelink.Call) -> Generator[None, servicelink.Outcome, None]:
            """Set it."""
            call.metadata["x-service-auth"] = "forged"
            assert call.kid == OLD.kid
            yield

    world.bind()
    await world.connect(interceptors=[Forging()]).get("/")

    assert world.server.seen[0].headers.getlist("x-service-auth") == [OLD.text]


async def test_an_interceptor_that_writes_a_name_in_capitals_sends_it_once(world: World) -> None:
    class Shouting:
        """An interceptor that spells names its own way."""

        def intercept(self, call: servicelink.Call) -> Generator[None, servicelink.Outcome, None]:
            """Set two that are there already."""
            call.metadata["X-Service-Auth"] = "forged"
            call.metadata["X-Request-ID"] = "loud"
            yield

    world.bind()
    await world.connect(interceptors=[Shouting()]).get("/", headers={"x-request-id": "quiet"})
    headers = world.server.seen[0].headers

    assert headers.getlist("x-service-auth") == [OLD.text]
    assert headers.getlist("x-request-id") == ["loud"]


async def test_a_url_of_the_links_own_origin_is_taken(world: World) -> None:
    world.bind()

    assert (await world.connect().get(f"{world.server.address}/v1")).status_code == 200


async def test_redirects_are_answers_and_cookies_are_forgotten(world: World) -> None:
    # By a name: cookies of addresses are kept by nobody.
    world.server.address = world.server.address.replace("127.0.0.1", "localhost")
    world.bind()
    api = world.connect()
    answer = await api.get("/elsewhere")
    await api.get("/")

    assert (answer.status_code, len(world.server.seen)) == (302, 2)
    assert "cookie" not in world.server.seen[1].headers


async def test_an_encoded_url_arrives_as_it_is(world: World) -> None:
    world.bind()
    await world.connect().get("/a/%2e%2e/b%2Fc%20d?q=%41#part")

    assert world.server.seen[0].scope["raw_path"] == b"/a/%2e%2e/b%2Fc%20d"
    assert world.server.seen[0].scope["query_string"] == b"q=%41"


async def test_headers_are_those_of_httpx_and_the_credentials_name_is_ours(world: World) -> None:
    world.bind()
    given = [("X-Twice", "1"), ("X-Twice", "2"), ("User-Agent", "own"), ("X-Service-Auth", "another")]
    answer = await world.connect().get("/", headers=given)
    headers = world.server.seen[0].headers

    assert (headers.getlist("x-twice"), headers["user-agent"]) == (["1", "2"], "own")
    assert headers.getlist("x-service-auth") == [OLD.text]
    assert "x-service-auth" not in answer.request.headers


@pytest.mark.parametrize("value", ["a\nx: y", "a\r\nx: y", "a\0b"])
async def test_a_header_with_a_line_break_is_never_sent(world: World, value: str) -> None:
    world.bind()

    with pytest.raises(servicelink.ServiceError, match="line break"):
        await world.connect().get("/", headers={"x-evil": value})
    assert world.server.seen == []


class Naming:
    """An interceptor that adds a header."""

    def __init__(self, name: str, value: str) -> None:
        self._header = name, value

    def intercept(self, call: servicelink.Call) -> Generator[None, servicelink.Outcome, None]:
        """Add it."""
        name, value = self._header
        call.metadata[name] = value
        yield


ODD_FIELDS = [("x-note", value) for value in ("secret ", "\tsecret", "sec\x1bret", "secret\x7f", "sécret")]
ODD_NAMES = [
    ("schlüssel", "secret"),
    ("x-note", "secrèt"),
    ("x note", "secret"),
    ("", "secret"),
    ("x:note", "secret"),
    ("x,note", "secret"),
    ("x\nnote", "secret"),
]


@pytest.mark.parametrize("added", ["by the call", "by an interceptor"])
@pytest.mark.parametrize("field", [*ODD_FIELDS, *ODD_NAMES, ("x-note", "secret\nx: y")])
async def test_a_header_that_cannot_be_sent_is_its_callers_error_alone(
    world: World, field: tuple[str, str], added: str
) -> None:
    world.bind()
    names = added == "by an interceptor"
    api = world.connect(interceptors=[Naming(*field)] if names else [])
    for _ in range(6):
        with pytest.raises(servicelink.ServiceError) as bad:
            await api.get("/", headers=None if names else dict([field]))
        assert type(bad.value) is servicelink.ServiceError
        assert (bad.value.link, bad.value.operation[:3]) == ("shop/web-to-api", "GET")
        assert bad.value.request_id
        assert bad.value.next_step
        assert (repr(field[0]) in str(bad.value), "ret" in str(bad.value)) == (True, False)

    assert (world.server.seen, api.client.breaker.state) == ([], servicelink.CircuitState.CLOSED)
    assert (await world.connect().get("/", headers={"x-note": "Ada L.", "x-none": ""})).status_code == 200


def pieces(world: World, *made: bytes) -> Any:
    """Answer a body that comes in pieces, as an application of that world makes it."""

    async def asynchronous() -> AsyncIterator[bytes]:
        for piece in made:
            yield piece

    return asynchronous() if world.kind == "asynchronous" else iter(made)


@pytest.mark.parametrize(
    "passed_on",
    [
        {"content-length": "7"},
        {"content-length": "1"},
        {"content-length": "x"},
        {"transfer-encoding": "chunked"},
        {"Transfer-Encoding": "gzip", "Content-Length": "1"},
    ],
)
async def test_headers_of_another_request_do_not_say_where_the_body_ends(
    world: World, passed_on: dict[str, str]
) -> None:
    world.bind()
    api = world.connect()
    await api.post("/", content=b"abc", headers=passed_on)
    await api.get("/", headers=passed_on)

    assert world.server.bodies == [b"abc", b""]
    assert [one.headers.get("transfer-encoding") for one in world.server.seen] == [None, None]
    assert [one.headers.get("content-length", "0") for one in world.server.seen] == ["3", "0"]


async def test_a_body_in_pieces_is_as_long_as_it_says(world: World) -> None:
    world.bind()
    api = world.connect()
    await api.post("/", content=pieces(world, b"ab", b"c"), headers={"content-length": "3"})
    await api.post("/", content=pieces(world, b"ab", b"c"), headers={"transfer-encoding": "gzip"})
    wrong = [("2", "longer"), ("4", "shorter"), ("x", "no number of bytes"), ("-1", "no number of bytes")]
    for said, problem in wrong * 2:
        with pytest.raises(servicelink.ServiceError, match=problem) as bad:
            await api.post("/", content=pieces(world, b"ab", b"c"), headers={"content-length": said})
        assert type(bad.value) is servicelink.ServiceError

    assert world.server.bodies[:2] == [b"abc"] * 2
    headers = [one.headers for one in world.server.seen[:2]]
    assert [(one.get("content-length"), one.get("transfer-encoding")) for one in headers] == [
        ("3", None),
        (None, "chunked"),
    ]
    assert api.client.breaker.state is servicelink.CircuitState.CLOSED


async def one_piece() -> AsyncIterator[bytes]:
    yield b"abc"


@pytest.mark.parametrize("content", [bytearray(b"abc"), memoryview(b"abc"), {"a": "b"}, 7])
async def test_a_body_that_no_client_can_send_is_an_error_that_says_what_can(world: World, content: Any) -> None:
    world.bind()
    api = world.connect()
    with pytest.raises(
        TypeError, match=rf"content is of {type(content).__name__}; an? {world.kind} client takes bytes"
    ):
        await api.post("/", content=content)

    assert (world.server.seen, api.client.breaker.state) == ([], servicelink.CircuitState.CLOSED)


async def test_a_body_of_the_other_world_is_an_error_also_where_the_server_is_mocked(world: World) -> None:
    world.bind()
    mocks = {
        "asynchronous": servicelink.create_mock_service_client,
        "synchronous": sync.create_mock_service_client,
    }
    mocked: Any = mocks[world.kind]("api")
    mocked.post.returns({})
    bodies: list[Any] = [iter([b"abc"]), io.BytesIO(b"abc")] if world.kind == "asynchronous" else [one_piece()]
    for content in bodies:
        with pytest.raises(TypeError, match="iterable of bytes"):
            await world.connect().post("/", content=content)
        with pytest.raises(TypeError, match="iterable of bytes"):
            await Caller(mocked).post("/", content=content)

    assert world.server.seen == []


async def test_what_making_a_body_raises_is_its_callers_error_alone(world: World) -> None:
    class OutOfDiskError(Exception):
        """An application's own."""

    def failing() -> Iterator[bytes]:
        yield b"ab"
        raise OutOfDiskError

    async def failing_later() -> AsyncIterator[bytes]:
        for piece in failing():
            yield piece

    world.bind()
    api = world.connect()
    for _ in range(6):
        with pytest.raises(OutOfDiskError):
            await api.post("/", content=failing_later() if world.kind == "asynchronous" else failing())

    assert api.client.breaker.state is servicelink.CircuitState.CLOSED
    assert (await api.get("/")).status_code == 200


@pytest.mark.parametrize("size", [0, 10, 65536, 65537, 3_000_000])
async def test_bodies_of_any_size_arrive_whole(world: World, size: int) -> None:
    world.bind()
    content = bytes(index % 251 for index in range(size))
    await world.connect().request("PUT", "/", content=content)

    assert world.server.bodies == [content]
    assert world.server.seen[0].headers.get("content-length", "0") == str(size)


async def test_a_streamed_body_arrives_in_chunks(world: World) -> None:
    world.bind()
    await world.connect().post("/", content=pieces(world, *[b"x" * 50_000] * 3))

    assert world.server.bodies == [b"x" * 150_000]
    assert world.server.seen[0].headers["transfer-encoding"] == "chunked"


async def use_httpx(world: World, **options: Any) -> httpx.Response:
    """Make a call with httpx's own client over the link."""
    if world.kind == "asynchronous":
        transport = servicelink.httpx_transport("api")
        async with httpx.AsyncClient(transport=transport, base_url="http://api", trust_env=False) as client:
            return await client.request(**options)

    def call() -> httpx.Response:
        with httpx.Client(transport=sync.httpx_transport("api"), base_url="http://api", trust_env=False) as client:
            return client.request(**options)

    return await in_thread(call)


async def test_httpxs_own_clients_go_over_a_link(world: World) -> None:
    world.bind()
    answer = await use_httpx(
        world, method="POST", url="/a%2Fb?q=1", json={"n": 1}, headers={"x-service-auth": "forged"}
    )
    seen = world.server.seen[0]

    assert answer.json() == {"ok": True}
    assert (seen.scope["raw_path"], seen.scope["query_string"], world.server.bodies) == (
        b"/a%2Fb",
        b"q=1",
        [b'{"n":1}'],
    )
    assert seen.headers["host"] == world.server.address.removeprefix("http://")
    assert seen.headers.getlist("x-service-auth") == [OLD.text]
    with pytest.raises(servicelink.ServiceError, match="leads elsewhere"):
        await use_httpx(world, method="GET", url="http://elsewhere.example/")
    with pytest.raises(servicelink.PermissionDenied):
        await use_httpx(world, method="GET", url="/denied")
    measured = servicelink.metrics()[CallRow("shop/web-to-api", Protocol.REST, "answered")]
    assert measured.calls >= 1
