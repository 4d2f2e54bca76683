"""Code as users write it, checked and never run: every line is right in strict mode, with the types said here."""

from collections.abc import AsyncGenerator, Generator
from typing import assert_type

import httpx

import servicelink
from servicelink import sync


class Tenant:
    """An interceptor."""

    def intercept(self, call: servicelink.Call) -> Generator[None, servicelink.Outcome, None]:
        """Say for whom the call is."""
        call.metadata["x-tenant"] = "shop"
        outcome = yield
        assert_type(outcome, servicelink.Outcome)
        assert_type(outcome.result, servicelink.Result)


class AsyncTenant:
    """An asynchronous interceptor."""

    async def intercept(self, call: servicelink.Call) -> AsyncGenerator[None, servicelink.Outcome]:
        """Say for whom the call is."""
        call.metadata["x-tenant"] = call.link
        yield


class Sink:
    """A metrics sink."""

    def record(self, measured: servicelink.Measured) -> None:
        """Take note."""
        assert_type(measured.seconds, float)


async def call() -> None:
    """Call asynchronously."""
    payments = servicelink.connect(
        "payments",
        timeout=2,
        retries=1,
        interceptors=[Tenant(), AsyncTenant()],
        metrics=Sink(),
        rate_limit=servicelink.RateLimit(calls=10),
        limits=httpx.Limits(max_connections=10),
    )
    assert_type(payments, servicelink.ServiceClient)
    answer = await payments.post("/v1/charges", json={"amount": 100}, params={"q": 1}, timeout=0.5)
    assert_type(answer, httpx.Response)
    assert_type(await payments.request("GET", "/", headers=[("a", "b")], raise_for_status=True), httpx.Response)
    assert_type(payments.with_options(retries=0), servicelink.ServiceClient)
    async with payments.stream("GET", "/export") as response:
        assert_type(response, httpx.Response)
    async with servicelink.ServiceClient(service_name="a", base_url="http://a", api_key="k") as other:
        assert_type(other, servicelink.ServiceClient)
    assert_type(payments.breaker.state, servicelink.CircuitState)
    await payments.aclose()


def call_synchronously() -> None:
    """Call synchronously."""
    with sync.connect("payments", interceptors=[Tenant()]) as payments:
        assert_type(payments, sync.ServiceClient)
        assert_type(payments.get("/v1/charges"), httpx.Response)
        assert_type(payments.with_options(timeout=1).put("/", content=b"x"), httpx.Response)
        with payments.stream("GET", "/export") as response:
            assert_type(response, httpx.Response)


def fail(error: servicelink.ServiceError) -> str:
    """Tell errors apart."""
    match error:
        case servicelink.RemoteError():
            assert_type(error.status, int)
            assert_type(error.code, str | None)
        case servicelink.CircuitOpen():
            assert_type(error.retry_after, float)
        case servicelink.ServiceUnavailable():
            assert_type(error.unsent, bool)
        case _:
            pass
    return error.next_step


async def mock() -> None:
    """Test an application."""
    client = servicelink.create_mock_service_client("payments")
    client.get.returns({"id": 1}).raises(servicelink.ServiceTimeout, path="/slow")
    client.post.return_value = {"id": 2}
    answer = await client.get("/v1", params={"a": "b"})
    assert_type(answer, httpx.Response)
    assert_type(client.get.calls[0].path, str)
    plain = sync.create_mock_service_client("payments")
    assert_type(plain.get("/"), httpx.Response)
    accept(client)


def assert_never_open(state: servicelink.CircuitState) -> None:
    """Take a circuit's state."""
    assert state is not servicelink.CircuitState.OPEN


def accept(client: servicelink.ServiceClient) -> None:
    """Take any client, also a mocked one."""
    client.breaker.add_listener(lambda change: assert_never_open(change.now))
    with servicelink.carry({"x-request-id": "a"}):
        assert_type(servicelink.current_correlation_id(), str | None)
        assert_type(servicelink.current_request_id(), str | None)
    for row, count in servicelink.metrics().items():
        assert_type((row.link, count.calls), tuple[str, int])
