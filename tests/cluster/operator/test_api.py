"""Requests succeed as they are meant, or fail as what their sender should do next; Secrets are quoted by no failure."""

import base64
import datetime as dt
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from kubernetes.aio.config import ConfigException, incluster_config

from devcluster.testing import Client
from servicelink_operator import telemetry
from servicelink_operator.cluster.api import Api, Object, PatchType
from servicelink_operator.cluster.errors import (
    AlreadyExistsError,
    ApiError,
    BusyError,
    ConflictError,
    ForbiddenError,
    FrozenError,
    InvalidError,
    NotFoundError,
    NotServedError,
)
from servicelink_operator.cluster.kinds import ACCESS_REVIEW, CONFIG_MAP, DEPLOYMENT, LEASE, SECRET, SERVICE, Kind


def config_map(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def deployment(name: str) -> Object:
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "app", "image": "app:1"}]},
    }
    spec = {"replicas": 0, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def counted(verb: str, kind: str, code: int) -> float:
    labels = {"verb": verb, "kind": kind, "code": str(code)}
    return telemetry.REGISTRY.get_sample_value("servicelink_api_requests_total", labels) or 0.0


async def test_an_object_is_created_read_and_deleted(api: Api, namespace: str) -> None:
    created = await api.create(CONFIG_MAP, namespace, config_map("a", key="ä"))
    read = await api.read(CONFIG_MAP, namespace, "a")
    partial = await api.read(CONFIG_MAP, namespace, "a", metadata_only=True)
    await api.delete(CONFIG_MAP, namespace, "a", uid=created["metadata"]["uid"])

    assert read == created
    assert read["data"] == {"key": "ä"}
    assert partial["kind"] == "PartialObjectMetadata"
    assert "data" not in partial
    assert [field["manager"] for field in read["metadata"]["managedFields"]] == ["servicelink"]
    with pytest.raises(NotFoundError):
        await api.read(CONFIG_MAP, namespace, "a")


async def test_each_kind_of_patch_does_what_it_is_for(api: Api, namespace: str) -> None:
    await api.create(DEPLOYMENT, namespace, deployment("a"))
    added = {"spec": {"template": {"spec": {"containers": [{"name": "app", "env": [{"name": "A", "value": "1"}]}]}}}}

    strategic = await api.patch(DEPLOYMENT, namespace, "a", added, content_type=PatchType.STRATEGIC)
    merged = await api.patch(
        DEPLOYMENT, namespace, "a", {"metadata": {"annotations": {"b": "2"}}}, content_type=PatchType.MERGE
    )
    applied = await api.patch(
        CONFIG_MAP, namespace, "new", config_map("new", k="v"), content_type=PatchType.APPLY, field_manager="other"
    )

    assert strategic["spec"]["template"]["spec"]["containers"][0]["image"] == "app:1"
    assert strategic["spec"]["template"]["spec"]["containers"][0]["env"] == [{"name": "A", "value": "1"}]
    assert merged["metadata"]["annotations"]["b"] == "2"
    assert applied["data"] == {"k": "v"}
    assert applied["metadata"]["managedFields"][0]["manager"] == "other"


async def test_fields_of_another_manager_are_taken_by_force_only(api: Api, namespace: str) -> None:
    await api.create(CONFIG_MAP, namespace, config_map("a", k="theirs"))
    ours = config_map("a", k="ours")

    with pytest.raises(ConflictError):
        await api.patch(CONFIG_MAP, namespace, "a", ours, content_type=PatchType.APPLY, field_manager="other")
    taken = await api.patch(
        CONFIG_MAP, namespace, "a", ours, content_type=PatchType.APPLY, field_manager="other", force=True
    )

    assert taken["data"] == {"k": "ours"}


async def test_the_status_is_patched_by_its_subresource(api: Api, namespace: str) -> None:
    await api.create(DEPLOYMENT, namespace, deployment("a"))
    body = {"status": {"observedGeneration": 7}, "spec": {"replicas": 5}}

    found = await api.patch(DEPLOYMENT, namespace, "a", body, content_type=PatchType.MERGE, subresource="status")

    assert found["status"]["observedGeneration"] == 7
    assert found["spec"]["replicas"] == 0


async def test_a_dry_run_answers_and_changes_nothing(api: Api, namespace: str) -> None:
    await api.create(CONFIG_MAP, namespace, config_map("a", k="old"))
    patch = {"data": {"k": "new"}}

    answered = await api.patch(CONFIG_MAP, namespace, "a", patch, content_type=PatchType.MERGE, dry_run=True)

    assert answered["data"] == {"k": "new"}
    assert (await api.read(CONFIG_MAP, namespace, "a"))["data"] == {"k": "old"}


async def test_a_list_goes_on_where_its_page_ended(api: Api, namespace: str) -> None:
    for name in ("a", "b", "c"):
        await api.create(CONFIG_MAP, namespace, config_map(name))
    names: list[str] = []
    continue_: str | None = None
    for _ in range(9):
        page = await api.list_page(CONFIG_MAP, namespace=namespace, limit=1, continue_=continue_)
        names += [found["metadata"]["name"] for found in page["items"]]
        continue_ = page["metadata"].get("continue")
        if not continue_:
            break

    assert sorted({*names, "kube-root-ca.crt"}) == ["a", "b", "c", "kube-root-ca.crt"]


Call = Callable[[Api, str], Awaitable[Any]]
REFUSALS: dict[str, tuple[type[ApiError], Call]] = {
    "absent": (NotFoundError, lambda api, namespace: api.read(CONFIG_MAP, namespace, "absent")),
    "absent namespace": (NotFoundError, lambda api, _: api.create(CONFIG_MAP, "absent", config_map("a"))),
    "kind not served": (
        NotServedError,
        lambda api, namespace: api.read(Kind("absent.servicelink.dev", "v1", "A", "as"), namespace, "a"),
    ),
    "exists": (AlreadyExistsError, lambda api, ns: api.create(CONFIG_MAP, ns, config_map("kube-root-ca.crt"))),
    "other uid": (ConflictError, lambda api, namespace: api.delete(CONFIG_MAP, namespace, "it", uid="another")),
    "other version": (
        ConflictError,
        lambda api, namespace: api.patch(
            CONFIG_MAP, namespace, "it", {"metadata": {"resourceVersion": "1"}}, content_type=PatchType.MERGE
        ),
    ),
    "bad value": (InvalidError, lambda api, namespace: api.create(CONFIG_MAP, namespace, config_map("Not A Name"))),
    "bad type": (InvalidError, lambda api, namespace: api.create(CONFIG_MAP, namespace, {"metadata": 5})),
    "old continuation": (InvalidError, lambda api, _: api.list_page(CONFIG_MAP, continue_="nonsense")),
}


@pytest.mark.parametrize("case", REFUSALS)
async def test_a_refusal_says_what_to_do_next(case: str, api: Api, namespace: str) -> None:
    expected, call = REFUSALS[case]
    await api.create(CONFIG_MAP, namespace, config_map("it"))
    await api.patch(
        CONFIG_MAP, namespace, "kube-root-ca.crt", config_map("kube-root-ca.crt"), content_type=PatchType.APPLY
    )

    with pytest.raises(ApiError) as refused:
        await call(api, namespace)

    assert type(refused.value) is expected
    assert refused.value.message


async def test_a_missing_right_and_an_unknown_token_are_forbidden(
    cluster: Client, namespace: str, as_service_account: Callable[[str, str], Client], tmp_path: Path
) -> None:
    kubeconfig = as_service_account(namespace, "default").kubeconfig
    unknown = tmp_path / "unknown"
    unknown.write_text("\n".join(_with_bad_token(line) for line in kubeconfig.read_text().splitlines()))

    for path, status in ((kubeconfig, 403), (unknown, 401)):
        api = await Api.connect(str(path))
        with pytest.raises(ForbiddenError) as refused:
            await api.read(CONFIG_MAP, "kube-system", "a")
        await api.close()
        assert refused.value.status == status


def _with_bad_token(line: str) -> str:
    head, found, _ = line.partition("token:")
    return f"{head}token: nobody" if found else line


async def test_a_refused_secret_is_not_quoted(api: Api, namespace: str) -> None:
    metadata = {"name": "a"}
    for body in (
        {"metadata": {"name": "a"}, "data": {"api key slk_aaaaaaaa": "c2VjcmV0"}},
        {"metadata": metadata, "data": {"k": "slk_no base64"}},
        {"metadata": metadata, "data": "slk_of the wrong type"},
    ):
        with pytest.raises(InvalidError) as refused:
            await api.create(SECRET, namespace, body)

        assert "slk_" not in str(refused.value)
        assert "kept back" in refused.value.message


async def test_an_api_server_that_cannot_be_reached_or_does_not_answer_is_busy(line: Any) -> None:
    await line.api.read(SERVICE, "default", "kubernetes")
    before = counted("get", "Service", 0)
    line.refuse()
    with pytest.raises(BusyError) as cut:
        await line.api.read(SERVICE, "default", "kubernetes")
    line.mend()
    impatient = await Api.connect(str(line.kubeconfig), timeout=0.5)
    await impatient.read(SERVICE, "default", "kubernetes")
    line.hang(new=False)
    with pytest.raises(BusyError) as silent:
        await impatient.read(SERVICE, "default", "kubernetes")
    await impatient.close()

    assert (cut.value.status, cut.value.reason) == (0, "Unreachable")
    assert (silent.value.status, silent.value.reason) == (0, "Timeout")
    assert counted("get", "Service", 0) == before + 2


async def test_a_frozen_client_writes_nothing_but_its_lease(cluster: Client, api: Api, namespace: str) -> None:
    await api.create(CONFIG_MAP, namespace, config_map("a", k="v"))
    frozen = await Api.connect(str(cluster.kubeconfig), frozen=True)
    patch = {"data": {"k": "w"}}
    lease = {"apiVersion": LEASE.api_version, "kind": "Lease", "metadata": {"name": "a"}}
    review = {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}
    before = counted("create", "ConfigMap", 201), counted("delete", "ConfigMap", 200)

    with pytest.raises(FrozenError):
        await frozen.create(CONFIG_MAP, namespace, config_map("b"))
    with pytest.raises(FrozenError):
        await frozen.patch(CONFIG_MAP, namespace, "a", patch, content_type=PatchType.MERGE)
    with pytest.raises(FrozenError):
        await frozen.delete(CONFIG_MAP, namespace, "a")
    dry = await frozen.patch(CONFIG_MAP, namespace, "a", patch, content_type=PatchType.MERGE, dry_run=True)
    await frozen.create(LEASE, namespace, lease)
    asked = await frozen.create(ACCESS_REVIEW, None, review)
    await frozen.close()

    assert dry["data"] == {"k": "w"}
    assert asked["status"]["allowed"]
    assert (await api.read(CONFIG_MAP, namespace, "a"))["data"] == {"k": "v"}
    assert (counted("create", "ConfigMap", 201), counted("delete", "ConfigMap", 200)) == before


async def test_requests_are_counted_by_verb_kind_and_code(api: Api, namespace: str) -> None:
    before = counted("get", "ConfigMap", 404)

    with pytest.raises(NotFoundError):
        await api.read(CONFIG_MAP, namespace, "absent")

    assert counted("get", "ConfigMap", 404) == before + 1


async def test_no_name_leads_to_another_path(api: Api, namespace: str) -> None:
    await api.create(CONFIG_MAP, namespace, config_map("a"))

    for name in ("", ".", ".."):
        with pytest.raises(ValueError, match="no name"):
            await api.read(CONFIG_MAP, namespace, name)
    for name in ("x/../a", "a?", "a#b", "%2e%2e/configmaps/a"):
        with pytest.raises(ApiError):
            await api.read(CONFIG_MAP, namespace, name)


async def test_a_watch_that_its_reader_leaves_gives_its_connection_back(api: Api, namespace: str) -> None:
    version = (await api.list_page(CONFIG_MAP, namespace=namespace))["metadata"]["resourceVersion"]
    await api.create(CONFIG_MAP, namespace, config_map("a"))
    connector: Any = api._connection.session.connector  # noqa: SLF001 (the pool tells nobody)

    async with aclosing(
        api.watch(CONFIG_MAP, namespace=namespace, resource_version=version, timeout_seconds=30)
    ) as events:
        event = await anext(events)
        taken = len(connector._acquired)  # noqa: SLF001 (as above)

    assert event["object"]["metadata"]["name"] == "a"
    assert (taken, len(connector._acquired)) == (1, 0)  # noqa: SLF001 (as above)


async def test_a_kubeconfig_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigException):
        await Api.connect(str(tmp_path / "absent"))


