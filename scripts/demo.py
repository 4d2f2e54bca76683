"""Start a cluster with a node, run two services on it and call one from the other; leaves everything running.

Usage: demo.py [CLUSTER]    the cluster's name, "demo" unless given
"""

import sys
from pathlib import Path

from devcluster import images, lifecycle
from devcluster.cluster import Cluster
from devcluster.errors import DevclusterError
from devcluster.lifecycle import Wish
from devcluster.progress import Progress
from devcluster.testing import Client, wait_until

EXAMPLE = Path(__file__).parents[1] / "examples" / "00-two-services"
IMAGE = "two-services:dev"
CALLS = 200

# Run in a Pod of `checkout` with a number of calls: how many were answered, and by how many Pods.
CALLER = """
import collections, sys, urllib.request
answers = collections.Counter()
for _ in range(int(sys.argv[1])):
    with urllib.request.urlopen("http://notification.shop.svc:8080/", timeout=5) as answer:
        answers[answer.status, answer.read().decode()] += 1
print(sum(answers.values()), len(answers))
"""


def main(name: str) -> None:
    """Run the demo on that cluster."""
    progress, cluster = Progress.on_stderr(), Cluster(name)
    lifecycle.up(cluster, Wish(with_node=True), progress)
    archive = images.build(EXAMPLE / "Dockerfile", IMAGE, EXAMPLE, progress)
    with progress.step("image", f"loading {IMAGE}"):
        lifecycle.load(cluster, archive)
    client = Client(cluster, cluster.kubeconfig)
    with progress.step("shop", "namespace shop: checkout, notification", done="checkout and notification run"):
        client.kubectl("apply", f"--filename={EXAMPLE / 'shop.yaml'}")
        client.kubectl(
            *("wait", "deployment", "--all", "--namespace=shop"), "--for=condition=Available", "--timeout=180s"
        )
    calling = ("exec", "deployment/checkout", "--namespace=shop", "--", "python", "-c", CALLER)
    # An available Deployment is not yet a reachable Service: kube-proxy learns of its Pods a moment later.
    wait_until(lambda: client.kubectl(*calling, "1"))
    answered, pods = client.kubectl(*calling, str(CALLS)).split()
    progress.say("calls", f"checkout → notification: {answered} of {CALLS} answered by {pods} Pods")
    print(client.kubectl("get", "deployments,services,pods", "--namespace=shop"))
    print(f'Left running. Next: eval "$(uv run python -m devcluster env --name {name})" && kubectl get pods -n shop')
    print("To end it: make demo-down")


if __name__ == "__main__":
    try:
        main(*(sys.argv[1:] or ["demo"]))
    except DevclusterError as error:
        sys.exit(f"Error: {error}")
