"""Start a cluster with a node, install ServiceLink on it and run the examples; leaves everything running.

Usage: demo.py [CLUSTER]    the cluster's name, "demo" unless given

Every step may find its work done, so that a second run goes on where the first one ended.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devcluster import images, lifecycle
from devcluster.cluster import Cluster
from devcluster.errors import DevclusterError
from devcluster.lifecycle import Wish
from devcluster.progress import Progress
from devcluster.testing import Client, CommandFailedError, wait_until

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
REST, ACROSS = EXAMPLES / "01-rest-api-key", EXAMPLES / "02-cross-namespace"
OPERATOR_IMAGE, EXAMPLE_IMAGE = "servicelink:dev", "servicelink-example:dev"
SYSTEM = "servicelink-system"
CALLS = 200
# The demo's kubelet looks at mounted files every 10 s; the default of 150 s is for one that does so every 60 to 90 s.
PROPAGATION_WAIT = "25s"
REFUSED = "403 INVALID_SERVICE_AUTH"
NAMESPACES = ("shop", "payments")
IN_SHOP = "--namespace=shop"


class DemoError(Exception):
    """A step that did not succeed: which, how it looked, and the command that shows more."""


@dataclass(frozen=True, slots=True)
class Demo:
    """A cluster that runs, and where progress is shown."""

    client: Client
    progress: Progress

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self.client.cluster.name

    @contextmanager
    def step(self, name: str, detail: str, done: str, look: str) -> Iterator[None]:
        """Show a step; a failure in it becomes a DemoError that names `look`, a command which shows more."""
        try:
            with self.progress.step(name, detail, done=done):
                yield
        except (CommandFailedError, AssertionError) as error:
            env = f'eval "$(.venv/bin/python -m devcluster env --name {self.name})"'
            raise DemoError(f"step '{name}' ({detail}) failed: {error}\nTo look: {env} && {look}") from None

    def pod(self, deployment: str, *command: str) -> str:
        """Run a command in a Pod of that Deployment of the shop; raises CommandFailedError."""
        return self.client.kubectl("exec", f"deployment/{deployment}", IN_SHOP, "--", *command).strip()


def main(name: str) -> None:
    """Run the demo on the cluster of that name; raises DevclusterError and DemoError."""
    demo = apply_cluster(name)
    apply_images(demo)
    apply_restart(demo)
    apply_chart(demo)
    apply_examples(demo)
    print(f"\n{demo.client.kubectl('get', 'slink', '--all-namespaces')}", flush=True)
    for server, path in (("notification", "/notifications"), ("payments", "/v1/charges")):
        observe_calls(demo, server, path)
    observe_stranger(demo)
    print(render_next(name))


def apply_cluster(name: str) -> Demo:
    """Start the cluster, or find it running."""
    progress, cluster = Progress.on_stderr(), Cluster(name)
    lifecycle.up(cluster, Wish(with_node=True), progress)
    return Demo(Client(cluster, cluster.kubeconfig), progress)


def apply_images(demo: Demo) -> None:
    """Build the operator's image and the examples', and give them to the node."""
    for image, dockerfile in ((OPERATOR_IMAGE, ROOT / "Dockerfile"), (EXAMPLE_IMAGE, REST / "Dockerfile")):
        archive = images.build(dockerfile, image, ROOT, demo.progress)
        with demo.progress.step("image", f"loading {image}", done=f"{image} loaded"):
            lifecycle.load(demo.client.cluster, archive)


def apply_restart(demo: Demo) -> None:
    """Start the Pods of an earlier run anew: they would keep the images that they were started with."""
    for namespace in (SYSTEM, *NAMESPACES):
        demo.client.kubectl("rollout", "restart", "deployment", f"--namespace={namespace}")


def apply_chart(demo: Demo) -> None:
    """Install the chart as a user would, or upgrade to it."""
    values = [
        f"--set=image.tag={OPERATOR_IMAGE.partition(':')[2]}",
        f"--set=operator.propagationWait={PROPAGATION_WAIT}",
    ]
    words = ["upgrade", "--install", "servicelink", str(ROOT / "charts" / "servicelink")]
    look = f"kubectl get pods,events -n {SYSTEM}"
    with demo.step("chart", f"installing servicelink in {SYSTEM}", f"servicelink installed in {SYSTEM}", look):
        demo.client.helm(*words, f"--namespace={SYSTEM}", "--create-namespace", "--wait", "--timeout=3m", *values)
        wait_for_rollout(demo, SYSTEM)


def apply_examples(demo: Demo) -> None:
    """Deploy shop, payments and their links, and wait until the links are Ready and all Pods run."""
    files = [REST / "shop.yaml", REST / "link.yaml", ACROSS / "payments.yaml", ACROSS / "allow.yaml"]
    links = "kubectl get slink -A -o wide"
    with demo.step("shop", "namespaces shop and payments: 3 services, 2 links", "2 ServiceLinks Ready", links):
        # In this order: a Namespace before what is in it.
        for file in (*files, ACROSS / "link.yaml"):
            demo.client.kubectl("apply", f"--filename={file}")
        demo.client.kubectl("wait", "slink", "--all", IN_SHOP, "--for=condition=Ready", "--timeout=300s")
    with demo.step("pods", "waiting for the services", "every service runs", "kubectl get pods -A"):
        for namespace in NAMESPACES:
            wait_for_rollout(demo, namespace)
        # An available Deployment is not yet a reachable Service: kube-proxy learns of Pods a moment later.
        wait_until(lambda: demo.pod("stranger", "python", "stranger.py"))


def wait_for_rollout(demo: Demo, namespace: str) -> None:
    """Wait until every Deployment of a namespace runs as it is now; raises CommandFailedError after 3 minutes."""
    for deployment in demo.client.kubectl("get", "deployments", f"--namespace={namespace}", "--output=name").split():
        demo.client.kubectl("rollout", "status", deployment, f"--namespace={namespace}", "--timeout=180s")


def observe_calls(demo: Demo, server: str, path: str) -> None:
    """Call over a link, and show that all calls were answered; raises DemoError unless they were."""
    link, every = f"checkout → {server}", f"{CALLS} of {CALLS} answered"
    with demo.step("calls", f"{link}: {CALLS} calls", f"{link}: {every}", "kubectl logs -n shop deployment/checkout"):
        said = demo.pod("checkout", "python", "checkout.py", "call", str(CALLS), server, path)
        assert said == every, said


def observe_stranger(demo: Demo) -> None:
    """Call from a Pod without a link, and show that it is refused; raises DemoError if it is not."""
    said = demo.pod("stranger", "python", "stranger.py")
    if said != REFUSED:
        raise DemoError(f"a Pod without a link was answered with {said}, not with {REFUSED}")
    demo.progress.say("stranger", f"a Pod without a link → notification: refused: {said}")


def render_next(name: str) -> str:
    """Say what can be done now."""
    return f"""
Left running. Next:
  eval "$(.venv/bin/python -m devcluster env --name {name})"
  kubectl get slink -A -o wide
  kubectl logs -n shop deployment/checkout --tail=5
  kubectl exec -n shop deployment/stranger -- python stranger.py
To end it: {"make demo-down" if name == "demo" else f".venv/bin/python -m devcluster down --name {name}"}"""


if __name__ == "__main__":
    try:
        main(*(sys.argv[1:] or ["demo"]))
    except (DevclusterError, DemoError) as error:
        sys.exit(f"Error: {error}")