async def test_a_pod_s_token_is_read_again_when_the_kubelet_renewed_it(
    cluster: Client, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]
    address = urlsplit(config["server"])
    authority, token = tmp_path / "ca.crt", tmp_path / "token"
    authority.write_bytes(base64.b64decode(config["certificate-authority-data"]))
    token.write_text("expired")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", str(address.hostname))
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(address.port))
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(authority))
    # Instead of after a minute.
    monkeypatch.setattr(incluster_config.InClusterConfigLoader, "__init__", _impatient)
    in_cluster = await Api.connect(None)

    with pytest.raises(ForbiddenError) as before:
        await in_cluster.read(CONFIG_MAP, namespace, "kube-root-ca.crt")
    token.write_text(cluster.kubectl("create", "token", "default", f"--namespace={namespace}").strip())
    with pytest.raises(ForbiddenError) as after:
        await in_cluster.read(CONFIG_MAP, namespace, "kube-root-ca.crt")
    token.unlink()
    with pytest.raises(BusyError):
        await in_cluster.read(CONFIG_MAP, namespace, "kube-root-ca.crt")
    await in_cluster.close()

    assert before.value.status == 401
    assert f"system:serviceaccount:{namespace}:default" in after.value.message


_load: Any = incluster_config.InClusterConfigLoader.__init__


def _impatient(loader: Any, **options: Any) -> None:
    _load(loader, **options)
    loader._token_refresh_period = dt.timedelta()  # noqa: SLF001 (there is no option for it)
