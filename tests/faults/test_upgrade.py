"""An upgrade restarts nobody: what the version before injected stays as it is until the link itself changes."""

import json
import shutil
from pathlib import Path

import pytest
from audit import parse_calls
from installation import USER, Operator, Product
from shop import Body, Shop, Writer

import servicelink_contract
import servicelink_core
import servicelink_operator
from devcluster.testing import audited, wait_until

CHANGED, OTHER = "checkout-to-notification", "checkout-to-users"
# What the version before wrote otherwise: the mode of files, a variable more, and that it was that version.
BEFORE = (
    ("render/injection.py", "_FILE_MODE = 0o644", "_FILE_MODE = 0o444"),
    (
        "render/injection.py",
        "(prefix + Suffix.URL, endpoint.uri),",
        '(prefix + Suffix.URL, endpoint.uri), (prefix + "_OLD_URL", "1"),',
    ),
    ("template.py", "RENDER_VERSION = 1", "RENDER_VERSION = 0"),
)
OLD_MODE, NEW_MODE = 0o444, 0o644


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages of a version that injects otherwise."""
    folder = tmp_path_factory.mktemp("previous")
    for package in (servicelink_contract, servicelink_core, servicelink_operator):
        source = Path(package.__path__[0])
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, now, then in BEFORE:
        file = folder / "servicelink_core" / name
        text = file.read_text()
        assert text.count(now) == 1, f"{name} has no {now}"
        file.write_text(text.replace(now, then))
    return folder


def deployment(shop: Shop, name: str) -> Body:
    return shop.read("deployment", name)


def render_version(shop: Shop, name: str) -> int:
    """Answer which version wrote the record of what a Deployment was given."""
    record = deployment(shop, name)["metadata"]["annotations"]["servicelink.dev/injected"]
    return int(json.loads(record)["render"])


def modes(shop: Shop, name: str) -> dict[str, int]:
    """Answer the mode of files of each binding that is mounted, by its Secret."""
    volumes = deployment(shop, name)["spec"]["template"]["spec"]["volumes"]
    secrets = [volume["secret"] for volume in volumes if "secret" in volume]
    return {secret["secretName"]: secret["defaultMode"] for secret in secrets}


def variables(shop: Shop, name: str) -> set[str]:
    (container,) = deployment(shop, name)["spec"]["template"]["spec"]["containers"]
    return {one["name"] for one in container["env"]}


def take_over(product: Product, shop: Shop, old: Operator) -> Operator:
    """Roll from the old version to this one as the chart's Deployment does, and wait until it has looked at all."""
    new = product.start()
    wait_until(new.stands_by)
    assert old.stop() == 0
    wait_until(new.leads)
    shop.kubectl("label", "slink", "--all", "seen=true")
    links = len(shop.kubectl("get", "slink", "--output=name").split())
    wait_until(lambda: new.metric("servicelink_reconcile_total", 'key="link"') > links)
    wait_until(lambda: new.metric("servicelink_reconcile_total", 'key="workload"') > 0)
    return new


def test_an_upgrade_writes_nothing_and_restarts_nobody(
    product: Product, previous: Path, shop: Shop, write: Writer
) -> None:
    workloads = ("checkout", "billing", "notification", "users")
    shop.apply(*map(write.workload, workloads), *map(write.service, ("notification", "users")))
    shop.apply(write.policy("Enforce"))
    old = product.start(packages=previous)
    shop.apply(
        write.link(CHANGED),
        write.link(OTHER, server="name: users"),
        write.link("billing-to-users", client="kind: Deployment, name: billing", server="name: users"),
    )
    shop.settle(CHANGED, OTHER, "billing-to-users")
    wait_until(lambda: render_version(shop, "notification") == 0)
    assert modes(shop, "checkout") == {CHANGED: OLD_MODE, OTHER: OLD_MODE}
    assert "NOTIFICATION_OLD_URL" in variables(shop, "checkout")
    before = {name: deployment(shop, name)["metadata"] for name in workloads}

    with audited(product.admin, USER) as events:
        new = take_over(product, shop, old)
    after = {name: deployment(shop, name)["metadata"] for name in workloads}

    assert [call for call in parse_calls(events) if call.is_write] == []
    assert any(call.is_by(new.identity) for call in parse_calls(events))
    assert {name: one["generation"] for name, one in after.items()} == {
        name: one["generation"] for name, one in before.items()
    }

    shop.apply(write.link(CHANGED, more="binding: {envPrefix: NEW}"))
    wait_until(lambda: "NEW_URL" in variables(shop, "checkout"))
    shop.settle(CHANGED)

    assert modes(shop, "checkout") == {CHANGED: NEW_MODE, OTHER: OLD_MODE}
    assert not variables(shop, "checkout") & {"NOTIFICATION_OLD_URL", "NEW_OLD_URL"}
    assert render_version(shop, "checkout") == 1
    assert {name: deployment(shop, name)["metadata"]["generation"] for name in workloads if name != "checkout"} == {
        name: one["generation"] for name, one in after.items() if name != "checkout"
    }
