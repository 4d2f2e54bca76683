"""Kubeconfig files: self-contained, so that one can be copied anywhere on this machine."""

import base64
import os
from pathlib import Path
from typing import Any

import yaml

from devcluster.pki import KeyPair


def for_certificate(path: Path, server: str, ca: Path, pair: KeyPair) -> Path:
    """Write a kubeconfig that speaks with a client certificate; answers its path."""
    user = {"client-certificate-data": _data(pair.certificate), "client-key-data": _data(pair.key)}
    return _write(path, {"server": server, "certificate-authority-data": _data(ca)}, user)


def for_token(path: Path, admin: Path, token: str) -> Path:
    """Write a kubeconfig that speaks with a bearer token to the cluster of the `admin` kubeconfig; answers its path."""
    return _write(path, current_cluster(admin), {"token": token})


def current_cluster(path: Path) -> dict[str, Any]:
    """Answer the `cluster` entry of a kubeconfig's current context.

    Raises KeyError or StopIteration when the file names no current context.
    """
    config = yaml.safe_load(path.read_text())
    context = _named(config["contexts"], config["current-context"])["context"]
    entry: dict[str, Any] = _named(config["clusters"], context["cluster"])["cluster"]
    return entry


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)


def _write(path: Path, cluster: dict[str, Any], user: dict[str, str]) -> Path:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "devcluster", "cluster": cluster}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": "devcluster", "context": {"cluster": "devcluster", "user": "user"}}],
        "current-context": "devcluster",
    }
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.touch(mode=0o600)
    unfinished.write_text(yaml.safe_dump(config, sort_keys=False))
    unfinished.rename(path)
    return path


def _data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
