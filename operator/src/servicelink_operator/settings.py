"""The settings: flags first, then variables, then defaults; all that is wrong with them is said at once.

A variable with our prefix that is no setting is an error, because a misspelled one would otherwise be a default that
nobody chose. Kubernetes' own variables for Services whose names begin with `servicelink` are told apart by their form
(https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
"""

import datetime as dt
import difflib
import re
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_settings import CliSettingsSource, CliUnknownArgs, EnvSettingsSource
from pydantic_settings.exceptions import SettingsError as CommandLineError

from servicelink_core.api.durations import parse_duration
from servicelink_core.api.fields import parse_time
from servicelink_core.limits import DEFAULT_QUOTA, Usage

PREFIX = "SERVICELINK_"
PROGRAM = "servicelink-operator run"
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_INJECTED = re.compile(
    r"SERVICELINK_(?:[A-Z0-9_]+_)?"
    r"(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)
# https://spiffe.io/docs/latest/spiffe-specs/spiffe-id, section 2.1.
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
# RFC 1123, as of a Namespace's name.
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_BIND = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^:\[\]]*):(?P<port>[0-9]{1,5})")
_LAST_PORT = 65535


class SettingsError(Exception):
    """Settings are wrong; `problems` has a sentence for each, naming flag or variable, value and mend."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _require_positive(duration: dt.timedelta) -> dt.timedelta:
    if duration <= dt.timedelta():
        raise ValueError("it must be longer than nothing; write one such as 10m")
    return duration


def _require_namespaces(text: str) -> str:
    names = [name.strip() for name in text.split(",")] if text.strip() else []
    for name in names:
        if not _NAMESPACE.fullmatch(name):
            raise ValueError(f"'{name}' is no namespace; write names with commas between, such as shop,payments")
    return ",".join(names)


def _parse_moment(text: object) -> object:
    if not isinstance(text, str):
        return text
    return parse_time(text) if text else None


def _require_trust_domain(text: str) -> str:
    if not _TRUST_DOMAIN.fullmatch(text):
        raise ValueError("a trust domain has lower-case letters, digits, dots, dashes; write one such as cluster.local")
    return text


def _require_address(text: str) -> str:
    found = _BIND.fullmatch(text)
    if found is None or int(found["port"]) > _LAST_PORT:
        raise ValueError("write host:port, such as 0.0.0.0:8080 or [::]:8080")
    return text


def _default_namespace(text: str) -> str:
    if text:
        return text
    return NAMESPACE_FILE.read_text().strip() if NAMESPACE_FILE.exists() else "default"


def _default_identity(text: str) -> str:
    return text or f"{socket.gethostname()}-{secrets.token_hex(4)}"


# GEP-2257, as in the API.
Duration = Annotated[
    dt.timedelta, BeforeValidator(lambda given: parse_duration(given) if isinstance(given, str) else given)
]


def _text(duration: str) -> Any:
    """A default as it is written, which the help text shows; it is parsed as any other."""
    return duration


class Settings(BaseModel):
    """What the operator is told at its start; `parse_settings` makes it."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    propagation_wait: Duration = Field(
        default=_text("150s"), description="how long a server is given to learn of a key before a client gets it"
    )
    min_overlap: Duration = Field(
        default=_text("5m"), description="the shortest spec.rotation.overlap that is accepted"
    )
    trust_domain: Annotated[str, AfterValidator(_require_trust_domain)] = Field(
        default="cluster.local", description="the SPIFFE trust domain of client certificates"
    )
    bind: Annotated[str, AfterValidator(_require_address)] = Field(
        default="0.0.0.0:8080", description="where /healthz, /readyz and /metrics are served"
    )
    leader_elect: bool = Field(default=True, description="write only while holding the Lease; false for a single run")
    lease_namespace: Annotated[str, AfterValidator(_default_namespace)] = Field(
        default="", description="where the Lease is; empty: the Pod's namespace, else `default`"
    )
    lease_name: str = Field(default="servicelink-operator", min_length=1, description="the name of the Lease")
    identity: Annotated[str, AfterValidator(_default_identity)] = Field(
        default="", description="this process in the Lease; empty: the host's name and a random suffix"
    )
    log_format: Literal["auto", "json", "text"] = Field(
        default="auto", description="auto: text on a terminal, else JSON"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="the least severe lines that are written"
    )
    freeze: bool = Field(default=False, description="observe and decide, but write nothing")
    workers: int = Field(default=32, ge=1, le=256, description="how many keys are reconciled at a time")
    secret_reads_per_second: float = Field(default=20.0, gt=0, le=1000, description="the budget of guarded reads")
    secret_check_interval: Annotated[Duration, AfterValidator(_require_positive)] = Field(
        default=_text("10m"), description="how often every binding Secret is looked at for drift"
    )
    require_guards: bool = Field(default=True, description="not ready without the chart's admission policies")
    guards_prefix: str = Field(default="servicelink", min_length=1, description="what the policies' names begin with")
    watch_namespaces: Annotated[str, AfterValidator(_require_namespaces)] = Field(
        default="", description="serve links and servers of these namespaces only (comma-separated); empty: of all"
    )
    rollout_pause: Duration = Field(
        default=_text("60s"), description="how long after a change of a workload's Pods its next one waits"
    )
    rollouts_at_a_time: int = Field(
        default=20, ge=0, description="how many workloads roll out changes at the same time; 0: any number"
    )
    max_links_per_namespace: int = Field(
        default=DEFAULT_QUOTA.links, ge=1, description="how many links a namespace may have"
    )
    max_rules_per_namespace: int = Field(
        default=DEFAULT_QUOTA.rules, ge=1, description="how many allow rules all links of a namespace may have"
    )
    max_bytes_per_namespace: int = Field(
        default=DEFAULT_QUOTA.bytes, ge=1024, description="how long the specs of a namespace's links may be as JSON"
    )
    confirm_removals: Annotated[dt.datetime | None, BeforeValidator(_parse_moment)] = Field(
        default=None, description="what was held before this time, as too many links were gone at once, may go"
    )
    kubeconfig: str | None = Field(
        default=None, description="empty: as a Pod's ServiceAccount, else $KUBECONFIG, else ~/.kube/config"
    )

    @property
    def scope(self) -> frozenset[str]:
        """The namespaces that are watched; none: all."""
        return frozenset(self.watch_namespaces.split(",")) if self.watch_namespaces else frozenset()

    @property
    def quota(self) -> Usage:
        """What the links of one namespace may take."""
        return Usage(self.max_links_per_namespace, self.max_rules_per_namespace, self.max_bytes_per_namespace)

    @property
    def bind_host(self) -> str:
        """The host of `bind`, an IPv6 address without its brackets."""
        return self.bind.rpartition(":")[0].strip("[]")

    @property
    def bind_port(self) -> int:
        """The port of `bind`; 0: any free one."""
        return int(self.bind.rpartition(":")[2])


