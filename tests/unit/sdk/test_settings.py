"""What a client is made with is checked when it is made, and errors name the argument and what it should be."""

import datetime as dt
import ssl
from typing import Any

import httpx
import pytest

import servicelink
from servicelink import CircuitBreaker, RateLimit, sync

KEY = "a-shared-key-0123456789"
MAKERS = [
    servicelink.ServiceClient,
    servicelink.GraphQLClient,
    servicelink.GrpcClient,
    sync.ServiceClient,
    sync.GraphQLClient,
    sync.GrpcClient,
]


class Tenant:
    """An interceptor."""

    def intercept(self, call: servicelink.Call) -> Any:
        """Do nothing."""
        yield


@pytest.fixture(params=MAKERS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def make(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"timeout": httpx.Timeout(3)}, "timeout is of Timeout; it is a number of seconds above 0"),
        ({"timeout": "3"}, "timeout is of str; it is a number of seconds"),
        ({"attempt_timeout": dt.timedelta(seconds=3)}, "attempt_timeout is of timedelta; it is a number of seconds"),
        ({"rate_limit": 3}, r"rate_limit is of int; it is a RateLimit\(calls, per\)"),
        ({"breaker": RateLimit(1)}, "breaker is of RateLimit; it is a CircuitBreaker"),
        ({"metrics": print}, "metrics is of builtin_function_or_method; it is an object with a method record"),
        ({"foo": 1}, "(a client|gRPC) takes no foo; it(s settings are| takes) timeout, attempt_timeout, "),
        ({"service_name": 3}, "service_name is of int; it is a str"),
    ],
)
def test_a_setting_of_another_kind_is_named_with_what_it_is(make: Any, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=f"^{words}"):
        make(**{"service_name": "api", **wrong})


@pytest.mark.parametrize("make", [*MAKERS[:2], *MAKERS[3:5]])
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"limits": 3}, r"limits is of int; it is an httpx\.Limits"),
        ({"ssl_context": True}, r"ssl_context is of bool; it is an ssl\.SSLContext"),
        ({"write_timeout": "1"}, "write_timeout is of str; it is a number of seconds"),
        ({"base_url": httpx.URL("http://api")}, r"base_url \(gRPC: address\) is of URL; it is a str"),
    ],
)
def test_a_setting_of_a_client_over_http_is_as_well(make: Any, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=f"^{words}"):
        make(**{"service_name": "api", **wrong})


def test_what_is_right_is_taken(make: Any) -> None:
    given: dict[str, Any] = {
        "timeout": 3,
        "rate_limit": RateLimit(1),
        "breaker": CircuitBreaker(),
        "interceptors": (Tenant(),),
    }
    make("api", **given)
    servicelink.ServiceClient("api", limits=httpx.Limits(), ssl_context=ssl.create_default_context(), **given)


@pytest.mark.parametrize(
    ("kind", "wrong", "words"),
    [
        (RateLimit, {"calls": "3"}, "calls is of str; it is a number of calls above 0"),
        (RateLimit, {"calls": 3, "per": "s"}, "per is of str; it is a number of seconds above 0"),
        (CircuitBreaker, {"open_for": "30"}, "open_for is of str; it is a number of seconds from 0"),
    ],
)
def test_numbers_of_limits_are_numbers(kind: Any, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        kind(**wrong)


def test_two_keys_are_one_too_many(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERNAL_API_KEY", KEY)
    place = "address" if "Grpc" in make.__name__ else "base_url"
    with pytest.raises(ValueError, match="api_key and shared_key=True") as error:
        make("api", **{place: "grpc://api"}, api_key=KEY, shared_key=True)

    assert KEY not in str(error.value)


def test_a_key_that_no_header_can_hold_names_its_argument() -> None:
    with pytest.raises(ValueError, match="api_key: the key is empty"):
        servicelink.ServiceClient("api", base_url="http://api", api_key="")
