"""The mocked clients of the test kit: the transport is mocked, everything else is what production runs."""

from collections.abc import Generator
from typing import Any

import httpx
import pytest
from sdk_worlds import WORLDS, in_thread

import servicelink
from servicelink import Call, Outcome, sync
from servicelink.testing import Answer, MockServiceClient, SyncMockServiceClient

pytest_plugins = ("pytester",)


class Mocked:
    """A mocked client of one of the worlds."""

    def __init__(self, world: str, **options: Any) -> None:
        self.client: Any
        self._is_async = world == "asynchronous"
        if self._is_async:
            self.client = servicelink.create_mock_service_client("payments", **options)
        else:
            self.client = sync.create_mock_service_client("payments", **options)

    async def call(self, method: str, url: str = "/v1", **options: Any) -> httpx.Response:
        """Make a call by the method's own name."""
        found = getattr(self.client, method)
        answer: httpx.Response = await (found(url, **options) if self._is_async else in_thread(found, url, **options))
        return answer


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


async def test_a_method_answers_what_it_was_told_and_notes_what_it_was_asked(world: str) -> None:
    mocked = Mocked(world)
    mocked.client.post.returns({"id": "ch_1"}, status=201, headers={"x-a": "b"})
    answer = await mocked.call("post", "/v1/charges?q=1", json={"amount": 100}, headers={"x-tenant": "shop"})
    [seen] = mocked.client.post.calls

    assert (answer.status_code, answer.json(), answer.headers["x-a"]) == (201, {"id": "ch_1"}, "b")
    assert (seen.method, seen.path, seen.params["q"], seen.json, seen.attempt) == (
        "POST",
        "/v1/charges",
        "1",
        {"amount": 100},
        1,
    )
    assert (seen.headers["x-tenant"], "x-request-id" in seen.headers) == ("shop", True)
    assert "x-service-auth" not in seen.headers
    assert mocked.client.calls == [seen]


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete", "head", "options"])
async def test_assigning_works_as_with_the_standard_librarys_mocks(world: str, method: str) -> None:
    mocked = Mocked(world)
    getattr(mocked.client, method).return_value = {"ok": True}
    answer = await mocked.call(method)
    getattr(mocked.client, method).side_effect = servicelink.ServiceTimeout("slow")
    with pytest.raises(servicelink.ServiceTimeout):
        await mocked.call(method, retries=0)
    in_turn = getattr(mocked.client, method)
    in_turn.side_effect = [{"n": 1}, {"n": 2}]

    assert answer.json() == {"ok": True}
    assert [(await mocked.call(method)).json() for _ in range(2)] == [{"n": 1}, {"n": 2}]
    assert in_turn.call_count == 4


@pytest.mark.parametrize(
    ("raised", "expected", "attempts"),
    [
        (servicelink.ServiceUnavailable("gone"), servicelink.ServiceUnavailable, 1),
        (servicelink.ServiceUnavailable("gone").sent_nothing(), servicelink.ServiceUnavailable, 3),
        (servicelink.InvalidServiceAuth("no"), servicelink.InvalidServiceAuth, 1),
        (servicelink.PermissionDenied("no"), servicelink.PermissionDenied, 1),
        (servicelink.CircuitOpen("open"), servicelink.CircuitOpen, 1),
        (httpx.ConnectError("refused"), servicelink.ServiceUnavailable, 3),
        (httpx.ReadTimeout("slow"), servicelink.ServiceTimeout, 3),
        (httpx.ReadError("cut"), servicelink.ServiceUnavailable, 1),
        (httpx.ConnectError, servicelink.ServiceUnavailable, 3),
        (httpx.ReadTimeout, servicelink.ServiceTimeout, 3),
        (LookupError("anything"), LookupError, 1),
    ],
)
async def test_errors_go_the_way_that_real_ones_go(world: str, *, raised: Any, expected: Any, attempts: int) -> None:
    mocked = Mocked(world)
    mocked.client.get.raises(raised)
    with pytest.raises(expected) as seen:
        await mocked.call("get")

    assert mocked.client.get.call_count == attempts
    if isinstance(seen.value, servicelink.ServiceError) and not isinstance(raised, servicelink.CircuitOpen):
        assert (seen.value.link, seen.value.operation) == ("payments", "GET /v1")


