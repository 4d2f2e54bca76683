"""The operator is killed again and again while links come, change and go: what stands in the end is as if it never was.

The same things are done in a second namespace, later, with nobody killed; but for names, keys and times both must end
alike. `--kills` says how often (CONTRIBUTING.md); the moments are drawn from `--seed`, which a failure shows.
"""

import json
import random
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from snapshot import snapshot

from devcluster.testing import wait_until

if TYPE_CHECKING:
    from installation import Product
    from tests.cluster.product.conftest import Shop, Writer

LINKS, CLIENTS, SERVERS = 200, 20, 20
UNTOUCHED = 20
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Story:
    """What users do, in order: each step is a command of kubectl and its manifest."""

    steps: tuple[tuple[str, str], ...]
    left: frozenset[str]


def link_name(number: int) -> str:
    return f"link-{number:03}"


def write_links(write: "Writer", numbers: list[int], more: str = "") -> str:
    documents = (
        write.link(
            link_name(number),
            client=f"kind: Deployment, name: client-{number % CLIENTS:02}",
            server=f"name: server-{number * 7 // CLIENTS % SERVERS:02}",
            more=f"binding: {{envPrefix: L{number}{more}}}",
        )
        for number in numbers
    )
    return "\n---\n".join(documents)


def tell(write: "Writer", dice: random.Random) -> Story:
    """Write the story: links come in an order of their own, some change, some go while others come."""
    numbers = list(range(UNTOUCHED, LINKS))
    dice.shuffle(numbers)
    changed, deleted = numbers[:60], numbers[40:100]
    steps = [("apply", write_links(write, numbers[start : start + 10])) for start in range(0, len(numbers), 10)]
    later = [("apply", write_links(write, changed[start : start + 10], "X")) for start in range(0, len(changed), 10)]
    later += [("delete", write_links(write, deleted[start : start + 10])) for start in range(0, len(deleted), 10)]
    dice.shuffle(later)
    # What is changed or deleted has come before; a change after its deletion brings a link back.
    gone: set[int] = set()
    for verb, manifest in later:
        named = {int(found) for found in re.findall(r"link-(\d+)", manifest)}
        gone = gone | named if verb == "delete" else gone - named
    left = frozenset(link_name(number) for number in range(LINKS) if number not in gone)
    return Story((*steps, *later), left)


def play(shop: "Shop", story: Story, permits: threading.Semaphore | None = None) -> None:
    """Do it all, each step as soon as there is a permit; without permits as fast as kubectl does."""
    for verb, manifest in story.steps:
        if permits is not None:
            permits.acquire()
        flags = ("--ignore-not-found", "--wait=false") if verb == "delete" else ("--server-side",)
        shop.admin.kubectl(verb, f"--namespace={shop.namespace}", *flags, "--filename=-", stdin=manifest)


def prepare(shop: "Shop", write: "Writer") -> None:
    """Make clients, servers (one in four refuses) and the links that nobody touches."""
    shop.apply(*(write.workload(f"client-{number:02}") for number in range(CLIENTS)))
    shop.apply(*(write.service(f"server-{number:02}") for number in range(SERVERS)))
    shop.apply(write.policy("Enforce", services=", ".join(f"server-{number:02}" for number in range(0, SERVERS, 4))))
    shop.apply(write_links(write, list(range(UNTOUCHED))))


def settled(shop: "Shop", names: frozenset[str]) -> bool:
    """Answer whether exactly these links are there, and Ready at their newest spec."""
    links = json.loads(shop.kubectl("get", "slink", "--output=json"))["items"]
    ready = {
        link["metadata"]["name"]
        for link in links
        for one in link.get("status", {}).get("conditions", ())
        if (one["type"], one["status"], one["observedGeneration"]) == ("Ready", "True", link["metadata"]["generation"])
    }
    return len(links) == len(names) and ready == names


@pytest.mark.timeout(900)
def test_killed_at_any_moment_it_ends_as_if_it_never_was(
    shops: Any, write: "Writer", product: "Product", request: pytest.FixtureRequest
) -> None:
    kills, seed = request.config.getoption("--kills"), request.config.getoption("--seed")
    dice, moments = random.Random(seed), random.Random(seed + 1)  # noqa: S311 (moments, not keys)
    story = tell(write, dice)
    for running in product.started:
        running.stop()
    # Alone, so that nobody waits for the lease of the dead.
    alone = "--leader-elect=false"
    shop: Shop = shops()
    prepare(shop, write)
    operator = product.start(alone)
    untouched = frozenset(map(link_name, range(UNTOUCHED)))
    wait_until(lambda: settled(shop, untouched), deadline=60)
    keys = {name: shop.secret(name) for name in untouched}

    # The story lasts until the last kill: each finds users at work.
    permits, steps = threading.Semaphore(0), len(story.steps)
    user = threading.Thread(target=play, args=(shop, story, permits))
    user.start()
    for killed in range(kills):
        for _ in range(steps * killed // kills, steps * (killed + 1) // kills):
            permits.release()
        # From before its caches are full to long after; a process needs about a second to begin.
        threading.Event().wait(moments.uniform(0.7, 3.5))
        operator.kill()
        operator = product.start(alone)
    user.join()
    wait_until(lambda: settled(shop, story.left), deadline=120)

    assert {name: shop.secret(name) for name in untouched} == keys
    calm: Shop = shops()
    prepare(calm, write)
    wait_until(lambda: settled(calm, untouched), deadline=60)
    play(calm, story)
    wait_until(lambda: settled(calm, story.left), deadline=120)
    wait_until(lambda: snapshot(shop) == snapshot(calm))
    assert shop.disagreements(*(f"server-{number:02}" for number in range(SERVERS))) == []
