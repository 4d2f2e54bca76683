"""The errors that outcomes become, alike for the three protocols."""

from typing import Any

from servicelink.calls.call import Call, Outcome, Result
from servicelink.errors import InvalidServiceAuth, PermissionDenied, ServiceError, ServiceTimeout, ServiceUnavailable

MORE_TIME = "Ask for more time with timeout=, or look why the server is slow"


def where(call: Call, next_step: str) -> dict[str, Any]:
    """Answer what every error of a call says beside its problem."""
    return {"link": call.link, "operation": call.operation, "request_id": call.request_id, "next_step": next_step}


def tell_end(outcome: Outcome) -> str:
    """Answer in words how an attempt ended that is no success."""
    code = f" {outcome.code}" if outcome.code else ""
    return outcome.problem or (f"it answered {outcome.status}{code}" if outcome.status else outcome.result.value)


def wants_failure(call: Call, outcome: Outcome) -> ServiceError | None:
    """Answer the error of an outcome that is no application's answer, None for one that is."""
    match outcome.result:
        case Result.UNSENT:
            step = "See whether the server's Pods are ready"
            return ServiceUnavailable(outcome.problem, **where(call, step)).sent_nothing()
        case Result.CUT:
            return ServiceUnavailable(outcome.problem, **where(call, "See whether the server's Pods are ready"))
        case Result.TIMEOUT:
            return ServiceTimeout(outcome.problem, **where(call, outcome.advice or MORE_TIME))
        case Result.REFUSED:
            step = "See the ServiceLink's condition Issued, and whether its binding is the one mounted here"
            return InvalidServiceAuth("the server does not take the link's credential", **where(call, step))
        case Result.DENIED:
            step = "See the ServiceLink's allow rules and the server's ServiceLinkPolicy"
            return PermissionDenied("the link does not allow this call", **where(call, step))
        case _:
            return None