async def test_an_error_that_cannot_be_made_of_its_class_says_so(world: str) -> None:
    mocked = Mocked(world)
    mocked.client.get.raises(UnicodeDecodeError)

    with pytest.raises(TypeError, match="UnicodeDecodeError needs arguments"):
        await mocked.call("get")


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (servicelink.RemoteError(409, None, "gone"), (409, None, "gone")),
        (servicelink.RemoteError(404, "NOT_FOUND", "gone"), (404, "NOT_FOUND", "gone")),
        (servicelink.RemoteError, (500, None, "")),
    ],
)
async def test_an_error_of_the_application_is_its_answer(world: str, *, raised: Any, expected: Any) -> None:
    mocked = Mocked(world)
    mocked.client.get.raises(raised)
    answer = await mocked.call("get")
    with pytest.raises(servicelink.RemoteError) as seen:
        await mocked.call("get", raise_for_status=True)

    assert (answer.status_code, answer.text) == (expected[0], expected[2])
    assert (seen.value.status, seen.value.code, seen.value.body) == expected


async def test_taking_a_side_effect_away_leaves_what_was_to_be_answered(world: str) -> None:
    mocked = Mocked(world)
    mocked.client.get.return_value = {"n": 1}
    mocked.client.get.side_effect = servicelink.PermissionDenied
    mocked.client.get.side_effect = [{"n": 2}, {"n": 3}]
    first = await mocked.call("get")
    mocked.client.get.side_effect = None
    second = await mocked.call("get")

    assert (first.json(), second.json()) == ({"n": 2}, {"n": 1})


async def test_a_side_effect_that_cannot_be_says_what_can(world: str) -> None:
    with pytest.raises(TypeError, match="an error, answers in turn, or None"):
        Mocked(world).client.get.side_effect = 1.5


async def test_retries_interceptors_and_circuit_are_the_real_ones(world: str) -> None:
    seen: list[str] = []

    class Notes:
        """Notes how attempts end."""

        def intercept(self, call: Call) -> Generator[None, Outcome, None]:
            """Note one."""
            call.metadata["x-attempt"] = str(call.attempt)
            outcome = yield
            seen.append(outcome.result.value)

    mocked = Mocked(world, interceptors=[Notes()])
    mocked.client.get.in_turn(Answer(status=503), Answer({"ok": True}))
    await mocked.call("get")
    attempts = [call.headers["x-attempt"] for call in mocked.client.get.calls]
    mocked.client.get.returns(status=500)
    for _ in range(5):
        await mocked.call("get")
    with pytest.raises(servicelink.CircuitOpen):
        await mocked.call("get")
    mocked.client.clock.advance(30)
    mocked.client.get.returns({})
    await mocked.call("get")

    assert (seen[:2], attempts) == (["away", "answered"], ["1", "2"])
    assert mocked.client.breaker.state is servicelink.CircuitState.CLOSED


async def test_a_pause_that_a_mocked_answer_asks_for_passes_at_once(world: str) -> None:
    mocked = Mocked(world)
    mocked.client.get.in_turn(Answer(status=503, headers={"retry-after": "3"}), Answer(status=503), {"ok": True})
    began = mocked.client.clock.now()
    answer = await mocked.call("get")

    assert (answer.json(), mocked.client.clock.now() - began) == ({"ok": True}, pytest.approx(3))


async def test_a_path_may_have_an_answer_of_its_own(world: str) -> None:
    mocked = Mocked(world)
    mocked.client.get.returns({"n": 0}).returns({"n": 1}, path="/one").raises(servicelink.PermissionDenied, path="/no")

    assert [(await mocked.call("get", path)).json()["n"] for path in ("/other", "/one")] == [0, 1]
    with pytest.raises(servicelink.PermissionDenied):
        await mocked.call("get", "/no")


async def test_a_url_elsewhere_is_refused_as_by_a_real_client(world: str) -> None:
    mocked = Mocked(world)
    mocked.client.get.returns({})

    with pytest.raises(servicelink.ServiceError, match="leads elsewhere"):
        await mocked.call("get", "http://elsewhere.example/")


async def test_what_has_no_answer_says_how_to_give_one(world: str) -> None:
    with pytest.raises(AssertionError, match=r"client\.get\.returns"):
        await Mocked(world).call("get")


