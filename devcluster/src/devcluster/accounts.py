"""Kubeconfigs that speak as a ServiceAccount, with its real rights and nothing else."""

from pathlib import Path

from devcluster import kubeconfig
from devcluster.cluster import Cluster

LIFETIME = "12h"


def service_account_kubeconfig(cluster: Cluster, namespace: str, name: str) -> Path:
    """Answer the path of a new kubeconfig with a token of that ServiceAccount, good for 12 hours.

    Raises DevclusterError with the API server's words when there is no such ServiceAccount.
    """
    token = cluster.kubectl("create", "token", name, f"--namespace={namespace}", f"--duration={LIFETIME}")
    return kubeconfig.for_token(cluster.folder / "accounts" / f"{namespace}.{name}", cluster.kubeconfig, token.strip())
