"""Condition types and reasons of ServiceLink and ServiceLinkPolicy: each a constant with a sentence.

`docs/reference/reasons.md` is generated from this module, one heading per reason, so that a message can link to it.
A reason is part of the API: alerts and scripts match it, so it is never renamed, only added or retired.
"""

from dataclasses import dataclass
from enum import StrEnum


class ConditionType(StrEnum):
    """What a condition is about."""

    ACCEPTED = "Accepted"
    PERMITTED = "Permitted"
    RESOLVED = "Resolved"
    ISSUED = "Issued"
    INJECTED = "Injected"
    ROLLED_OUT = "RolledOut"
    ENFORCED = "Enforced"
    HEALTHY = "Healthy"
    ROTATED = "Rotated"
    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


MEANINGS = {
    ConditionType.ACCEPTED: "The spec is valid and this release serves it.",
    ConditionType.PERMITTED: "The server's owner consents. Judged before the server is looked at.",
    ConditionType.RESOLVED: "Client, server and port are found. Unknown without consent.",
    ConditionType.ISSUED: "The current credential stands on both ends, and the server has it.",
    ConditionType.INJECTED: "The client's pod template carries the binding.",
    ConditionType.ROLLED_OUT: "The client's Pods run that template. No part of Ready.",
    ConditionType.ENFORCED: "Somebody refuses calls without a link.",
    ConditionType.HEALTHY: "The last probes or calls were good. No part of Ready: a peer's outage turns no deploy red.",
    ConditionType.ROTATED: "No rotation is overdue.",
    ConditionType.READY: "The operator has kept its promise: Accepted, Permitted, Resolved, Issued and Injected.",
    ConditionType.RECONCILING: "Present only while the operator works.",
    ConditionType.STALLED: "Present only while nothing but the user can go on.",
}


class Reason(StrEnum):
    """Why a condition has its status."""

    # When the condition is True.
    ACCEPTED = "Accepted"
    SAME_NAMESPACE = "SameNamespace"
    GRANTED = "Granted"
    RESOLVED = "Resolved"
    ISSUED = "Issued"
    INJECTED = "Injected"
    NOT_REQUESTED = "NotRequested"
    ROLLED_OUT = "RolledOut"
    ENFORCED = "Enforced"
    SERVING = "Serving"
    UP_TO_DATE = "UpToDate"
    ACTIVE = "Active"
    ROTATING = "Rotating"
    # Accepted.
    INVALID_SPEC = "InvalidSpec"
    NOT_SUPPORTED = "NotSupported"
    CONFLICTED = "Conflicted"
    OUT_OF_SCOPE = "OutOfScope"
    NAMESPACE_TERMINATING = "NamespaceTerminating"
    LIMIT_EXCEEDED = "LimitExceeded"
    # Permitted.
    REF_NOT_PERMITTED = "RefNotPermitted"
    GRANT_EXPIRED = "GrantExpired"
    EXCEEDS_GRANT = "ExceedsGrant"
    # Resolved.
    NOT_EVALUATED = "NotEvaluated"
    CLIENT_NOT_FOUND = "ClientNotFound"
    SERVER_NOT_FOUND = "ServerNotFound"
    PORT_NOT_FOUND = "PortNotFound"
    PORT_AMBIGUOUS = "PortAmbiguous"
    EXTERNAL_NAME_NOT_ALLOWED = "ExternalNameNotAllowed"
    # Issued.
    ISSUING = "Issuing"
    PROPAGATING = "Propagating"
    SECRET_CONFLICT = "SecretConflict"  # noqa: S105 (a reason, not a password)
    VERIFIER_CONFLICT = "VerifierConflict"
    VERIFIER_FULL = "VerifierFull"
    AUTHORITY_NOT_READY = "AuthorityNotReady"
    FORBIDDEN = "Forbidden"
    # Injected.
    INJECTING = "Injecting"
    INJECTION_CONFLICT = "InjectionConflict"
    # RolledOut.
    ROLLOUT_PENDING = "RolloutPending"
    ROLLOUT_FAILED = "RolloutFailed"
    ROLLED_BACK = "RolledBack"
    PAUSED = "Paused"
    SCALED_TO_ZERO = "ScaledToZero"
    # Enforced.
    AUDIT_MODE = "AuditMode"
    NO_ENFORCER = "NoEnforcer"
    ENFORCER_ERROR = "EnforcerError"
    # Healthy.
    NOT_SERVED = "NotServed"
    NO_TRAFFIC = "NoTraffic"
    DNS_FAILED = "DNSFailed"
    CONNECT_REFUSED = "ConnectRefused"
    TIMEOUT = "Timeout"
    TLS_UNTRUSTED = "TLSUntrusted"
    CREDENTIAL_REJECTED = "CredentialRejected"
    NOT_AUTHORIZED = "NotAuthorized"
    SERVER_ERROR = "ServerError"
    # Rotated.
    ROTATION_OVERDUE = "RotationOverdue"
    ROTATION_FAILED = "RotationFailed"


