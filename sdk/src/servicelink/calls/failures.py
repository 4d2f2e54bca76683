"""The errors that outcomes become, alike for the three protocols."""

from typing import Any

from servicelink.calls.call import Call, Outcome, Result
from servicelink.errors import (
    InvalidServiceAuth,
    PermissionDenied,
    RemoteError,
    ServiceError,
    ServiceTimeout,
    ServiceUnavailable,
)

MORE_TIME = "Ask for more time with timeout=, or look why the server is slow"


def where(call: Call, next_step: str) -> dict[str, Any]:
    """Answer what every error of a call says beside its problem."""
    return {"link": call.link, "operation": call.operation, "request_id": call.request_id, "next_step": next_step}


def remote_error(call: Call, status: int, code: str | None, body: str) -> RemoteError:
    """Answer the application's own error, whose body is told of and not repeated."""
    return RemoteError(status, code, body, **where(call, "Its attribute body holds what came" if body else ""))


def find_server(call: Call) -> str:
    """Answer what helps where the server is not there."""
    if call.origin is None:
        return "See whether the server's Pods are ready"
    return f"{call.origin.address} leads to {call.origin.uri}: see whether the server is there"


def _refused(call: Call) -> InvalidServiceAuth:
    if call.origin is None:
        step = "See the ServiceLink's condition Issued, and whether its binding is the one mounted here"
        return InvalidServiceAuth("the server does not take the link's credential", **where(call, step))
    if call.origin.key is None:
        step = "Pass api_key= or shared_key=True"
        return InvalidServiceAuth("the server wants a credential, and none was sent", **where(call, step))
    step = f"The key is that of {call.origin.key}: see whether the server takes it"
    return InvalidServiceAuth("the server does not take the key", **where(call, step))


def tell_end(outcome: Outcome) -> str:
    """Answer in words how an attempt ended that is no success."""
    code = f" {outcome.code}" if outcome.code else ""
    return outcome.problem or (f"it answered {outcome.status}{code}" if outcome.status else outcome.result.value)


def wants_failure(call: Call, outcome: Outcome) -> ServiceError | None:
    """Answer the error of an outcome that is no application's answer, None for one that is."""
    match outcome.result:
        case Result.UNSENT:
            return ServiceUnavailable(outcome.problem, **where(call, find_server(call))).sent_nothing()
        case Result.CUT:
            return ServiceUnavailable(outcome.problem, **where(call, find_server(call)))
        case Result.TIMEOUT:
            return ServiceTimeout(outcome.problem, **where(call, outcome.advice or MORE_TIME))
        case Result.REFUSED:
            return _refused(call)
        case Result.DENIED:
            step = "See the ServiceLink's allow rules and the server's ServiceLinkPolicy"
            return PermissionDenied("the link does not allow this call", **where(call, step))
        case _:
            return None
