"""A ServiceLink, parsed: `parse_link` answers a Link that cannot be wrong, or every problem with its field path."""

import datetime as dt
from dataclasses import dataclass
from enum import StrEnum

from servicelink_contract.rules import Protocol
from servicelink_contract.wire import Rule
from servicelink_core.api.fields import Body, Invalid, Reader, parse_time
from servicelink_core.api.names import variable_prefix


class CredentialType(StrEnum):
    """What the client proves itself with."""

    API_KEY = "APIKey"
    MTLS = "MTLS"


class Delivery(StrEnum):
    """Whether the key is also put into a variable."""

    FILES = "Files"
    ENV = "Env"


class Inject(StrEnum):
    """How the binding gets into the client's pod template."""

    PATCH = "Patch"
    NONE = "None"
    ADMISSION = "Admission"


@dataclass(frozen=True, slots=True, order=True)
class WorkloadRef:
    """A workload: namespace, kind and name."""

    namespace: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, order=True)
class ServiceRef:
    """A Service: namespace and name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Rotation:
    """When the credential is renewed; the durations are those of the spec."""

    manual: bool
    interval: dt.timedelta
    overlap: dt.timedelta


@dataclass(frozen=True, slots=True)
class ExtraVariable:
    """A further variable, from a key of the binding that is not secret."""

    name: str
    key: str


@dataclass(frozen=True, slots=True)
class Binding:
    """How the client is handed what it needs."""

    secret_name: str
    prefix: str
    extra: tuple[ExtraVariable, ...]
    delivery: Delivery
    inject: Inject


@dataclass(frozen=True, slots=True)
class Resilience:
    """What the SDK does about slow and failing calls; times in seconds."""

    timeout: float = 5.0
    retries: int = 2
    breaker_failures: int = 5
    breaker_open_for: float = 30.0


@dataclass(frozen=True, slots=True)
class Link:
    """One arrow. `port` is a name, a number or None; `allow` None allows the whole service.

    `unsupported` names the fields that ask for what this release cannot do, with what they say.
    """

    namespace: str
    name: str
    uid: str
    generation: int
    created: dt.datetime
    deleting: bool
    client: WorkloadRef
    containers: tuple[str, ...]
    server: ServiceRef
    port: str | int | None
    protocol: Protocol
    allow: tuple[Rule, ...] | None
    credential: CredentialType
    rotation: Rotation
    suspend: bool
    binding: Binding
    resilience: Resilience
    unsupported: tuple[str, ...]

    @property
    def full_name(self) -> str:
        """Answer namespace/name."""
        return f"{self.namespace}/{self.name}"


_DEFAULT_INTERVAL = dt.timedelta(hours=720)
_DEFAULT_OVERLAP = dt.timedelta(minutes=15)


def parse_link(body: Body) -> Link | Invalid:
    """Parse a ServiceLink as the API server answers it."""
    metadata = body["metadata"]
    spec = Reader(body.get("spec") or {}, "spec")
    link = _read(metadata, spec)
    if not spec.problems:
        return link
    return Invalid(link.full_name, link.uid, link.generation, tuple(spec.problems))


def _read(metadata: Body, spec: Reader) -> Link:
    namespace = str(metadata["namespace"])
    server = _read_server(spec, namespace)
    protocol = _read_protocol(spec)
    client = spec.below("client")
    return Link(
        namespace=namespace,
        name=str(metadata["name"]),
        uid=str(metadata["uid"]),
        generation=int(metadata.get("generation", 0)),
        created=parse_time(metadata["creationTimestamp"]),
        deleting="deletionTimestamp" in metadata,
        client=WorkloadRef(namespace, client.need("kind"), client.need("name")),
        containers=client.names("containers"),
        server=server,
        port=_read_port(spec),
        protocol=protocol,
        allow=spec.rules(protocol),
        credential=_read_credential(spec),
        rotation=_read_rotation(spec.below("rotation")),
        suspend=spec.take("suspend", bool, default=False),
        binding=_read_binding(spec.below("binding"), str(metadata["name"]), server.name),
        resilience=_read_resilience(spec.below("resilience")),
        unsupported=tuple(_unsupported(spec)),
    )


def _read_server(spec: Reader, namespace: str) -> ServiceRef:
    if spec.body.get("external") is not None:
        return ServiceRef(namespace, "external")
    server = spec.below("server")
    return ServiceRef(server.take("namespace", str, "") or namespace, server.need("name"))


def _read_port(spec: Reader) -> str | int | None:
    port = spec.below("server").body.get("port")
    if isinstance(port, str) and port.isdecimal():
        return int(port)
    return port if isinstance(port, str | int) else None


def _read_protocol(spec: Reader) -> Protocol:
    try:
        return Protocol(spec.need("protocol"))
    except ValueError:
        spec.note("protocol", f"'{spec.body.get('protocol')}' is none of {', '.join(Protocol)}")
        return Protocol.REST


def _read_credential(spec: Reader) -> CredentialType:
    kind = spec.below("credential").take("type", str, CredentialType.API_KEY)
    return CredentialType.MTLS if kind == CredentialType.MTLS else CredentialType.API_KEY


def _read_rotation(rotation: Reader) -> Rotation:
    return Rotation(
        manual=rotation.take("schedule", str, "Interval") == "Manual",
        interval=rotation.duration("interval", _DEFAULT_INTERVAL) or _DEFAULT_INTERVAL,
        overlap=rotation.duration("overlap", _DEFAULT_OVERLAP) or _DEFAULT_OVERLAP,
    )


def _read_binding(binding: Reader, link: str, server: str) -> Binding:
    return Binding(
        secret_name=binding.take("secretName", str, "") or link,
        prefix=binding.take("envPrefix", str, "") or variable_prefix(server),
        extra=tuple(ExtraVariable(one.need("name"), one.need("key")) for one in binding.below_each("env")),
        delivery=Delivery.ENV if binding.take("delivery", str, "") == Delivery.ENV else Delivery.FILES,
        inject=_read_inject(binding),
    )


def _read_inject(binding: Reader) -> Inject:
    text = binding.take("inject", str, str(Inject.PATCH))
    try:
        return Inject(text)
    except ValueError:
        binding.note("inject", f"'{text}' is none of {', '.join(Inject)}")
        return Inject.NONE


def _read_resilience(resilience: Reader) -> Resilience:
    default, breaker = Resilience(), resilience.below("circuitBreaker")
    timeout, open_for = resilience.duration("timeout", None), breaker.duration("openFor", None)
    return Resilience(
        timeout=timeout.total_seconds() if timeout else default.timeout,
        retries=resilience.take("retries", int, default.retries),
        breaker_failures=breaker.take("failures", int, default.breaker_failures),
        breaker_open_for=open_for.total_seconds() if open_for else default.breaker_open_for,
    )


def _unsupported(spec: Reader) -> list[str]:
    """Name what the schema admits and this release cannot do at all; doing less in silence would be worse."""
    found = []
    if spec.body.get("external") is not None:
        found.append("spec.external")
    if spec.below("credential").body.get("type") == CredentialType.MTLS:
        found.append("spec.credential.type: MTLS")
    if spec.below("binding").body.get("inject") == Inject.ADMISSION:
        found.append("spec.binding.inject: Admission")
    rotation = spec.below("rotation").body
    found.extend(f"spec.rotation.{name}" for name in ("rotateAt", "revokeAt") if rotation.get(name) is not None)
    return found
