"""Which guard a server gets: the verifier that was mounted, else the shared key, else an error.

There is no third way on purpose: a server without anything to check calls with would be an open door.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from servicelink.errors import LinkConfigurationError
from servicelink.verify import Guard, SharedKeys, VerifierFiles

VERIFIER_DIR = "SERVICELINK_VERIFIER_DIR"
SHARED_KEY_VARIABLE = "INTERNAL_API_KEY"


def observe_guard(
    service: str | None, environ: Mapping[str, str], *, load_graphql: Callable[[], None] | None = None
) -> Guard:
    """Answer the guard of a service (None: of the only one there is); an empty variable counts as absent.

    `load_graphql` is as of `VerifierFiles`. Raises LinkConfigurationError, naming what was looked for.
    """
    if root := environ.get(VERIFIER_DIR):
        return VerifierFiles(_observe_folder(Path(root), service), load_graphql=load_graphql)
    keys = [key for part in environ.get(SHARED_KEY_VARIABLE, "").split(",") if (key := part.strip())]
    if not keys:
        raise LinkConfigurationError(
            f"neither {VERIFIER_DIR} nor {SHARED_KEY_VARIABLE} is set, so no call could be checked",
            next_step=f"In a cluster a ServiceLinkPolicy mounts the verifier; elsewhere set {SHARED_KEY_VARIABLE}",
        )
    try:
        return SharedKeys(keys)
    except UnicodeEncodeError:
        raise LinkConfigurationError(
            f"{SHARED_KEY_VARIABLE} holds bytes that are no UTF-8, so no call could be checked",
            next_step="Set it to keys of ASCII characters",
        ) from None


def _observe_folder(root: Path, service: str | None) -> Path:
    """Answer the folder of one Service below the root; whether it holds anything is asked call by call."""
    try:
        found = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise _unusable(
            root, f"cannot be read ({error.strerror})", "Set it to the folder of mounted verifiers"
        ) from None
    if service is not None:
        if service not in found:
            raise _unusable(root, f"has no verifier for {service}", f"There is: {', '.join(found) or 'none'}")
        return root / service
    if not found:
        raise _unusable(root, "has no folder of a Service", "Mount the verifier at <root>/<service>")
    if len(found) > 1:
        raise _unusable(root, f"has several Services: {', '.join(found)}", "Pass service= to say which this app is")
    return root / found[0]


def _unusable(root: Path, problem: str, next_step: str) -> LinkConfigurationError:
    return LinkConfigurationError(f"{VERIFIER_DIR}={root} {problem}", next_step=next_step)
