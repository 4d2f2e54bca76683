"""What to install for names whose libraries are not there: the names of modules and of packages differ."""

from importlib.util import find_spec

_PACKAGES = {
    "cryptography": "servicelink[test]",
    "google": "servicelink[grpc]",
    "graphql": "servicelink[graphql]",
    "grpc": "servicelink[grpc]",
    "grpc_health": "servicelink[grpc]",
    "grpc_reflection": "servicelink[grpc]",
    "uvicorn": "uvicorn",
}


# By how the names of modules of ours begin that do without nothing else.
_NEEDED = {"servicelink.grpc.": "grpc", "servicelink.uvicorn_server": "uvicorn"}


def is_usable(module: str) -> bool:
    """Say whether the library that a module of ours needs is installed; loads neither."""
    return all(find_spec(library) for start, library in _NEEDED.items() if module.startswith(start))


def explain_missing(name: str, error: ModuleNotFoundError) -> None:
    """Raise ModuleNotFoundError for a public name, saying what to install, where that is known."""
    package = _PACKAGES.get((error.name or "").partition(".")[0])
    if package is not None:
        said = f"{name} needs more than is installed: pip install '{package}'"
        raise ModuleNotFoundError(said, name=error.name) from error
