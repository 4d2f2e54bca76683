"""A build trusts whom its host trusts, and the image keeps nothing of that."""

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devcluster import images

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="building an image needs root")

# In a stage whose name another takes up, on a line that goes on, and without a newline at the end: as files come.
DOCKERFILE = """# Größe
FROM debian:bookworm-slim \\
  AS first
RUN test -s "$SSL_CERT_FILE" && test "$PIP_CERT" = "$SSL_CERT_FILE" && echo first > /seen
FROM first
RUN test -s "$SSL_CERT_FILE" && echo second >> /seen"""


@pytest.mark.skipif(not images.TRUSTED.exists(), reason="this host has no bundle of certificates")
def test_a_build_trusts_whom_its_host_trusts_and_the_image_does_not(
    devcluster: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE, encoding="latin-1")

    said = devcluster("image", "build", "-f", str(tmp_path / "Dockerfile"), "-t", "trusting:dev", str(tmp_path))

    assert said.code == 0, said.err
    with tarfile.open(said.out.strip()) as archive:
        described = json.loads(read(archive, "manifest.json"))[0]
        config = json.loads(read(archive, described["Config"]))["config"]
        kept = [name for layer in described["Layers"][1:] for name in names(archive, layer)]
    assert not [variable for variable in config.get("Env", []) if "CERT" in variable]
    assert "seen" in kept
    assert not [name for name in kept if name.startswith(("mnt", "etc/ssl"))]


def read(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name)
    assert member
    return member.read()


def names(archive: tarfile.TarFile, layer: str) -> list[str]:
    with tarfile.open(fileobj=archive.extractfile(layer)) as opened:
        return opened.getnames()
