"""The kinds that the operator reads and writes, and where the API server serves them."""

from dataclasses import dataclass
from urllib.parse import quote

from servicelink_core.api import names


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind in one version of its group ("" is the core group); `plural` is its resource."""

    group: str
    version: str
    kind: str
    plural: str

    @property
    def api_version(self) -> str:
        """What its objects have in `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """Answer the path of the kind, or of one object, or of its subresource; no namespace: of all, or cluster-wide.

        Raises ValueError for a name that would lead elsewhere.
        """
        root = f"/apis/{self.group}" if self.group else "/api"
        scope = ("namespaces", namespace) if namespace else ()
        tail = (part for part in (name, subresource) if part is not None)
        return "/".join((root, self.version, *(_segment(part) for part in (*scope, self.plural, *tail))))


def _segment(part: str) -> str:
    if part in ("", ".", ".."):
        raise ValueError(f"'{part}' is no name of an object")
    return quote(part, safe=":")


SERVICE_LINK = Kind(names.GROUP, names.VERSION, "ServiceLink", "servicelinks")
SERVICE_LINK_POLICY = Kind(names.GROUP, names.VERSION, "ServiceLinkPolicy", "servicelinkpolicies")
SERVICE = Kind("", "v1", "Service", "services")
NAMESPACE = Kind("", "v1", "Namespace", "namespaces")
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps")
SECRET = Kind("", "v1", "Secret", "secrets")
DEPLOYMENT = Kind("apps", "v1", "Deployment", "deployments")
STATEFUL_SET = Kind("apps", "v1", "StatefulSet", "statefulsets")
DAEMON_SET = Kind("apps", "v1", "DaemonSet", "daemonsets")
CRON_JOB = Kind("batch", "v1", "CronJob", "cronjobs")
LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases")
CUSTOM_RESOURCE_DEFINITION = Kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions")
ADMISSION_POLICY = Kind(
    "admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies"
)
ADMISSION_POLICY_BINDING = Kind(
    "admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"
)
# Questions, put as creations: nothing is stored.
ACCESS_REVIEW = Kind("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews")
SUBJECT_REVIEW = Kind("authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews")

WORKLOADS: dict[str, Kind] = {kind.kind: kind for kind in (DEPLOYMENT, STATEFUL_SET, DAEMON_SET, CRON_JOB)}