def variable_of(field: str) -> str:
    """Answer the variable of a setting."""
    return PREFIX + field.upper()


def flag_of(field: str) -> str:
    """Answer the flag of a setting."""
    return "--" + field.replace("_", "-")


def parse_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Parse the command line after `run`, and the environment.

    Raises SettingsError with every problem; `--help` prints all flags and raises SystemExit, as argparse does.
    """
    problems = list(_unknown_variables(environment))
    by_flag: dict[str, Any] = {}
    try:
        by_flag = _read_flags(arguments)
    except CommandLineError as error:
        problems.append(_see_help(str(error).removeprefix("error parsing CLI: ")))
    if unknown := by_flag.pop("unknown", None):
        problems.append(_see_help(f"there is no {' '.join(unknown)}"))
    try:
        settings = Settings(**{**_read_variables(environment), **by_flag})
    except ValidationError as error:
        problems += _explain(error, frozenset(by_flag))
    if problems:
        raise SettingsError(tuple(problems))
    return settings


class _Flags(Settings):
    """The operator of ServiceLink. A flag goes before its variable, named in brackets; durations are 30s, 15m, 720h."""

    unknown: CliUnknownArgs


for _name, _field in Settings.model_fields.items():
    _Flags.model_fields[_name].description = f"{_field.description} [{variable_of(_name)}]"


def _read_flags(arguments: Sequence[str]) -> dict[str, Any]:
    return CliSettingsSource[Any](
        _Flags,  # type: ignore[arg-type]  # any model has what the source reads; reading variables is done below
        cli_prog_name=PROGRAM,
        cli_parse_args=list(arguments),
        cli_exit_on_error=False,
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_ignore_unknown_args=True,
    )()


def _read_variables(environment: Mapping[str, str]) -> dict[str, Any]:
    source = EnvSettingsSource(Settings, env_prefix=PREFIX)  # type: ignore[arg-type]  # as above
    source.env_vars = {name.lower(): text for name, text in environment.items()}
    return source()


def _unknown_variables(environment: Mapping[str, str]) -> Iterator[str]:
    known = [variable_of(field) for field in Settings.model_fields]
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known and not _INJECTED.fullmatch(name):
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            yield f"{name} is no setting; " + (f"did you mean {close[0]}?" if close else "unset it")


def _explain(error: ValidationError, by_flag: frozenset[str]) -> Iterator[str]:
    for found in error.errors():
        field = str(found["loc"][0])
        origin = flag_of(field) if field in by_flag else variable_of(field)
        said = found["msg"].removeprefix("Value error, ").replace("Input should be", "it should be")
        yield f"{origin} is '{found['input']}': {said}"


def _see_help(problem: str) -> str:
    return f"{problem}; `{PROGRAM} --help` lists the flags"
