"""A GraphQL client asks queries and mutations, tells its application what was wrong, and repeats queries only."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from sdk_worlds import WORLDS, Hands, Peer, Play, Request, Stage, in_thread, staged

import servicelink
from servicelink import sync
from servicelink.calls.drive import AsyncDriver, Driver
from servicelink.graphql.operation import GraphQLOperation
from servicelink_contract.key import render_key

KEY = render_key("AAAAAAAA", b"a" * 32).text
USER = "query GetUser($id: ID!) { user(id: $id) { id email } }"
DROP = "mutation Drop { drop }"


class Asker:
    """A client of either world."""

    def __init__(self, world: str, address: str, **options: Any) -> None:
        self._is_async = world == "asynchronous"
        kind: Any = servicelink.GraphQLClient if self._is_async else sync.GraphQLClient
        self.client = kind(service_name="catalog", base_url=address, api_key=KEY, **options)
        hands = Hands()
        self.client._line.clock = hands.clock  # noqa: SLF001 - time is the test's
        wire = self.client._wire  # noqa: SLF001 - as above
        self.client._driver = (  # noqa: SLF001 - as above
            AsyncDriver(wire, hands.async_sleep) if self._is_async else Driver(wire, hands.sleep)
        )

    async def _run(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if self._is_async:
            return await method(*arguments, **options)
        return await in_thread(method, *arguments, **options)

    async def query(self, *arguments: Any, **options: Any) -> Any:
        """Ask a query."""
        return await self._run(self.client.query, *arguments, **options)

    async def mutate(self, *arguments: Any, **options: Any) -> Any:
        """Ask a mutation."""
        return await self._run(self.client.mutate, *arguments, **options)

    async def batch(self, *arguments: Any, **options: Any) -> Any:
        """Ask a batch."""
        return await self._run(self.client.batch, *arguments, **options)

    async def wait_until_ready(self, seconds: float) -> None:
        """Wait for the server."""
        await self._run(self.client.wait_until_ready, seconds)

    async def close(self) -> None:
        """Close the client."""
        await (self.client.aclose() if self._is_async else in_thread(self.client.close))


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


Open = Callable[..., Any]


@pytest.fixture
async def open_asker(world: str) -> AsyncIterator[Open]:
    """`await open_asker(play)` answers a client and the server that plays; `path` is added to its address."""
    async with AsyncExitStack() as stack:

        async def start(play: Play, *, path: str = "", **options: Any) -> tuple[Asker, Stage]:
            stage = await stack.enter_async_context(staged(play))
            asker = Asker(world, stage.address + path, **options)
            stack.push_async_callback(asker.close)
            return asker, stage

        yield start


def answering(*answers: Any, status: int = 200, kind: str = "application/json") -> Play:
    """Answer a play that gives these answers in turn, the last for ever."""
    left = list(answers)

    async def play(peer: Peer, request: Request) -> None:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, int):
            await peer.reply(answer)
            return
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        await peer.reply(status, body, content_type=kind)

    return play


async def test_a_query_answers_its_data(open_asker: Open) -> None:
    asker, stage = await open_asker(answering({"data": {"user": {"id": "123"}}}))
    data = await asker.query(USER, {"id": "123"})
    [request] = stage.requests

    assert data == {"user": {"id": "123"}}
    assert request.line == "POST /graphql HTTP/1.1"
    assert json.loads(request.body) == {"query": USER, "variables": {"id": "123"}, "operationName": "GetUser"}
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept"].startswith("application/graphql-response+json")
    assert request.headers["x-service-auth"] == KEY


@pytest.mark.parametrize(("path", "line"), [("/", "/graphql"), ("/api/graph", "/api/graph"), ("/api/", "/api/")])
async def test_the_address_of_the_binding_is_where_it_asks(open_asker: Open, path: str, line: str) -> None:
    asker, stage = await open_asker(answering({"data": {}}), path=path)
    await asker.query("{ a }")

    assert stage.requests[0].line == f"POST {line} HTTP/1.1"


async def test_a_path_of_the_applications_own(open_asker: Open) -> None:
    asker, stage = await open_asker(answering({"data": {}}), path="")
    asker.client._path = "/g"  # noqa: SLF001 - as `path="/g"` sets it
    await asker.query("{ a }")

    assert stage.requests[0].line == "POST /g HTTP/1.1"


ERRORS = {
    "data": {"user": None},
    "errors": [
        {"message": "secret of the application", "path": ["user", 0, "email"], "extensions": {"code": "NOT_FOUND"}},
        {"message": "other"},
    ],
}


@pytest.mark.parametrize("status", [200, 400, 404])
async def test_errors_raise_with_path_and_code_and_what_was_answered_all_the_same(
    open_asker: Open, status: int
) -> None:
    asker, _ = await open_asker(answering(ERRORS, status=status, kind="application/graphql-response+json"))
    with pytest.raises(servicelink.GraphQLError) as failed:
        await asker.query(USER)
    error = failed.value

    assert (error.status, error.code, error.path) == (status, "NOT_FOUND", ("user", 0, "email"))
    assert (error.errors, error.data) == (tuple(ERRORS["errors"]), {"user": None})
    assert (error.link, error.operation) == ("catalog", "query GetUser")
    assert "an error NOT_FOUND at user.0.email, and 1 more" in str(error)
    assert "secret" not in str(error)


async def test_names_of_an_error_that_are_none_are_not_repeated(open_asker: Open) -> None:
    odd = {"errors": [{"message": "m", "path": ["a", {"b": 1}], "extensions": {"code": "a b\nc"}}]}
    asker, _ = await open_asker(answering(odd))
    with pytest.raises(servicelink.GraphQLError) as failed:
        await asker.query("{ a }")

    assert (failed.value.code, failed.value.path) == (None, ())


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (b"<html>", 200, servicelink.ServiceUnavailable),
        ({}, 200, servicelink.ServiceUnavailable),
        ({"data": None}, 200, servicelink.ServiceUnavailable),
        ({"data": []}, 200, servicelink.ServiceUnavailable),
        ({"errors": []}, 200, servicelink.ServiceUnavailable),
        ({"errors": ["a"]}, 200, servicelink.ServiceUnavailable),
        ([{"data": {}}], 200, servicelink.ServiceUnavailable),
        (b"<html>", 404, servicelink.RemoteError),
        (b"[" * 100_000, 500, servicelink.RemoteError),
        ({"error": {"code": "INVALID_SERVICE_AUTH"}}, 403, servicelink.InvalidServiceAuth),
        ({"error": {"code": "PERMISSION_DENIED"}}, 403, servicelink.PermissionDenied),
    ],
)
async def test_what_is_no_answer_raises(open_asker: Open, answer: Any, status: int, error: Any) -> None:
    asker, _ = await open_asker(answering(answer, status=status))
    with pytest.raises(error) as failed:
        await asker.query("{ a }")

    assert type(failed.value) is error


async def test_what_is_no_graphql_says_which_path_was_asked_and_how_to_ask_another(open_asker: Open) -> None:
    for status, words in ((200, r"what /g answered \(200\) is no answer"), (404, "answered 404 for /g, without")):
        asker, _ = await open_asker(answering(b"<html>secret", status=status), path="/g")
        with pytest.raises(servicelink.ServiceError, match=words) as failed:
            await asker.query("{ a }")
        assert "path=" in failed.value.next_step
        assert "secret" not in str(failed.value)


LONG = f"/{'a' * 5000}"


@pytest.mark.parametrize(
    ("location", "place"),
    [
        ("/graphql/?token=secret#secret", "/graphql/"),
        ("https://me:secret@other.test:8443/graphql", "https://other.test:8443/graphql"),
        (LONG, f"{LONG[:200]}..."),
        ("http://other.test:port/", "what is no URL"),
    ],
)
async def test_a_redirect_is_told_as_one_with_where_it_leads_and_no_secret_of_it(
    open_asker: Open, location: str, place: str
) -> None:
    async def play(peer: Peer, request: Request) -> None:
        await peer.reply(307, location=location)

    asker, stage = await open_asker(play)
    with pytest.raises(servicelink.ServiceUnavailable) as failed:
        await asker.query("{ a }")

    assert f"/graphql answered 307, a redirect to {place}, which is not followed" in str(failed.value)
    assert "path=" in failed.value.next_step
    assert "secret" not in str(failed.value)
    assert len(stage.requests) == 1


async def test_an_error_has_one_text(open_asker: Open) -> None:
    asker, _ = await open_asker(answering([ERRORS]))
    [answer] = await asker.batch([GraphQLOperation("{ a }")])

    assert (
        repr(answer.error) == "GraphQLError('the application answered an error NOT_FOUND at user.0.email, and 1 more')"
    )


async def test_queries_are_tried_again_and_mutations_are_not(open_asker: Open) -> None:
    asker, stage = await open_asker(answering(503, {"data": {"a": 1}}))
    assert await asker.query("{ a }") == {"a": 1}
    asker, mutated = await open_asker(answering(503, {"data": {"a": 1}}))
    with pytest.raises(servicelink.RemoteError):
        await asker.mutate(DROP)
    asker, declared = await open_asker(answering(503, {"data": {"drop": 1}}))
    await asker.mutate(DROP, idempotent=True)

    assert [len(one.requests) for one in (stage, mutated, declared)] == [2, 1, 2]


async def test_a_batch_is_tried_again_if_all_of_it_are_queries(open_asker: Open) -> None:
    answers = [{"data": {"a": 1}}, {"data": None, "errors": [{"message": "m", "path": ["b"]}]}]
    asker, stage = await open_asker(answering(503, answers))
    first, second = await asker.batch([GraphQLOperation("{ a }"), GraphQLOperation(USER, {"id": 1})])
    mixed, once = await open_asker(answering(503, answers))
    with pytest.raises(servicelink.RemoteError):
        await mixed.batch([GraphQLOperation("{ a }"), GraphQLOperation(DROP)])

    assert (first.unwrap(), first.error) == ({"a": 1}, None)
    assert second.error.path == ("b",)
    with pytest.raises(servicelink.GraphQLError):
        second.unwrap()
    assert [one.get("operationName") for one in json.loads(stage.requests[0].body)] == [None, "GetUser"]
    assert (len(stage.requests), len(once.requests)) == (2, 1)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"errors": [{"message": "no batches here"}]}, servicelink.GraphQLError),
        ([{"data": {"a": 1}}], servicelink.ServiceUnavailable),
        ({"data": {"a": 1}}, servicelink.ServiceUnavailable),
    ],
)
async def test_a_server_that_knows_no_batches_is_told_of(open_asker: Open, answer: Any, error: Any) -> None:
    asker, _ = await open_asker(answering(answer))
    with pytest.raises(error):
        await asker.batch([GraphQLOperation("{ a }"), GraphQLOperation("{ b }")])


def deep() -> list[Any]:
    """Answer lists within lists, deeper than any program goes."""
    found: list[Any] = []
    for _ in range(100_000):
        found = [found]
    return found


async def test_variables_that_cannot_be_sent_are_named_with_their_mend(open_asker: Open) -> None:
    asker, stage = await open_asker(answering({"data": {}}))
    for variables, reason, mend in (
        ({"a": deep()}, "nested too deep", "flatter"),
        ({"a": b""}, "bytes", "what JSON has"),
    ):
        with pytest.raises(
            servicelink.ServiceError, match=f"catalog query: variables cannot be sent: .*{reason}"
        ) as told:
            await asker.query("{ a }", variables)
        assert mend in told.value.next_step

    assert stage.requests == []


async def test_mistakes_are_told_before_anything_is_sent(open_asker: Open) -> None:
    asker, stage = await open_asker(answering({"data": {}}))
    mistakes: tuple[Callable[[], Any], ...] = (
        lambda: asker.query(DROP),
        lambda: asker.mutate(USER),
        lambda: asker.query("subscription { a }"),
        lambda: asker.query("fragment F on Q { a }"),
        lambda: asker.query(USER, operation_name="Other"),
        lambda: asker.query("{ a }", {"a": object()}),
        lambda: asker.query("{ a }", {"a": float("nan")}),
        lambda: asker.query("{ a }", {"a": deep()}),
        lambda: asker.batch([]),
        lambda: asker.query("{ a }", headers={"x y": "1"}),
        lambda: asker.query("{ a }", headers={"schlüssel": "1"}),
    )
    for ask in mistakes:
        with pytest.raises(servicelink.ServiceError) as mistaken:
            await ask()
        assert (mistaken.value.link, bool(mistaken.value.next_step)) == ("catalog", True)
    with pytest.raises(TypeError, match="retry"):
        await asker.query("{ a }", retry=1)
    for batch in (["{ a }"], "{ a }"):
        with pytest.raises(TypeError, match="a batch holds GraphQLOperations, and this one a str"):
            await asker.batch(batch)

    assert stage.requests == []


async def test_headers_and_interceptors_are_as_everywhere(open_asker: Open) -> None:
    seen: list[servicelink.Call] = []

    class Notes:
        """An interceptor."""

        def intercept(self, call: servicelink.Call) -> Any:
            """Take note of the call."""
            seen.append(call)
            call.metadata["x-tenant"] = "shop"
            yield

    asker, stage = await open_asker(answering({"data": {}}), interceptors=[Notes()])
    await asker.query(USER, headers={"x-other": "1", "accept": "application/json"})

    assert (seen[0].operation, seen[0].protocol, seen[0].idempotent) == ("query GetUser", "GraphQL", True)
    headers = stage.requests[0].headers
    assert (headers["x-tenant"], headers["x-other"], headers["accept"]) == ("shop", "1", "application/json")


@pytest.mark.parametrize("status", [200, 404])
async def test_interceptors_see_the_code_of_the_first_error(open_asker: Open, status: int) -> None:
    codes: list[str | None] = []

    class Notes:
        """An interceptor."""

        def intercept(self, call: servicelink.Call) -> Any:
            """Take note of how it ended."""
            codes.append((yield).code)

    asker, _ = await open_asker(answering(ERRORS, {"data": {"a": 1}}, [ERRORS]), interceptors=[Notes()])
    failing, _ = await open_asker(answering(ERRORS, [{"data": {}}, ERRORS], status=status), interceptors=[Notes()])
    with pytest.raises(servicelink.GraphQLError):
        await failing.query("{ a }")
    await failing.batch([GraphQLOperation("{ a }"), GraphQLOperation("{ b }")])
    with pytest.raises(servicelink.GraphQLError):
        await asker.query("{ a }")
    await asker.query("{ a }")

    assert codes == ["NOT_FOUND", "NOT_FOUND", "NOT_FOUND", None]


async def test_the_path_is_said_when_connecting(world: str, open_asker: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    _, stage = await open_asker(answering({"data": {"a": 1}}))
    monkeypatch.setenv("CATALOG_URL", stage.address)
    monkeypatch.setenv("CATALOG_API_KEY", KEY)
    if world == "asynchronous":
        async with servicelink.connect_graphql("catalog", path="/g") as catalog:
            await catalog.query("{ a }")
    else:
        with sync.connect_graphql("catalog", path="/g") as plain:
            await in_thread(plain.query, "{ a }")

    assert stage.requests[0].line == "POST /g HTTP/1.1"


async def test_it_waits_for_a_server_that_is_on_its_way(open_asker: Open) -> None:
    asker, stage = await open_asker(answering(503, {"data": {"__typename": "Query"}}))
    await asker.wait_until_ready(10)

    assert json.loads(stage.requests[-1].body)["query"] == "{ __typename }"
    assert len(stage.requests) == 2
