"""etcd, API server and controller manager, as the processes of an ordinary user.

TLS everywhere, no anonymous request, `Node,RBAC` authorization; etcd and the front proxy have authorities of their own,
so that no certificate of the cluster's opens the store.
"""

import http.client
import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from devcluster import kubeconfig, pki, processes
from devcluster.cluster import Cluster
from devcluster.ports import reserved
from devcluster.processes import Component
from devcluster.progress import Progress

LOOPBACK = "127.0.0.1"
READY_DEADLINE = 90.0

# One event a request, without bodies: enough to count calls by user, verb, resource and dry run, and no Secret in it.
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [{"level": "Metadata"}],
}


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a control plane listens and which addresses it hands out.

    `host` is the API server's only address. `pods` is a CIDR with a node, empty without; `services` is always a CIDR.
    """

    host: str = LOOPBACK
    services: str = "10.96.0.0/16"
    pods: str = ""

    @property
    def first_service(self) -> str:
        """The ClusterIP of the Service `kubernetes`, by rule the first of the range."""
        return str(ipaddress.ip_network(self.services)[1])


@dataclass(frozen=True, slots=True)
class Certificates:
    """The authorities and key pairs of a control plane."""

    cluster: pki.Authority
    etcd: pki.Authority
    front_proxy: pki.Authority
    service_accounts: pki.KeyPair


class ControlPlane:
    """Starts the components one after the other; each method waits until its component is ready."""

    def __init__(self, cluster: Cluster, addresses: Addresses, progress: Progress, *, audit: bool) -> None:
        self._cluster = cluster
        self._addresses = addresses
        self._progress = progress
        self._audit = audit
        folder = cluster.folder / "pki"
        self.certificates = Certificates(
            cluster=pki.Authority(folder, "ca"),
            etcd=pki.Authority(folder, "etcd-ca"),
            front_proxy=pki.Authority(folder, "front-proxy-ca"),
            service_accounts=pki.service_account_key(folder),
        )
        self._serving = self.certificates.cluster.issue(
            "serving",
            user="system:serving",
            hosts=["localhost", LOOPBACK, addresses.host, addresses.first_service, *_KUBERNETES_NAMES],
        )
        self._server = ""

    def start(self) -> None:
        """Start everything; afterwards the cluster's kubeconfig works.

        Raises DevclusterError with the end of its log when a component does not come up.
        """
        with (
            reserved(LOOPBACK, 3) as (etcd_clients, etcd_peers, controllers),
            reserved(self._addresses.host, 1) as (api,),
        ):
            self._server = f"https://{self._addresses.host}:{api}"
            with self._progress.step("etcd", "starting", done="ready"):
                self._start_etcd(etcd_clients, etcd_peers)
            with self._progress.step("apiserver", "starting", done=f"ready on {self._server}"):
                self._start_api_server(api, etcd_clients)
            with self._progress.step("controllers", "starting", done="ready"):
                self.start_controller("kube-controller-manager", controllers, self._controller_flags())
                # Its health says little: without this ServiceAccount no Pod can be created yet.
                account = ("serviceaccount/default", "--namespace=default")
                self._cluster.kubectl("wait", "--for=create", *account, "--timeout=60s")

    def credentials(self, name: str, *, user: str, groups: Sequence[str] = ()) -> Path:
        """Write a kubeconfig for that user into the cluster's folder; answers its path."""
        pair = self.certificates.cluster.issue(name, user=user, groups=groups)
        ca = self.certificates.cluster.files.certificate
        return kubeconfig.for_certificate(self._cluster.folder / f"{name}.kubeconfig", self._server, ca, pair)

    def start_controller(self, program: str, port: int, flags: Sequence[str]) -> None:
        """Start a component that works on the API server's contents and answers `/healthz` on loopback."""
        config = self.credentials(program, user=f"system:{program}")
        delegated = [
            f"--{flag}={config}" for flag in ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
        ]
        listening = [
            f"--bind-address={LOOPBACK}",
            f"--secure-port={port}",
            "--permit-port-sharing",
            *self._serving_flags(),
        ]
        argv: list[str | Path] = [
            self._cluster.bin / program,
            *delegated,
            *listening,
            "--leader-elect=false",
            "--profiling=false",
            *flags,
        ]
        component = processes.start(self._cluster.folder, program, argv)
        self._wait(component, f"https://{LOOPBACK}:{port}/healthz", self.certificates.cluster)

    def _start_etcd(self, clients: int, peers: int) -> None:
        authority = self.certificates.etcd
        pair = authority.issue("etcd", user="etcd", hosts=["localhost", LOOPBACK])
        client_url, peer_url = f"https://{LOOPBACK}:{clients}", f"https://{LOOPBACK}:{peers}"
        tls = [
            flag
            for prefix in ("", "peer-")
            for flag in (
                f"--{prefix}cert-file={pair.certificate}",
                f"--{prefix}key-file={pair.key}",
                f"--{prefix}trusted-ca-file={authority.files.certificate}",
                f"--{prefix}client-cert-auth",
            )
        ]
        argv: list[str | Path] = [
            self._cluster.bin / "etcd",
            f"--data-dir={self._cluster.folder / 'etcd'}",
            f"--listen-client-urls={client_url}",
            f"--advertise-client-urls={client_url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=default={peer_url}",
            *tls,
            "--socket-reuse-port",
            "--log-level=warn",
            # The data goes with the cluster; syncing each write would only slow every test.
            "--unsafe-no-fsync",
        ]
        component = processes.start(self._cluster.folder, "etcd", argv)
        self._wait(component, f"{client_url}/readyz", authority, pair)

    def _start_api_server(self, port: int, etcd_port: int) -> None:
        argv: list[str | Path] = [
            self._cluster.bin / "kube-apiserver",
            f"--bind-address={self._addresses.host}",
            f"--secure-port={port}",
            "--permit-port-sharing",
            *self._serving_flags(),
            *self._identity_flags(),
            *self._etcd_flags(etcd_port),
            *self._network_flags(),
            *self._audit_flags(),
            "--allow-privileged=true",
            "--profiling=false",
        ]
        component = processes.start(self._cluster.folder, "kube-apiserver", argv)
        admin = self.certificates.cluster.issue("admin", user="devcluster-admin", groups=["system:masters"])
        authority = self.certificates.cluster
        self._wait(component, f"{self._server}/readyz", authority, admin)
        kubeconfig.for_certificate(self._cluster.kubeconfig, self._server, authority.files.certificate, admin)

    def _serving_flags(self) -> list[str]:
        return [f"--tls-cert-file={self._serving.certificate}", f"--tls-private-key-file={self._serving.key}"]

    def _identity_flags(self) -> list[str]:
        proxy = self.certificates.front_proxy
        proxy_client = proxy.issue("front-proxy", user="front-proxy")
        accounts = self.certificates.service_accounts
        return [
            "--anonymous-auth=false",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--client-ca-file={self.certificates.cluster.files.certificate}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={accounts.certificate}",
            f"--service-account-signing-key-file={accounts.key}",
            f"--requestheader-client-ca-file={proxy.files.certificate}",
            "--requestheader-allowed-names=front-proxy",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={proxy_client.certificate}",
            f"--proxy-client-key-file={proxy_client.key}",
        ]

    def _etcd_flags(self, port: int) -> list[str]:
        authority = self.certificates.etcd
        pair = authority.issue("etcd-client", user="kube-apiserver")
        return [
            f"--etcd-servers=https://{LOOPBACK}:{port}",
            f"--etcd-cafile={authority.files.certificate}",
            f"--etcd-certfile={pair.certificate}",
            f"--etcd-keyfile={pair.key}",
        ]

    def _network_flags(self) -> list[str]:
        services = f"--service-cluster-ip-range={self._addresses.services}"
        if not self._addresses.pods:
            # Nobody could reach an API server on loopback through the Service `kubernetes`, so it gets no endpoints.
            return [services, "--endpoint-reconciler-type=none"]
        pair = self.certificates.cluster.issue("kubelet-client", user="kube-apiserver-kubelet-client")
        return [
            services,
            f"--advertise-address={self._addresses.host}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-certificate-authority={self.certificates.cluster.files.certificate}",
            f"--kubelet-client-certificate={pair.certificate}",
            f"--kubelet-client-key={pair.key}",
        ]

    def _audit_flags(self) -> list[str]:
        if not self._audit:
            return []
        policy = self._cluster.folder / "audit-policy.yaml"
        policy.write_text(yaml.safe_dump(AUDIT_POLICY))
        # One file for the cluster's whole life (megabytes): a rotated log could not be counted between two points.
        log = [f"--audit-log-path={self._cluster.audit_log}", "--audit-log-maxsize=100000"]
        return [f"--audit-policy-file={policy}", *log]

    def _controller_flags(self) -> list[str]:
        ca = self.certificates.cluster.files
        pods = self._addresses.pods
        return [
            "--use-service-account-credentials=true",
            # At the default of 20 a second, the controllers' own first requests take five seconds.
            "--kube-api-qps=200",
            "--kube-api-burst=400",
            f"--service-account-private-key-file={self.certificates.service_accounts.key}",
            f"--root-ca-file={ca.certificate}",
            f"--cluster-signing-cert-file={ca.certificate}",
            f"--cluster-signing-key-file={ca.key}",
            *([f"--cluster-cidr={pods}", "--allocate-node-cidrs=true", "--node-cidr-mask-size=24"] if pods else []),
        ]

    def _wait(
        self, component: Component, url: str, authority: pki.Authority, client: pki.KeyPair | None = None
    ) -> None:
        context = ssl.create_default_context(cafile=str(authority.files.certificate))
        if client:
            context.load_cert_chain(client.certificate, client.key)
        processes.wait_ready(component, lambda: _answers(url, context), deadline=READY_DEADLINE)


_KUBERNETES_NAMES = tuple(
    f"kubernetes{rest}" for rest in ("", ".default", ".default.svc", ".default.svc.cluster.local")
)


def _answers(url: str, context: ssl.SSLContext) -> bool:
    host, _, path = url.removeprefix("https://").partition("/")
    connection = http.client.HTTPSConnection(host, context=context, timeout=5)
    try:
        connection.request("GET", f"/{path}")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()
