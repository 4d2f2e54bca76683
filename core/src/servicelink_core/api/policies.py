"""A ServiceLinkPolicy, parsed: what the owner of a server says."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from servicelink_contract.binding import DEFAULT_HEADER
from servicelink_contract.rules import Protocol
from servicelink_contract.verifier import Mode
from servicelink_contract.wire import Rule
from servicelink_core.api.fields import Body, Invalid, Reader, parse_time

EVERY_SERVICE = "*"
DEFAULT_GRAPHQL_PATH = "/graphql"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement of a label selector (metav1.LabelSelectorRequirement)."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def met_by(self, labels: Mapping[str, str]) -> bool:
        """Answer whether labels meet it; NotIn is met also where the label is absent, as everywhere in Kubernetes."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels
            case _:
                return False


@dataclass(frozen=True, slots=True)
class Grant:
    """One item of allowFrom. `clients` are (kind, name); None is any; `caps` None leaves every protocol open.

    Once `caps` names a protocol, only the named ones pass, each by its rules.
    """

    namespaces: tuple[str, ...] | None
    selector: tuple[Requirement, ...]
    clients: tuple[tuple[str, str], ...] | None
    credentials: tuple[str, ...] | None
    caps: Mapping[Protocol, tuple[Rule, ...]] | None
    max_rotation_interval: dt.timedelta | None
    expires_at: dt.datetime | None

    def selects(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Answer whether it is about that namespace; a selector without requirements is about none."""
        if self.namespaces is not None:
            return namespace in self.namespaces
        return bool(self.selector) and all(requirement.met_by(labels) for requirement in self.selector)


@dataclass(frozen=True, slots=True)
class Policy:
    """What a server's owner says; `unsupported` names the fields that this release cannot serve."""

    namespace: str
    name: str
    uid: str
    generation: int
    created: dt.datetime
    services: tuple[str, ...]
    mode: Mode
    header: str
    graphql_path: str
    grants: tuple[Grant, ...]
    revoked_kids: frozenset[str]
    injects: bool
    unsupported: tuple[str, ...]

    def names(self, service: str) -> bool:
        """Answer whether it names that Service itself."""
        return service in self.services

    def selects(self, service: str) -> bool:
        """Answer whether it is about that Service, by name or by `*`."""
        return service in self.services or EVERY_SERVICE in self.services


def parse_policy(body: Body) -> Policy | Invalid:
    """Parse a ServiceLinkPolicy as the API server answers it."""
    metadata = body["metadata"]
    spec = Reader(body.get("spec") or {}, "spec")
    policy = Policy(
        namespace=str(metadata["namespace"]),
        name=str(metadata["name"]),
        uid=str(metadata["uid"]),
        generation=int(metadata.get("generation", 0)),
        created=parse_time(metadata["creationTimestamp"]),
        services=spec.names("services"),
        # What is not plainly Audit refuses: an unreadable policy must not open a server.
        mode=Mode.AUDIT if spec.need("mode") == Mode.AUDIT else Mode.ENFORCE,
        header=spec.below("apiKey").take("header", str, "") or DEFAULT_HEADER,
        graphql_path=spec.below("graphql").take("path", str, "") or DEFAULT_GRAPHQL_PATH,
        grants=tuple(_read_grant(item) for item in spec.below_each("allowFrom")),
        revoked_kids=frozenset(spec.names("revokedKids")),
        injects=spec.below("verifier").take("inject", str, "Patch") == "Patch",
        unsupported=("spec.networkPolicy.type: Managed",)
        if spec.below("networkPolicy").body.get("type") == "Managed"
        else (),
    )
    if spec.problems:
        return Invalid(f"{policy.namespace}/{policy.name}", policy.uid, policy.generation, tuple(spec.problems))
    return policy


def _read_grant(item: Reader) -> Grant:
    caps = {protocol: rules for protocol in Protocol if (rules := item.rules(protocol)) is not None}
    clients = item.below_each("clients")
    return Grant(
        namespaces=item.names("namespaces") if item.body.get("namespaces") is not None else None,
        selector=_read_selector(item.below("namespaceSelector")),
        clients=tuple((one.need("kind"), one.need("name")) for one in clients) if "clients" in item.body else None,
        credentials=item.names("credentialTypes") if item.body.get("credentialTypes") is not None else None,
        caps=caps or None,
        max_rotation_interval=item.duration("maxRotationInterval", None),
        expires_at=item.time("expiresAt"),
    )


def _read_selector(selector: Reader) -> tuple[Requirement, ...]:
    labels = selector.take("matchLabels", dict, {})
    equal = [Requirement(key, "In", (value,)) for key, value in sorted(labels.items())]
    return (
        *equal,
        *(
            Requirement(one.need("key"), one.need("operator"), one.names("values"))
            for one in selector.below_each("matchExpressions")
        ),
    )
