"""How often each link may call, and what is counted, within bounds."""

import datetime as dt
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from asgi_guarded import KEY, LINK, VERIFIER, WITH_KEY, App, Mount, Serve, get, write

import servicelink
from servicelink.asgi import LinkMiddleware
from servicelink.counts import OTHERS, Counted, Tally
from servicelink.door import Rates
from servicelink.verify import Allowed, Code, Decision
from servicelink_contract.key import render_key
from servicelink_contract.verifier import KeyEntry, Mode


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SERVICELINK_VERIFIER_DIR", str(tmp_path))
    monkeypatch.delenv("INTERNAL_API_KEY", raising=False)
    return tmp_path


async def test_each_link_may_call_so_often(
    root: Path, mount: Mount, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = 100.0
    monkeypatch.setattr("servicelink.door.Rates", partial(Rates, clock=lambda: seconds))
    other = render_key("AAAAAAAA", bytes(range(1, 33)))
    entry = KeyEntry(other.kid, other.sha256, dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    links = (LINK, replace(LINK, link="shop/other", uid="uid-2", keys=(entry,)))
    write(mount, root / "api", replace(VERIFIER, links=links))
    middleware = LinkMiddleware(App(), rate_limit=servicelink.RateLimit(2, per=60))
    address = await serve(middleware)
    answers = [await get(address, "/v1/x", WITH_KEY) for _ in range(3)]
    others = await get(address, "/v1/x", {"x-service-auth": other.text})
    denied = await get(address, "/v2", WITH_KEY)
    seconds += 30
    later = await get(address, "/v1/x", WITH_KEY)

    assert [answer.status_code for answer in answers] == [204, 204, 429]
    assert (answers[2].json()["error"]["code"], answers[2].headers["retry-after"]) == ("RATE_LIMITED", "30")
    assert (others.status_code, denied.status_code, later.status_code) == (204, 403, 204)
    assert middleware.counts().refused[Counted("shop/web", KEY.kid, Code.RATE_LIMITED)] == 1


async def test_audit_counts_who_calls_too_often_and_lets_them(root: Path, mount: Mount, serve: Serve) -> None:
    write(mount, root / "api", replace(VERIFIER, mode=Mode.AUDIT))
    middleware = LinkMiddleware(App(), rate_limit=servicelink.RateLimit(1, per=1000))
    address = await serve(middleware)
    answers = [await get(address, "/v1/x", WITH_KEY) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [204, 204]
    assert middleware.counts().would_refuse == {Counted("shop/web", KEY.kid, Code.RATE_LIMITED): 1}


def test_the_rates_of_links_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servicelink.door.MAX_ROWS", 10)
    rates = Rates(servicelink.RateLimit(1))
    for number in range(100):
        rates.refuse(Allowed(f"shop/{number}", "u", "k"))

    assert len(rates._paces) <= 10  # noqa: SLF001 - that it is bounded can be seen there only


def test_counts_are_bounded() -> None:
    tally = Tally(max_rows=2)
    for number in range(5):
        tally.add(Decision(Allowed(f"shop/{number}", "u", "k"), enforced=True, header="x"))

    assert tally.counts().accepted[Counted(OTHERS, None, None)] == 3
    assert len(tally.counts().accepted) == 3