@dataclass(frozen=True, slots=True)
class Meaning:
    """Where a reason stands, what it says, and what its reader does about it ("" where there is nothing to do)."""

    conditions: tuple[ConditionType, ...]
    sentence: str
    mend: str = ""


_C = ConditionType
REASONS: dict[Reason, Meaning] = {
    Reason.ACCEPTED: Meaning((_C.ACCEPTED,), "The spec is valid and this release serves it."),
    Reason.SAME_NAMESPACE: Meaning((_C.PERMITTED,), "Client and server share a namespace, which needs no consent."),
    Reason.GRANTED: Meaning((_C.PERMITTED,), "A ServiceLinkPolicy in the server's namespace allows the link."),
    Reason.RESOLVED: Meaning((_C.RESOLVED,), "Client, server and port are found."),
    Reason.ISSUED: Meaning((_C.ISSUED,), "The current credential stands on both ends."),
    Reason.INJECTED: Meaning((_C.INJECTED,), "The client's pod template carries the binding."),
    Reason.NOT_REQUESTED: Meaning(
        (_C.INJECTED, _C.ROLLED_OUT), "binding.inject is None: you reference the binding Secret yourself."
    ),
    Reason.ROLLED_OUT: Meaning((_C.ROLLED_OUT,), "The client's Pods run the template that carries the binding."),
    Reason.ENFORCED: Meaning((_C.ENFORCED,), "The server refuses calls without a link."),
    Reason.SERVING: Meaning((_C.HEALTHY,), "The last probes or calls were good."),
    Reason.UP_TO_DATE: Meaning((_C.ROTATED,), "No rotation is overdue."),
    Reason.ACTIVE: Meaning((_C.READY,), "The link works as declared."),
    Reason.ROTATING: Meaning((_C.READY,), "The link works as declared, and a rotation is under way."),
    Reason.INVALID_SPEC: Meaning(
        (_C.ACCEPTED,), "The spec says something that no release can serve.", "Change the field that the message names."
    ),
    Reason.NOT_SUPPORTED: Meaning(
        (_C.ACCEPTED,),
        "The spec asks for something that this release does not serve yet.",
        "Leave the field that the message names out, or upgrade to a release that serves it.",
    ),
    Reason.CONFLICTED: Meaning(
        (_C.ACCEPTED,),
        "Two links would write the same variable, path or Secret, or two policies disagree about a Service.",
        "Change one of the two; the one that was recorded first keeps the name.",
    ),
    Reason.OUT_OF_SCOPE: Meaning(
        (_C.ACCEPTED,),
        "The operator does not watch this namespace, or the server's.",
        "Add the namespace to the operator's setting watch.namespaces.",
    ),
    Reason.NAMESPACE_TERMINATING: Meaning(
        (_C.ACCEPTED,), "The namespace is being deleted.", "Nothing; the link goes with it."
    ),
    Reason.LIMIT_EXCEEDED: Meaning(
        (_C.ACCEPTED,),
        "The links of this namespace take more than one namespace may; those that were accepted before stay so.",
        "Delete or shorten links of the namespace, or raise the operator's setting that the message names.",
    ),
    Reason.REF_NOT_PERMITTED: Meaning(
        (_C.PERMITTED,),
        "No policy of the server's namespace allows this link; whether the server exists is not said.",
        "Ask the server's owner for an allowFrom item in a ServiceLinkPolicy.",
    ),
    Reason.GRANT_EXPIRED: Meaning(
        (_C.PERMITTED,),
        "The consent that allowed this link has expired.",
        "Ask the server's owner to move expiresAt of the allowFrom item.",
    ),
    Reason.EXCEEDS_GRANT: Meaning(
        (_C.PERMITTED,),
        "Consent is given, but not for this kind of credential, protocol or rotation interval.",
        "Change the link to what the policy allows, or ask its owner to allow more.",
    ),
    Reason.NOT_EVALUATED: Meaning(
        (_C.PERMITTED, _C.RESOLVED, _C.ISSUED, _C.INJECTED, _C.ROLLED_OUT, _C.ENFORCED),
        "Not looked at, because a condition before it does not hold; without consent the server is not looked at.",
    ),
    Reason.CLIENT_NOT_FOUND: Meaning(
        (_C.RESOLVED,),
        "There is no such workload in the link's namespace.",
        "Create it, or mend spec.client; the link goes on by itself.",
    ),
    Reason.SERVER_NOT_FOUND: Meaning(
        (_C.RESOLVED,),
        "There is no such Service.",
        "Create it, or mend spec.server; the link goes on by itself.",
    ),
    Reason.PORT_NOT_FOUND: Meaning(
        (_C.RESOLVED,), "The Service has no such port.", "Set spec.server.port to one of the ports that it has."
    ),
    Reason.PORT_AMBIGUOUS: Meaning(
        (_C.RESOLVED,), "The Service has several ports.", "Name one of them in spec.server.port."
    ),
    Reason.EXTERNAL_NAME_NOT_ALLOWED: Meaning(
        (_C.RESOLVED,),
        "The Service is of type ExternalName: its owner could send the credential anywhere.",
        "Link to a Service with Pods of its own.",
    ),
    Reason.ISSUING: Meaning((_C.ISSUED,), "The credential is being issued."),
    Reason.PROPAGATING: Meaning(
        (_C.ISSUED,), "The credential is issued, and its server is given time to learn of it before the client is."
    ),
    Reason.SECRET_CONFLICT: Meaning(
        (_C.ISSUED,),
        "A Secret of the binding's name exists and is not this link's; it is left alone.",
        "Set spec.binding.secretName to another name, or delete that Secret if nobody needs it.",
    ),
    Reason.VERIFIER_CONFLICT: Meaning(
        (_C.ISSUED,),
        "A ConfigMap of the verifier's name exists and is not the operator's; it is left alone.",
        "Delete or rename that ConfigMap in the server's namespace.",
    ),
    Reason.VERIFIER_FULL: Meaning(
        (_C.ISSUED,),
        "The server's verifier, at most eight ConfigMaps, has no room for another link.",
        "Write the rules of links to that server shorter (patterns such as /v1/**), or delete links.",
    ),
    Reason.AUTHORITY_NOT_READY: Meaning(
        (_C.ISSUED,), "The authority that signs certificates is not ready.", "Look at the operator's readiness."
    ),
    Reason.FORBIDDEN: Meaning(
        (_C.ISSUED, _C.INJECTED),
        "The API server refused the operator a write.",
        "Give the operator the right that the message names, or remove the policy that forbids it.",
    ),
    Reason.INJECTING: Meaning(
        (_C.INJECTED,),
        "The client's template gets the binding once all of the client's links have their keys, so that it rolls once.",
    ),
    Reason.INJECTION_CONFLICT: Meaning(
        (_C.INJECTED,),
        "The client's template already uses a name or path that the binding needs, or that nobody may set. Secrets "
        "that it imports whole (envFrom) are not looked at: of one name, the link's variable wins.",
        "Change spec.binding (envPrefix, env), or the template.",
    ),
    Reason.ROLLOUT_PENDING: Meaning((_C.ROLLED_OUT,), "The client's Pods are being replaced."),
    Reason.ROLLOUT_FAILED: Meaning(
        (_C.ROLLED_OUT,), "The client's new Pods do not become ready.", "Look at the client's Pods and their events."
    ),
    Reason.ROLLED_BACK: Meaning(
        (_C.ROLLED_OUT,),
        "A rollout of the client failed and was taken back; the previous credential still works.",
        "Look at why the new Pods did not become ready.",
    ),
    Reason.PAUSED: Meaning((_C.ROLLED_OUT,), "The client's rollout is paused.", "Resume it: kubectl rollout resume."),
    Reason.SCALED_TO_ZERO: Meaning((_C.ROLLED_OUT,), "The client has no Pods; new ones get the binding."),
    Reason.AUDIT_MODE: Meaning(
        (_C.ENFORCED,),
        "Calls without a link are counted and let through.",
        "When status.audit shows none that should pass, set mode: Enforce in a ServiceLinkPolicy.",
    ),
    Reason.NO_ENFORCER: Meaning(
        (_C.ENFORCED,),
        "The policy says Enforce, but nothing in the server checks calls.",
        "Add the SDK's middleware to the server.",
    ),
    Reason.ENFORCER_ERROR: Meaning(
        (_C.ENFORCED,), "What checks the server's calls reports an error.", "Look at the server's log."
    ),
    Reason.NOT_SERVED: Meaning(
        (_C.HEALTHY, _C.ROTATED, _C.ENFORCED),
        "This release does not probe or rotate yet, nor hears from servers whether they check calls.",
    ),
    Reason.NO_TRAFFIC: Meaning((_C.HEALTHY,), "Nobody probes or calls, so nothing is known."),
    Reason.DNS_FAILED: Meaning((_C.HEALTHY,), "The server's name does not resolve.", "Look at the cluster's DNS."),
    Reason.CONNECT_REFUSED: Meaning(
        (_C.HEALTHY,), "The server's Pods refuse connections.", "Look at the server's Pods and the port they listen on."
    ),
    Reason.TIMEOUT: Meaning(
        (_C.HEALTHY,), "The server does not answer in time.", "Look at the server's load, or at health.probe.timeout."
    ),
    Reason.TLS_UNTRUSTED: Meaning(
        (_C.HEALTHY,),
        "The server's certificate is not the operator's, or has expired.",
        "Look at which certificate the server serves.",
    ),
    Reason.CREDENTIAL_REJECTED: Meaning(
        (_C.HEALTHY,), "The server does not accept the link's credential.", "Look at which verifier the server reads."
    ),
    Reason.NOT_AUTHORIZED: Meaning(
        (_C.HEALTHY,),
        "The server knows the link and does not allow it this call.",
        "Allow the probe's path.",
    ),
    Reason.SERVER_ERROR: Meaning((_C.HEALTHY,), "The server answers with an error of its own.", "Look at its log."),
    Reason.ROTATION_OVERDUE: Meaning(
        (_C.ROTATED,),
        "A rotation cannot finish: somebody still uses the previous credential, whom the message names.",
        "Restart the client's Pods that it names, or set rotation.maxOverlap.",
    ),
    Reason.ROTATION_FAILED: Meaning(
        (_C.ROTATED,), "A rotation was given up; the current credential still works.", "Look at what the message names."
    ),
}


def render_reference() -> str:
    """Render the reference page of all conditions and reasons, in Markdown."""
    conditions = "\n".join(f"| `{kind}` | {MEANINGS[kind]} |" for kind in ConditionType)
    reasons = "\n\n".join(_render(reason, meaning) for reason, meaning in REASONS.items())
    return f"""# Conditions and reasons

Generated from `servicelink_core.api.reasons`; `make reference` writes it again.

| condition | True means |
|---|---|
{conditions}

`Ready` copies the first reason that is not as it should be. Reasons are part of the API: none is renamed.

{reasons}
"""


def _render(reason: Reason, meaning: Meaning) -> str:
    where = " and ".join(f"`{kind}`" for kind in meaning.conditions)
    lines = [f"## {reason}", f"In {where}. {meaning.sentence}"]
    return "\n\n".join([*lines, f"**Mend:** {meaning.mend}"] if meaning.mend else lines)
