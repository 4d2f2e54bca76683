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


# By how the names of modules of ours begin that do without nothing else. All of an extra: grpcio alone, which other
# packages bring as well, is not enough for most of those names.
_NEEDED = {
    "servicelink.grpc.": ("grpc", "grpc_health", "grpc_reflection"),
    "servicelink.uvicorn_server": ("uvicorn",),
}


def is_usable(module: str) -> bool:
    """Say whether the libraries that a module of ours needs are installed; loads neither."""
    needed = (libraries for start, libraries in _NEEDED.items() if module.startswith(start))
    return all(find_spec(library) for libraries in needed for library in libraries)


def explain_missing(name: str, error: ModuleNotFoundError) -> None:
    """Raise ModuleNotFoundError for a public name, saying what to install, where that is known."""
    package = _PACKAGES.get((error.name or "").partition(".")[0])
    if package is not None:
        said = f"{name} needs more than is installed: pip install '{package}'"
        raise ModuleNotFoundError(said, name=error.name) from error
