"""The API server is away, overloaded, or takes a right away: the operator waits, and goes on by itself without a storm.

Requests are counted where they arrive: at the line to the API server while that is away, in its audit log after.
"""

import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from audit import count_issued, parse_calls, wait_issued
from installation import USER, Product
from outages import api_server_gone, api_server_hangs
from shop import Shop, Writer

from devcluster.testing import Client, CommandFailedError, audited, wait_until

ALONE = "--leader-elect=false"
ROLE = "servicelink-operator"
LINKS = 40
CLIENTS = tuple(f"client-{number}" for number in range(4))
SERVERS = tuple(f"server-{number}" for number in range(4))
INFORMERS = 9
# Seconds after its start, unless told otherwise, and some more.
KOPF_GIVES_UP = 60.0
# Six policies and their bindings.
GUARDS = 12


def name_of(number: int) -> str:
    return f"link-{number}"


def write_links(numbers: range) -> list[str]:
    return [
        Writer().link(
            name_of(number),
            client=f"kind: Deployment, name: {CLIENTS[number % len(CLIENTS)]}",
            server=f"name: {SERVERS[number * 7 // len(CLIENTS) % len(SERVERS)]}",
            more=f"binding: {{envPrefix: L{number}}}",
        )
        for number in numbers
    ]


def settle(shop: Shop, count: int) -> None:
    """Wait until so many links are Ready; one that was refused again and again waits up to a minute itself."""
    shop.settle(*map(name_of, range(count)), deadline=90)


@pytest.fixture
def stocked(shop: Shop, write: Writer) -> Shop:
    """A shop with links that no operator has seen yet."""
    shop.apply(*map(write.workload, CLIENTS), *map(write.service, SERVERS), *write_links(range(LINKS)))
    return shop


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    """For how long the API server is away, and then for how long requests are counted."""
    chosen: float = request.config.getoption("--outage")
    return chosen


def let_pass(seconds: float) -> None:
    """Wait until so much time has passed, which is what is tried here."""
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until, deadline=seconds + 10)


@pytest.fixture(params=[api_server_gone, api_server_hangs])
def outage(request: pytest.FixtureRequest, product: Product) -> AbstractContextManager[None]:
    """The API server is gone, or hangs, while the block runs."""
    made: AbstractContextManager[None] = request.param(product.admin)
    return made


@pytest.mark.timeout(900)
def test_an_api_server_that_goes_in_the_middle_of_the_work_and_comes_back_is_not_stormed(
    outage: AbstractContextManager[None], product: Product, stocked: Shop, seconds: float
) -> None:
    log, old, new = product.admin.cluster.audit_log, range(LINKS), range(LINKS, 2 * LINKS)
    with product.line() as line:
        operator = product.start(ALONE, through=line)
        settle(stocked, LINKS)
        keys = {name: stocked.secret(name) for name in map(name_of, old)}
        operator.suspend()
        stocked.create(*write_links(new))
        before, asked = log.stat().st_size, line.asked
        operator.resume()
        wait_issued(log, before, 1)
        with outage:
            assert count_issued(log, before) < LINKS, "it had done its work before the API server went"
            let_pass(seconds)
            asked = line.asked - asked

        with audited(product.admin, USER) as events:
            settle(stocked, 2 * LINKS)
            let_pass(seconds)
        assert operator.process.poll() is None
    calls = parse_calls(events)
    writes = [call for call in calls if call.is_write]
    print(f"\n{asked} connections in {seconds:g} s; then {len(calls)} requests, {len(writes)} of them writes")  # noqa: T201 (figures)

    assert asked <= most_connections(seconds)
    # Four are needed; one of them may have been lost, and a status is also written when a link has to wait.
    assert len(writes) <= 6 * LINKS
    assert len(calls) - len(writes) <= most_reads(seconds)
    assert {call.name for call in writes if call.what != "deployments"} & set(map(name_of, old)) == set()
    assert {name: stocked.secret(name) for name in keys} == keys
    assert stocked.disagreements(*SERVERS) == []


def most_connections(seconds: float) -> float:
    """Answer how many connections may be asked for in an outage: each attempt of each that tries is one."""
    # A key's pauses double from 0.2 s at least, an informer's from 0.1 s to 5 s at least; the guards are asked for
    # every 2 s.
    attempts = 2 + math.log2(1 + seconds / 0.2)
    keys = LINKS + len(SERVERS) + len(CLIENTS)
    return keys * attempts + INFORMERS * (6 + seconds / 5) + GUARDS * (1 + seconds / 2)


def most_reads(seconds: float) -> float:
    """Answer how many reads may come in a time without faults, and the time in which links become Ready before it."""
    # A list and a watch of each kind, twice at most; the guards; a reading of each new link's Secret, and one more.
    return INFORMERS * 4 + GUARDS * (2 + (30 + seconds) / 60) + LINKS * 2


