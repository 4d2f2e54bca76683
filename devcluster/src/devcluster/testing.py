"""What tests do with a cluster: run kubectl and helm, speak as a ServiceAccount, count API calls, wait for a state."""

import json
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from devcluster import accounts
from devcluster.build import Programs
from devcluster.cluster import Cluster
from devcluster.errors import DevclusterError
from devcluster.progress import Progress

T = TypeVar("T")


class CommandFailedError(Exception):
    """A program ended with an error; `stderr` is what it said."""

    def __init__(self, command: str, code: int, stderr: str) -> None:
        super().__init__(f"`{command}` ended with {code}: {stderr.strip()}")
        self.stderr = stderr


@dataclass(frozen=True, slots=True)
class Client:
    """kubectl and helm under one kubeconfig, hence under one user's rights."""

    cluster: Cluster
    kubeconfig: Path

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and answer its standard output; raises CommandFailedError."""
        return self._run("kubectl", arguments, stdin)

    def kubectl_json(self, *arguments: str, stdin: str | None = None) -> Any:
        """Run kubectl with `--output=json` and answer the parsed object."""
        return json.loads(self.kubectl(*arguments, "--output=json", stdin=stdin))

    def apply(self, manifest: str, *arguments: str) -> str:
        """Run `kubectl apply` on YAML documents; raises CommandFailedError with the API server's refusal."""
        return self.kubectl("apply", "--filename=-", *arguments, stdin=manifest)

    def helm(self, *arguments: str, program: str = "helm") -> str:
        """Run helm (or `helm3`) and answer its standard output; raises CommandFailedError."""
        return self._run(program, arguments, None)

    def as_service_account(self, namespace: str, name: str) -> "Client":
        """Answer a client with that ServiceAccount's real rights and nothing else."""
        return Client(self.cluster, accounts.service_account_kubeconfig(self.cluster, namespace, name))

    def _run(self, program: str, arguments: tuple[str, ...], stdin: str | None) -> str:
        path = self.cluster.bin / program
        if not path.exists():
            version = self.cluster.require_record().built_version
            self.cluster.put_program(program, Programs(version, Progress.on_stderr()).find(program))
        words = [str(path), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(words, input=stdin or "", capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise CommandFailedError(" ".join((program, *arguments)), done.returncode, done.stderr)
        return done.stdout


@dataclass(slots=True)
class ApiCalls:
    """Calls by (verb, resource), a subresource as `pods/exec`; dry runs and Leases are counted apart."""

    counted: Counter[tuple[str, str]] = field(default_factory=Counter)
    dry_runs: Counter[tuple[str, str]] = field(default_factory=Counter)
    leases: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def mutating(self) -> int:
        """How many calls could have changed something."""
        return sum(number for (verb, _), number in self.counted.items() if verb not in ("get", "list", "watch"))

    def add(self, event: dict[str, Any]) -> None:
        """Count one event of the audit log (audit.k8s.io/v1)."""
        reference = event.get("objectRef", {})
        path = [reference.get("resource", ""), reference.get("subresource", "")]
        call = (event["verb"], "/".join(part for part in path if part))
        if "dryRun=All" in event["requestURI"]:
            self.dry_runs[call] += 1
        elif reference.get("resource") == "leases":
            self.leases[call] += 1
        else:
            self.counted[call] += 1


@contextmanager
def api_calls(client: Client, user: str) -> Iterator[ApiCalls]:
    """Count the calls of `user` that the API server answers while the block runs; the counts are there after it.

    As `audited`.
    """
    calls = ApiCalls()
    with audited(client, user) as events:
        yield calls
    for event in events:
        calls.add(event)


@contextmanager
def audited(client: Client, user: str) -> Iterator[list[dict[str, Any]]]:
    """Give a list that holds, after the block, what the audit log says of `user`'s calls while it ran, in order.

    Read between the records of two requests made for this purpose, as events of audit.k8s.io/v1. Needs a cluster with
    `--audit`.
    """
    if not client.cluster.require_record().audit:
        raise DevclusterError(
            f"cluster '{client.cluster.name}' keeps no audit log, so calls cannot be counted",
            mend=f"start it with one: python -m devcluster up --audit --name {client.cluster.name}",
        )
    events: list[dict[str, Any]] = []
    begin = _mark(client)
    yield events
    end = _mark(client)
    inside = False
    with client.cluster.audit_log.open() as log:
        for line in log:
            inside = (inside or begin in line) and end not in line
            if inside and (event := json.loads(line))["user"]["username"] == user:
                events.append(event)


def _mark(client: Client) -> str:
    """Make a request that no one else makes and wait until it is on record."""
    mark = uuid.uuid4().hex
    administrator = Client(client.cluster, client.cluster.kubeconfig)
    administrator.kubectl("get", f"--raw=/readyz?exclude={mark}")
    wait_until(lambda: mark in client.cluster.audit_log.read_text(), deadline=10)
    return mark


def wait_until(predicate: Callable[[], T], deadline: float = 30) -> T:
    """Call `predicate` until its answer is true, and answer that; `deadline` in seconds.

    A failed command counts as "not yet". Raises AssertionError with the last answer, or the last failure, when late.
    """
    until = time.monotonic() + deadline
    while True:
        last: object
        try:
            answer = predicate()
            if answer:
                return answer
            last = answer
        except CommandFailedError as error:
            last = error
        if time.monotonic() > until:
            raise AssertionError(f"not within {deadline:g} s; last seen: {last!r}")
        time.sleep(0.1)
