"""Finding the server's port, and the address that a client calls."""

from collections.abc import Sequence
from dataclasses import dataclass

from servicelink_contract.rules import Protocol
from servicelink_core.api.links import Link
from servicelink_core.api.objects import EXTERNAL_NAME, Service, ServicePort, Workload
from servicelink_core.api.reasons import Reason

# The Pods' port is not known: a named one that no known container declares. A verifier then binds to no port.
ANY_PORT = 0
_SCHEMES = {Protocol.REST: "http", Protocol.GRPC: "grpc", Protocol.GRAPHQL: "http"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the server is called; `pod_port` is the port that its Pods listen on."""

    uri: str
    host: str
    port: int
    pod_port: int

    @property
    def address(self) -> str:
        """Answer host:port."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Why there is no endpoint."""

    reason: Reason
    message: str


def resolve_endpoint(
    link: Link, service: Service | None, behind: Sequence[Workload], graphql_path: str
) -> Endpoint | Unresolved:
    """Answer where the link's server is called; `behind` are the workloads that the Service selects."""
    listing = f"kubectl get service -n {link.server.namespace}"
    if service is None:
        return Unresolved(
            Reason.SERVER_NOT_FOUND, f"there is no Service {link.server}; `{listing}` lists what is there"
        )
    if service.type == EXTERNAL_NAME:
        return Unresolved(
            Reason.EXTERNAL_NAME_NOT_ALLOWED,
            f"Service {link.server} is of type ExternalName, which could send the key anywhere; link to one with Pods",
        )
    port = _choose_port(link, service)
    if isinstance(port, Unresolved):
        return port
    path = graphql_path if link.protocol is Protocol.GRAPHQL else ""
    return _endpoint(service, port, _pod_port(port, behind), f"{_SCHEMES[link.protocol]}://{{}}{path}")


def _choose_port(link: Link, service: Service) -> ServicePort | Unresolved:
    has = ", ".join(f"{port.name or '(no name)'} {port.number}" for port in service.ports) or "none"
    if link.port is None and len(service.ports) == 1:
        return service.ports[0]
    if link.port is None and service.ports:
        return Unresolved(
            Reason.PORT_AMBIGUOUS, f"Service {link.server} has several ports ({has}); name one in spec.server.port"
        )
    for port in service.ports:
        if link.port in (port.name, port.number):
            return port
    asked = "" if link.port is None else f" {link.port}"
    return Unresolved(
        Reason.PORT_NOT_FOUND, f"Service {link.server} has no port{asked}; it has {has}; set spec.server.port"
    )


def _endpoint(service: Service, port: ServicePort, pod_port: int, form: str) -> Endpoint:
    # A headless Service's name is its Pods' addresses: nobody maps the Service's port to theirs.
    number = pod_port if service.headless and pod_port != ANY_PORT else port.number
    host = f"{service.ref.name}.{service.ref.namespace}.svc"
    return Endpoint(form.format(f"{host}:{number}"), host, number, pod_port)


def _pod_port(port: ServicePort, behind: Sequence[Workload]) -> int:
    if isinstance(port.target, int):
        return port.target
    numbers = {number for workload in behind for number in workload.ports_named(port.target)}
    return numbers.pop() if len(numbers) == 1 else ANY_PORT