@pytest.mark.timeout(300)
def test_a_leader_ends_while_the_api_server_is_away_and_its_successor_waits_for_it(
    product: Product, stocked: Shop, seconds: float
) -> None:
    leader = product.start()
    settle(stocked, LINKS)
    with api_server_gone(product.admin):
        assert leader.process.wait(timeout=30) == 1
        successor = product.start()
        let_pass(max(seconds, KOPF_GIVES_UP))
        assert successor.process.poll() is None

    wait_until(successor.leads)
    stocked.create(*write_links(range(LINKS, LINKS + 1)))
    settle(stocked, LINKS + 1)


# Of what all may ask for at a time, one request is left to the operator; nothing is lent to it.
JAM = """
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: PriorityLevelConfiguration
metadata: {name: jam}
spec:
  type: Limited
  limited: {nominalConcurrencyShares: 0, lendablePercent: 0, borrowingLimitPercent: 0, limitResponse: {type: Reject}}
---
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: FlowSchema
metadata: {name: jam}
spec:
  matchingPrecedence: 3
  priorityLevelConfiguration: {name: jam}
  rules:
  - subjects: [{kind: ServiceAccount, serviceAccount: {namespace: servicelink-system, name: servicelink}}]
    resourceRules:
    - {verbs: [create, patch], apiGroups: ["", apps, servicelink.dev], resources: ["*"], namespaces: ["*"]}
"""


@contextmanager
def jammed(admin: Client) -> Iterator[None]:
    """Have the API server refuse the operator's writes while it works on another of them."""
    admin.apply(JAM)
    yield
    admin.kubectl("delete", "flowschema,prioritylevelconfiguration", "jam")


@pytest.mark.timeout(600)
def test_an_api_server_that_has_room_for_one_request_at_a_time_is_asked_again_as_late_as_it_says(
    product: Product, stocked: Shop
) -> None:
    """Whoever finds no room is answered 429 with a Retry-After of a second."""
    product.start(ALONE)
    settle(stocked, LINKS)

    with jammed(product.admin), audited(product.admin, USER) as events:
        stocked.create(*write_links(range(LINKS, 2 * LINKS)))
        settle(stocked, 2 * LINKS)
    refused = [call for call in parse_calls(events) if call.code == 429]
    print(f"\n{len(refused)} requests refused of {LINKS} links")  # noqa: T201 (a figure)

    assert refused
    # Some four a link are seen, and seven where nobody heeds what is asked for nor waits longer each time.
    assert len(refused) <= 6 * LINKS


def may_write_secrets(admin: Client) -> bool:
    """Answer whether the operator has that right."""
    try:
        admin.kubectl("auth", "can-i", "create", "secrets", f"--as={USER}")
    except CommandFailedError:
        return False
    return True


@contextmanager
def without_secrets(admin: Client) -> Iterator[None]:
    """Take the right to write Secrets away from the operator, and give it back."""
    role = admin.kubectl_json("get", "clusterrole", ROLE)
    rules = [rule for rule in role["rules"] if "secrets" not in rule["resources"]]
    del role["metadata"]["resourceVersion"]
    admin.kubectl("replace", "--filename=-", stdin=json.dumps({**role, "rules": rules}))
    # The API server learns of a role's change a moment later.
    wait_until(lambda: not may_write_secrets(admin))
    yield
    admin.kubectl("replace", "--filename=-", stdin=json.dumps(role))


def test_a_right_that_is_taken_away_is_told_and_used_again_when_it_is_back(
    product: Product, stocked: Shop, seconds: float
) -> None:
    product.start(ALONE)
    settle(stocked, LINKS)
    new = range(LINKS, LINKS + 5)

    with without_secrets(product.admin):
        stocked.create(*write_links(new))
        for name in map(name_of, new):
            stocked.says(name, "Issued", "False", "Forbidden")
        with audited(product.admin, USER) as events:
            let_pass(seconds)
    settle(stocked, LINKS + 5)
    asked = Counter(call.name for call in parse_calls(events) if call.what == "secrets")

    # Nobody tells that a right is back, so that each link tries again, every 30 s, and once more if its round is due.
    assert asked.keys() == set(map(name_of, new))
    assert max(asked.values()) <= 2 + seconds / 30


def test_a_secret_that_cannot_be_read_back_holds_nothing_else_up(product: Product, shop: Shop, write: Writer) -> None:
    operator = product.start(ALONE, "--secret-check-interval=1s", "--secret-reads-per-second=100")
    shop.apply(write.workload(), write.service(), write.link())
    shop.settle("checkout-to-notification")
    secret = shop.secret("checkout-to-notification")

    with without_secrets(product.admin):
        wait_until(lambda: "secret_not_read" in operator.log.read_text())
        shop.kubectl("delete", "service", "notification")
        shop.says("checkout-to-notification", "Resolved", "False", "ServerNotFound")
    shop.apply(write.service())
    shop.settle("checkout-to-notification")

    assert shop.secret("checkout-to-notification") == secret
