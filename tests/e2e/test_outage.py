"""The API server is away while Pods call: no call fails, nobody is restarted, and the operator goes on by itself.

On a cluster of this module's own, whose control plane is killed; `--outage` says for how many seconds.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from audit import parse_calls
from charts import CHART
from example import OPERATOR_IMAGE, Document, Shop, links, load_images, policy, services
from installation import SYSTEM, USER, start_cluster
from outages import control_plane_gone

from devcluster import host
from devcluster.errors import DevclusterError
from devcluster.testing import Client, audited, wait_until

# What the client runs instead of its own loop: as many calls as the machine bears, told once a second.
CALLER = """
import asyncio, collections, json, time, servicelink, checkout
async def call():
    failures, answered, told = collections.Counter(), 0, 0.0
    async with servicelink.connect("notification") as client:
        while True:
            try:
                await checkout.send(client, "/notifications", answered)
                answered += 1
            except servicelink.ServiceError as error:
                failures[type(error).__name__] += 1
            if time.monotonic() - told > 1:
                told = time.monotonic()
                print(json.dumps({"answered": answered, "failures": failures}), flush=True)
            await asyncio.sleep(0.02)
asyncio.run(call())
"""
# Calls a second, on a machine with much else to do.
SLOWEST_RATE = 5
PODS = 4


@pytest.fixture(scope="module")
def node() -> Iterator[Client]:
    """A cluster that runs Pods, with the operator installed as a user installs it."""
    try:
        host.require_linux_root("a node")
    except DevclusterError as error:
        pytest.skip(str(error))
    with start_cluster("--node") as client:
        load_images(client, OPERATOR_IMAGE)
        values = ("--set=image.tag=dev", "--set=operator.propagationWait=25s")
        chart = ("install", "servicelink", str(CHART), f"--namespace={SYSTEM}", "--create-namespace")
        client.helm(*chart, "--wait", "--timeout=2m", *values)
        yield client


@pytest.fixture
def shop(node: Client) -> Shop:
    """The example's shop, whose client calls all the time and whose server refuses whoever has no link."""
    node.kubectl("create", "namespace", "shop")
    made = Shop(node, "shop")
    made.apply(policy("Enforce"), *map(calling, services()), *links())
    made.settle()
    # Those from before the injection are on their way out.
    wait_until(lambda: len(pods(made)) == PODS, deadline=60)
    wait_until(lambda: tally(made)["answered"] > 0, deadline=60)
    return made


def calling(document: Document) -> Document:
    """Have the client call all the time."""
    if (document["kind"], document["metadata"]["name"]) == ("Deployment", "checkout"):
        document["spec"]["template"]["spec"]["containers"][0]["command"] = ["python", "-c", CALLER]
    return document


def tally(shop: Shop) -> Any:
    """Answer what the client's Pod has counted."""
    lines = shop.kubectl("logs", "deployment/checkout", "--tail=1").splitlines()
    return json.loads(lines[-1]) if lines else {"answered": 0, "failures": {}}


def pods(shop: Shop) -> dict[str, tuple[str, int]]:
    """Answer the shop's Pods, and how often their container was restarted."""
    found = shop.client.kubectl_json("get", "pods", f"--namespace={shop.namespace}")["items"]
    return {
        one["metadata"]["name"]: (one["metadata"]["uid"], one["status"]["containerStatuses"][0]["restartCount"])
        for one in found
    }


def another_link() -> Document:
    """Answer a link that restarts nobody, and once Ready shows that the operator works."""
    (link,) = links()
    spec = {**link["spec"], "client": {"kind": "Deployment", "name": "stranger"}, "binding": {"inject": "None"}}
    return {**link, "metadata": {"name": "after"}, "spec": spec}


@pytest.mark.timeout(900)
def test_no_call_fails_while_the_api_server_is_away_and_links_go_on_when_it_is_back(
    shop: Shop, request: pytest.FixtureRequest
) -> None:
    seconds: float = request.config.getoption("--outage")
    admin, standing, before = shop.client, pods(shop), tally(shop)
    with control_plane_gone(admin):
        until = time.monotonic() + seconds
        wait_until(lambda: time.monotonic() > until, deadline=seconds + 10)
    back = time.monotonic()

    with audited(admin, USER) as events:
        shop.apply(another_link())
        shop.kubectl("wait", "slink", "--all", "--for=condition=Ready", "--timeout=180s")
        took = time.monotonic() - back
        admin.kubectl("wait", "deployment/servicelink", f"--namespace={SYSTEM}", "--for=condition=Available")
    after, calls = tally(shop), parse_calls(events)
    answered, writes = after["answered"] - before["answered"], sum(call.is_write for call in calls)
    print(  # noqa: T201 (figures, not verdicts)
        f"\n{answered} calls answered in {seconds:g} s without an API server and after, {after['failures']} failed; "
        f"a link that came then was Ready after {took:.1f} s, by {writes} writes of {len(calls)} requests"
    )

    assert after["failures"] == before["failures"] == {}
    assert answered > SLOWEST_RATE * seconds
    assert pods(shop) == standing
    # Its Secret, its entry, its key handed out; its status as it waits, is given its key and is Ready; the policy's.
    assert writes <= 7
