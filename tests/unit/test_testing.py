"""What the fixtures rest on: waiting and counting."""

import pytest

from devcluster.testing import ApiCalls, CommandFailedError, wait_until


def test_waiting_answers_the_first_true_answer() -> None:
    answers = iter([0, None, 3, 4])

    assert wait_until(lambda: next(answers), deadline=5) == 3


def test_waiting_in_vain_shows_what_was_seen_last() -> None:
    with pytest.raises(AssertionError, match=r"not within 0 s; last seen: \[\]"):
        wait_until(list, deadline=0)


def test_waiting_takes_a_failed_command_for_not_yet_and_shows_the_last_failure() -> None:
    def refused() -> str:
        raise CommandFailedError("kubectl get pods", 1, "no such host")

    with pytest.raises(AssertionError, match="no such host"):
        wait_until(refused, deadline=0)


def event(verb: str, resource: str, uri: str = "/", subresource: str = "") -> dict[str, object]:
    return {"verb": verb, "requestURI": uri, "objectRef": {"resource": resource, "subresource": subresource}}


def test_dry_runs_and_leases_are_counted_apart() -> None:
    calls = ApiCalls()
    calls.add(event("create", "secrets"))
    calls.add(event("patch", "deployments", "/apis/apps/v1/x?dryRun=All&force=true"))
    calls.add(event("update", "leases"))
    calls.add(event("list", "pods"))
    calls.add(event("patch", "servicelinks", subresource="status"))

    assert dict(calls.counted) == {("create", "secrets"): 1, ("list", "pods"): 1, ("patch", "servicelinks/status"): 1}
    assert dict(calls.dry_runs) == {("patch", "deployments"): 1}
    assert dict(calls.leases) == {("update", "leases"): 1}
    assert calls.mutating == 2
