"""The control plane is a real one: it validates, collects garbage, and refuses whoever has no rights."""

import base64
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import yaml

from devcluster import kubeconfig
from devcluster.testing import ApiCalls, Client, CommandFailedError, wait_until

CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: probes.test.servicelink.dev}
spec:
  group: test.servicelink.dev
  scope: Namespaced
  names: {kind: Probe, plural: probes, singular: probe}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties: {low: {type: integer}, high: {type: integer}}
            x-kubernetes-validations:
            - {rule: self.low <= self.high, message: low must not be above high}
"""


def probe(low: int, high: int) -> str:
    spec = {"low": low, "high": high}
    return yaml.safe_dump(
        {"apiVersion": "test.servicelink.dev/v1", "kind": "Probe", "metadata": {"name": "p"}, "spec": spec}
    )


def test_helm_installs_a_chart(
    namespace: str, helm: Callable[..., str], kubectl: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("{apiVersion: v2, name: probe, version: 0.1.0}")
    manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}}\n"
    (tmp_path / "templates" / "configmap.yaml").write_text(manifest)

    helm("install", "made-by-helm", str(tmp_path), f"--namespace={namespace}", "--wait")

    assert "made-by-helm" in kubectl("get", "configmaps", f"--namespace={namespace}")


@pytest.fixture
def crd(cluster: Client) -> None:
    cluster.apply(CRD)
    cluster.kubectl("wait", "crd/probes.test.servicelink.dev", "--for=condition=Established", "--timeout=30s")


def test_a_rule_written_in_cel_refuses_an_object(cluster: Client, namespace: str, crd: None) -> None:
    cluster.apply(probe(1, 2), f"--namespace={namespace}")

    with pytest.raises(CommandFailedError, match="low must not be above high"):
        cluster.apply(probe(3, 2), f"--namespace={namespace}")


def test_an_owned_object_goes_with_its_owner(
    cluster: Client, namespace: str, wait_until: Callable[..., object]
) -> None:
    cluster.kubectl("create", "configmap", "owner", f"--namespace={namespace}")
    uid = cluster.kubectl_json("get", "configmap", "owner", f"--namespace={namespace}")["metadata"]["uid"]
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    owned = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owned", "ownerReferences": [owner]}}
    cluster.apply(yaml.safe_dump(owned), f"--namespace={namespace}")

    cluster.kubectl("delete", "configmap", "owner", f"--namespace={namespace}")

    left = ("get", "configmap", "owned", f"--namespace={namespace}", "--ignore-not-found", "--output=name")
    wait_until(lambda: cluster.kubectl(*left) == "")


def test_a_service_account_has_the_rights_it_was_given_and_no_others(
    cluster: Client, namespace: str, as_service_account: Callable[[str, str], Client]
) -> None:
    cluster.kubectl("create", "serviceaccount", "reader", f"--namespace={namespace}")
    cluster.kubectl("create", "role", "reader", "--verb=get,list", "--resource=configmaps", f"--namespace={namespace}")
    cluster.kubectl(
        *("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace}:reader"),
        f"--namespace={namespace}",
    )
    reader = as_service_account(namespace, "reader")
    wait_until(lambda: reader.kubectl("auth", "can-i", "list", "configmaps", f"--namespace={namespace}"))

    assert "kube-root-ca.crt" in reader.kubectl("get", "configmaps", f"--namespace={namespace}")
    with pytest.raises(CommandFailedError, match=f"system:serviceaccount:{namespace}:reader.*cannot list.*secrets"):
        reader.kubectl("get", "secrets", f"--namespace={namespace}")


def test_nobody_is_let_in_without_a_name(cluster: Client) -> None:
    entry = kubeconfig.current_cluster(cluster.kubeconfig)
    authority = base64.b64decode(entry["certificate-authority-data"]).decode()
    context = ssl.create_default_context(cadata=authority)

    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{entry['server']}/readyz", context=context)
    refused.value.close()

    assert refused.value.code == 401


def test_calls_are_counted_by_user_verb_and_resource(
    cluster: Client,
    namespace: str,
    as_service_account: Callable[[str, str], Client],
    api_calls: Callable[[str], AbstractContextManager[ApiCalls]],
) -> None:
    cluster.kubectl("create", "serviceaccount", "busy", f"--namespace={namespace}")
    cluster.kubectl(
        "create",
        "rolebinding",
        "busy",
        "--clusterrole=admin",
        f"--serviceaccount={namespace}:busy",
        f"--namespace={namespace}",
    )
    busy = as_service_account(namespace, "busy")
    wait_until(lambda: busy.kubectl("auth", "can-i", "create", "configmaps", f"--namespace={namespace}"))

    with api_calls(f"system:serviceaccount:{namespace}:busy") as calls:
        for number in range(3):
            busy.kubectl("create", "configmap", f"c{number}", f"--namespace={namespace}")
        busy.kubectl("create", "configmap", "dry", "--dry-run=server", f"--namespace={namespace}")
        cluster.kubectl("create", "configmap", "other", f"--namespace={namespace}")

    assert calls.counted["create", "configmaps"] == 3
    assert calls.dry_runs["create", "configmaps"] == 1
    assert calls.mutating == 3
