"""What no link may add, in whatever template: variables by which programs run, and mounts over what is there."""

import pytest

from servicelink_core.conflicts import find_unfit
from servicelink_core.template import Place, Spot


@pytest.mark.parametrize(
    "name",
    [
        *(
            "PATH",
            "LD_PRELOAD",
            "HTTPS_PROXY",
            "PYTHONPATH",
            "NODE_OPTIONS",
            "PROMPT_COMMAND",
            "PS4",
            "SHELLOPTS",
            "BASH_ENV",
        ),
        *("LUA_INIT", "LUA_INIT_5_4", "ERL_FLAGS", "GCONV_PATH", "CORECLR_PROFILER_PATH", "CORECLR_ENABLE_PROFILING"),
        *("PHP_INI_SCAN_DIR", "R_PROFILE", "R_PROFILE_USER", "GUNICORN_CMD_ARGS", "MAVEN_OPTS", "JAVA_TOOL_OPTIONS"),
        *("HOME", "TMPDIR", "CLASSPATH", "SERVICELINK_VERIFIER", "AWS_ENDPOINT_URL", "INPUTRC", "OCAMLRUNPARAM"),
    ],
)
def test_variables_by_which_programs_run_are_refused(name: str) -> None:
    assert "changes how programs run" in str(find_unfit(Spot(Place.VARIABLE, "app", name)))


@pytest.mark.parametrize("name", ["BASH_FUNC_echo%%", "http_proxy", "", "9LIVES", "A-B", "A.B", "URL\n"])
def test_what_is_no_name_of_capital_letters_is_refused(name: str) -> None:
    assert "capital letters" in str(find_unfit(Spot(Place.VARIABLE, "app", name)))


@pytest.mark.parametrize(
    "name",
    [
        *("PAYMENTS_URL", "PAYMENTS_ADDRESS", "PAYMENTS_API_KEY_FILE", "PAYMENTS_API_KEY", "_9LIVES_URL", "PHP_URL"),
        *("PAYMENTS_BASE_URL", "PAYMENTS", "UPSTREAM_HOST", "PORT", "API_ROOT", "AUTH_HEADER", "PAYMENTS_WEBHOOK"),
        *("SERVICE_BINDING_ROOT", "SERVICELINK_VERIFIER_DIR"),
    ],
)
def test_what_applications_read_is_admitted(name: str) -> None:
    assert find_unfit(Spot(Place.VARIABLE, "app", name)) is None


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/usr/bin",
            "/usr/lib/x",
            "/etc",
            "/etc/ssl",
            "/etc/servicelink",
            "/etc/servicelink/verifier",
            "/lib/x",
            "/app",
        ),
        *(
            "/var/run/secrets/kubernetes.io/serviceaccount",
            "/run/secrets/x",
            "/proc/x",
            "/",
            "/x",
            "x/y",
            "//x",
            "/x//y",
        ),
        *(
            "/bindings/..",
            "/bindings/../etc/x",
            "/./usr/bin",
            "/etc/servicelink/verifier/..",
            "/etc/servicelink/tls/a/b",
        ),
        *("/etc/servicelink/x", "/var/run/servicelink/x", "/x/$(Y)/z", "/x/ /y", "/x/y/", "/x/y\n"),
    ],
)
def test_mounts_over_what_a_system_has_are_refused(path: str) -> None:
    assert "no place for it" in str(find_unfit(Spot(Place.MOUNT, "app", path)))


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/bindings/checkout-to-payments",
            "/bindings/a.b",
            "/app/bindings/x",
            "/app/.bindings/x",
            "/etcetera/x",
            "/etc/bindings/x",
        ),
        *("/platform/bindings/x", "/etc/servicelink/verifier/payments", "/etc/servicelink/tls/payments"),
        "/var/run/servicelink",
    ],
)
def test_folders_of_bindings_are_admitted(path: str) -> None:
    assert find_unfit(Spot(Place.MOUNT, "app", path)) is None
