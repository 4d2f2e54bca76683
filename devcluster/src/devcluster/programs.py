"""Which programs there are: each one's Go module, package, version and what its build takes.

A module is a folder below `gomodules/` with a committed go.mod and go.sum; `pin.sh` writes them. A program's
fingerprint covers both files and the flags, so that a changed pin is another program and never a stale one.
"""

import hashlib
import platform
from dataclasses import dataclass
from pathlib import Path

GO_MODULES = Path(__file__).parent / "gomodules"

CONTROL_PLANE_PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
CNI_PLUGINS = ("ptp", "loopback", "host-local", "portmap")
NODE_PROGRAMS = (
    *("kube-scheduler", "kubelet", "kube-proxy", "containerd", "containerd-shim-runc-v2", "ctr"),
    *(*CNI_PLUGINS, "coredns", "pause"),
)
TOOLS = ("kubectl", "helm", "helm3", "kubeconform", "promtool", "helm-unittest", "grpcurl")


@dataclass(frozen=True, slots=True)
class Program:
    """One program to build: `package` is its Go import path, `expected` a rough first build time on two cores."""

    name: str
    module: str
    version: str
    package: str
    expected: str
    linker_flags: str = "-s -w"
    tags: str = ""

    @property
    def source(self) -> Path:
        """The folder with the go.mod to build in."""
        return GO_MODULES / self.module

    @property
    def folder_name(self) -> str:
        """The cache folder shared by the programs of this module, version and fingerprint."""
        stem = self.module.removesuffix(f"-{self.version}")
        return f"{stem}-{self.version}-{self._fingerprint()}"

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(f"{self.linker_flags} {self.tags} {platform.system()} {platform.machine()}".encode())
        for path in sorted(self.source.iterdir()):
            digest.update(path.read_bytes())
        return digest.hexdigest()[:8]


def kubernetes_versions() -> tuple[str, ...]:
    """Answer the Kubernetes releases that have a committed go.mod, newest first."""
    found = [path.name.removeprefix("kubernetes-") for path in GO_MODULES.glob("kubernetes-*")]
    return tuple(sorted(found, key=lambda version: [int(part) for part in version.split(".")], reverse=True))


def programs(kubernetes_version: str) -> dict[str, Program]:
    """Answer every program by name, the Kubernetes ones at that version."""
    table = (*_kubernetes(kubernetes_version), *_REST)
    return {program.name: program for program in table}


def _kubernetes(version: str) -> tuple[Program, ...]:
    # Without these stamps the server calls itself v0.0.0, and clients that compare versions misbehave.
    stamps = [
        f"-X {package}/version.gitVersion=v{version}" for package in ("k8s.io/component-base", "k8s.io/client-go/pkg")
    ]
    expected = {
        "kube-apiserver": "about 6 min",
        "kube-controller-manager": "about 2 min",
        "kubectl": "about 30 s",
        "kube-scheduler": "about 15 s",
        "kubelet": "about 30 s",
        "kube-proxy": "about 15 s",
    }
    return tuple(
        Program(
            name=name,
            module=f"kubernetes-{version}",
            version=version,
            package=f"k8s.io/kubernetes/cmd/{name}",
            expected=takes,
            linker_flags=" ".join(("-s -w", *stamps)),
        )
        for name, takes in expected.items()
    )


def _containerd(name: str, expected: str) -> Program:
    return Program(name, "containerd", "2.4.2", f"github.com/containerd/containerd/v2/cmd/{name}", expected)


def _cni(name: str, kind: str) -> Program:
    return Program(name, "cni", "1.9.1", f"github.com/containernetworking/plugins/plugins/{kind}/{name}", "about 5 s")


def _tool(name: str, version: str, package: str, *, stamp: str, expected: str) -> Program:
    """A tool whose own build stamps its version into a variable."""
    return Program(name, name, version, package, expected, f"-s -w -X {stamp}")


_REST = (
    Program("etcd", "etcd", "3.7.3", "go.etcd.io/etcd/server/v3", "about 30 s"),
    _containerd("containerd", "about 1 min"),
    _containerd("containerd-shim-runc-v2", "about 5 s"),
    _containerd("ctr", "about 5 s"),
    _cni("ptp", "main"),
    _cni("loopback", "main"),
    _cni("host-local", "ipam"),
    _cni("portmap", "meta"),
    Program("coredns", "coredns", "1.15.0", "github.com/coredns/coredns", "about 3 min"),
    Program("pause", "pause", "1.0.0", ".", "about 2 s"),
    _tool(
        "helm",
        "4.3.1",
        "helm.sh/helm/v4/cmd/helm",
        stamp="helm.sh/helm/v4/internal/version.version=v4.3.1",
        expected="about 2 min",
    ),
    _tool(
        "helm3",
        "3.22.0",
        "helm.sh/helm/v3/cmd/helm",
        stamp="helm.sh/helm/v3/internal/version.version=v3.22.0",
        expected="about 1 min",
    ),
    _tool(
        "kubeconform",
        "0.8.0",
        "github.com/yannh/kubeconform/cmd/kubeconform",
        stamp="main.version=v0.8.0",
        expected="about 5 s",
    ),
    _tool(
        "grpcurl",
        "1.9.4",
        "github.com/fullstorydev/grpcurl/cmd/grpcurl",
        stamp="main.version=v1.9.4",
        expected="about 30 s",
    ),
    _tool(
        "helm-unittest",
        "1.1.2",
        "github.com/helm-unittest/helm-unittest/cmd/helm-unittest",
        stamp="github.com/helm-unittest/helm-unittest/internal/build.version=1.1.2",
        expected="about 30 s",
    ),
    Program(
        name="promtool",
        module="promtool",
        version="0.315.0",
        package="github.com/prometheus/prometheus/cmd/promtool",
        expected="about 3 min",
        linker_flags="-s -w -X github.com/prometheus/common/version.Version=0.315.0",
        # Service discovery for two dozen clouds is most of the build, and rule checks and tests need none of it.
        tags="remove_all_sd",
    ),
)
