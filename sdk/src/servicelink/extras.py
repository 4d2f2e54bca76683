"""What to install for names whose libraries are not there: the names of modules and of packages differ."""

_PACKAGES = {
    "cryptography": "servicelink[test]",
    "google": "servicelink[grpc]",
    "graphql": "servicelink[graphql]",
    "grpc": "servicelink[grpc]",
    "uvicorn": "uvicorn",
}


def explain_missing(name: str, error: ModuleNotFoundError) -> None:
    """Raise ModuleNotFoundError for a public name, saying what to install, where that is known."""
    package = _PACKAGES.get((error.name or "").partition(".")[0])
    if package is not None:
        said = f"{name} needs more than is installed: pip install '{package}'"
        raise ModuleNotFoundError(said, name=error.name) from error