async def test_options_of_a_mocked_client_work_as_those_of_a_real_one(world: str) -> None:
    mocked = Mocked(world)
    mocked.client.post.returns(status=503)
    mocked.client = mocked.client.with_options(idempotent=True, retries=1)
    await mocked.call("post")

    assert mocked.client.post.call_count == 2


async def test_a_mocked_answer_can_be_streamed() -> None:
    client = servicelink.create_mock_service_client()
    client.get.returns(b"in pieces")
    async with client.stream("GET", "/") as response:
        assert b"".join([piece async for piece in response.aiter_bytes()]) == b"in pieces"
    plain = sync.create_mock_service_client()
    plain.get.returns("text")
    with plain.stream("GET", "/") as answer:
        assert b"".join(answer.iter_bytes()) == b"text"


def test_mocked_clients_are_clients() -> None:
    assert issubclass(MockServiceClient, servicelink.ServiceClient)
    assert issubclass(SyncMockServiceClient, sync.ServiceClient)


APPLICATION = """
import servicelink
from servicelink import sync

payments = servicelink.connect("payments")
users = sync.connect("users")
"""

TESTS = r"""
import asyncio
import app
import pytest
import servicelink

async def charge():
    return (await app.payments.post("/v1/charges", json={"amount": 1})).json()

def test_mocked(mock_link):
    mock_link("payments").post.returns({"id": "ch_1"})
    users = mock_link("users")
    users.get.raises(servicelink.PermissionDenied)
    assert asyncio.run(charge()) == {"id": "ch_1"}
    with pytest.raises(servicelink.PermissionDenied):
        app.users.get("/me")
    assert [call.path for call in users.calls] == ["/me"]

def test_not_mocked():
    with pytest.raises(servicelink.LinkNotFound):
        asyncio.run(charge())

def test_another_is_not_mocked(mock_link):
    mock_link("payments")
    with pytest.raises(servicelink.LinkNotFound, match=r'In this test mock_link\("users"\) mocks it'):
        app.users.get("/me")
"""


def test_the_plugin_mocks_a_link_for_clients_that_were_made_before(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVICE_BINDING_ROOT", str(pytester.path / "none"))
    monkeypatch.delenv("INTERNAL_API_KEY", raising=False)
    pytester.makepyfile(app=APPLICATION, test_app=TESTS)
    pytester.runpytest_subprocess("-q").assert_outcomes(passed=3)


async def test_the_time_that_a_served_call_has_left_travels_and_passes_with_the_tests_clock(world: str) -> None:
    mocked = Mocked(world)
    mocked.client.get.returns({})
    with servicelink.carry({"x-request-timeout-ms": "2000"}):
        await mocked.call("get")
        mocked.client.clock.advance(60)
        with pytest.raises(servicelink.ServiceTimeout):
            await mocked.call("get")
    [seen] = mocked.client.get.calls

    # Less than the client's own five seconds.
    assert 2000 <= int(seen.headers["x-request-timeout-ms"]) < 5000


TESTS_IN_A_ROW = """
import servicelink
from servicelink import sync

payments = sync.connect("payments")

def test_its_server_is_down(mock_link):
    mock_link("payments").get.returns(status=500)
    for _ in range(5):
        assert payments.get("/").status_code == 500
    try:
        payments.get("/")
    except servicelink.CircuitOpen:
        return
    raise AssertionError("the circuit is closed")

def test_its_server_is_well(mock_link):
    mock_link("payments").get.returns({})
    assert payments.get("/").status_code == 200

def test_beside_a_sandbox(link_sandbox, mock_link):
    check(link_sandbox, mock_link)

def test_beside_a_sandbox_that_came_later(mock_link, link_sandbox):
    check(link_sandbox, mock_link)

def check(link_sandbox, mock_link):
    mock_link("payments").get.returns({"mocked": True})
    assert payments.get("/").json() == {"mocked": True}
    with link_sandbox.link("users").served(), sync.connect("users") as users:
        assert users.get("/").json() == {}
"""


def test_a_test_learns_nothing_of_the_one_before_and_may_mock_one_link_beside_a_sandbox(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(test_in_a_row=TESTS_IN_A_ROW)
    pytester.runpytest_subprocess("-q").assert_outcomes(passed=4)
