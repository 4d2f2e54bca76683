"""Flags go before variables before defaults; whatever is wrong is said at once, with its origin and its mend."""

import datetime as dt
from pathlib import Path

import pytest

from servicelink_operator import settings
from servicelink_operator.settings import Settings, SettingsError, flag_of, parse_settings, variable_of


def problems(*arguments: str, **environment: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as wrong:
        parse_settings(arguments, environment)
    return wrong.value.problems


def test_the_defaults_are_those_of_the_documentation() -> None:
    found = parse_settings((), {})

    assert found.propagation_wait == dt.timedelta(seconds=150)
    assert found.min_overlap == dt.timedelta(minutes=5)
    assert found.secret_check_interval == dt.timedelta(minutes=10)
    assert (found.bind_host, found.bind_port) == ("0.0.0.0", 8080)  # noqa: S104 (what the Pod's Service reaches)
    assert (found.leader_elect, found.freeze, found.require_guards) == (True, False, True)
    assert (found.workers, found.secret_reads_per_second) == (32, 20.0)
    assert found.kubeconfig is None


def test_a_flag_goes_before_its_variable_and_a_variable_before_the_default() -> None:
    environment = {"SERVICELINK_WORKERS": "3", "SERVICELINK_PROPAGATION_WAIT": "1m"}

    found = parse_settings(("--propagation-wait", "25s", "--leader-elect=false"), environment)

    assert found.propagation_wait == dt.timedelta(seconds=25)
    assert found.workers == 3
    assert not found.leader_elect


def test_every_problem_is_said_at_once_with_its_origin_value_and_mend() -> None:
    found = problems("--min-overlap=5", "--bind", "8080", "--wrokers", "3", SERVICELINK_LOG_FORMAT="xml")

    assert found == (
        "there is no --wrokers 3; `servicelink-operator run --help` lists the flags",
        "--min-overlap is '5': '5' is no duration; write one such as 30s, 15m or 720h",
        "--bind is '8080': write host:port, such as 0.0.0.0:8080 or [::]:8080",
        "SERVICELINK_LOG_FORMAT is 'xml': it should be 'auto', 'json' or 'text'",
    )


def test_a_flag_without_a_value_is_said_beside_wrong_variables() -> None:
    found = problems("--workers", SERVICELINK_FREEZE="maybe")

    assert "--workers" in found[0]
    assert found[1].startswith("SERVICELINK_FREEZE is 'maybe'")


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--workers", "0"),
        ("--workers", "many"),
        ("--secret-reads-per-second", "0"),
        ("--secret-check-interval", "0s"),
        ("--trust-domain", "Example.org"),
        ("--bind", "0.0.0.0:99999"),
        ("--bind", "a:b:80"),
        ("--lease-name", ""),
        ("--log-level", "loud"),
    ],
)
def test_a_value_out_of_bounds_is_refused(flag: str, value: str) -> None:
    found = problems(f"{flag}={value}")

    assert len(found) == 1
    assert found[0].startswith(f"{flag} is '{value}': ")


def test_a_misspelled_variable_is_an_error_that_names_the_right_one() -> None:
    assert problems(SERVICELINK_WROKERS="3", SERVICELINK_COLOUR="red") == (
        "SERVICELINK_COLOUR is no setting; unset it",
        "SERVICELINK_WROKERS is no setting; did you mean SERVICELINK_WORKERS?",
    )


@pytest.mark.parametrize(
    "name",
    [
        "SERVICELINK_SERVICE_HOST",
        "SERVICELINK_SERVICE_PORT",
        "SERVICELINK_SERVICE_PORT_HTTP",
        "SERVICELINK_PORT",
        "SERVICELINK_PORT_8080_TCP",
        "SERVICELINK_PORT_8080_TCP_PROTO",
        "SERVICELINK_PORT_8080_TCP_ADDR",
        "SERVICELINK_METRICS_SERVICE_HOST",
        "SERVICELINK_METRICS_PORT_9090_TCP",
    ],
)
def test_what_kubernetes_injects_for_a_service_of_our_name_is_no_setting(name: str) -> None:
    assert parse_settings((), {name: "10.96.0.1"}).workers == 32


def test_no_setting_looks_like_a_service_variable() -> None:
    taken = [name for name in Settings.model_fields if settings._INJECTED.fullmatch(variable_of(name))]  # noqa: SLF001 (its form is the point)

    assert taken == []


def test_the_lease_is_in_the_pod_s_namespace_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "NAMESPACE_FILE", tmp_path / "namespace")
    outside = parse_settings((), {}).lease_namespace
    (tmp_path / "namespace").write_text("servicelink-system\n")
    inside = parse_settings((), {}).lease_namespace
    told = parse_settings((), {"SERVICELINK_LEASE_NAMESPACE": "elsewhere"}).lease_namespace

    assert (outside, inside, told) == ("default", "servicelink-system", "elsewhere")


def test_two_processes_of_one_host_have_two_identities() -> None:
    assert parse_settings((), {}).identity != parse_settings((), {}).identity
    assert parse_settings(("--identity=me",), {}).identity == "me"


def test_an_ipv6_address_is_bound_without_its_brackets() -> None:
    found = parse_settings(("--bind=[::1]:9090",), {})

    assert (found.bind_host, found.bind_port) == ("::1", 9090)


def test_help_lists_every_flag_with_variable_and_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        parse_settings(("--help",), {})
    said = capsys.readouterr().out

    assert ended.value.code == 0
    for name in Settings.model_fields:
        assert f"{flag_of(name)} " in said
        assert f"[{variable_of(name)}] (default: " in said
    assert "(default: 150s)" in said
