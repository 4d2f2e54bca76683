"""Images without a registry: built by buildah from ordinary Dockerfiles, on base images made from Debian's packages.

A Dockerfile's FROM lines keep the names they have everywhere; what stands behind those names here is bootstrapped once
and kept. buildah's storage lies in this tool's cache, and each run has a mount namespace of its own, so that neither
a build nor a killed one leaves a mount or a file elsewhere.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from dockerfile_parse import DockerfileParser

from devcluster import host
from devcluster.errors import DevclusterError
from devcluster.paths import images_folder, locked
from devcluster.progress import Progress

DOCKERFILES = Path(__file__).parent / "dockerfiles"
DEBIAN = "debian:bookworm-slim"
PYTHON = "python:3.11-slim-bookworm"
GOLANG = "golang:1.26-bookworm"
BASES = (DEBIAN, PYTHON, GOLANG)
TRUSTED = Path("/etc/ssl/certs/ca-certificates.crt")
# An empty folder in every image, so that what is mounted there while a step runs leaves nothing behind.
MOUNT = Path("/mnt")
# Where pip and uv look for whom to trust; what else asks OpenSSL follows the second, too.
TRUST_VARIABLES = ("PIP_CERT", "SSL_CERT_FILE")


def build(dockerfile: Path, name: str, context: Path, progress: Progress) -> Path:
    """Build an image and answer its archive (docker-archive format), named after the image.

    Its steps trust whom this host trusts, which the Dockerfile need not know and the image does not keep. Base images
    that its FROM lines name are made first. Raises DevclusterError with buildah's last lines when a step fails, or with
    the known names when a FROM line has another.
    """
    host.require_linux_root("building an image")
    host.require_programs(host.IMAGE_PACKAGES, "building an image")
    for base in _bases_of(dockerfile):
        _provide_base(_canonical(base), progress)
        if base != _canonical(base):
            _buildah("tag", _canonical(base), base)
    with progress.step("image", f"{name} from {dockerfile}"), tempfile.TemporaryDirectory() as scratch:
        if not TRUSTED.exists():
            return _build_archive(dockerfile, name, context)
        trusting = Path(scratch) / "Dockerfile"
        trusting.write_bytes(_declare_trust(dockerfile))
        arguments = [f"--build-arg={variable}={MOUNT / TRUSTED.name}" for variable in TRUST_VARIABLES]
        return _build_archive(trusting, name, context, [f"--volume={TRUSTED.parent}:{MOUNT}:ro", *arguments])


def build_from_program(program: Path, name: str) -> Path:
    """Build one of this tool's own images around a built program (`dockerfiles/<program>`), and answer its archive.

    Archives are kept by the content of what goes in, so that a second cluster builds nothing.
    """
    dockerfile = DOCKERFILES / program.name / "Dockerfile"
    digest = hashlib.sha256(dockerfile.read_bytes() + program.read_bytes()).hexdigest()
    kept = images_folder() / f"{program.name}-{digest[:12]}.tar"
    with locked("images"), tempfile.TemporaryDirectory() as context:
        if not kept.exists():
            shutil.copy2(program, context)
            _build_archive(dockerfile, name, Path(context)).rename(kept)
    return kept


def _bases_of(dockerfile: Path) -> list[str]:
    """Answer what the FROM lines name, without stages of the file itself."""
    parser = _parser(dockerfile)
    lines = [line["value"].split() for line in parser.structure if line["instruction"] == "FROM"]
    stages = {words[-1].lower() for words in lines if "AS" in map(str.upper, words[:-1])}
    bases = [name for name in parser.parent_images if name.lower() not in stages and name != "scratch"]
    for name in bases:
        if _canonical(name) not in BASES:
            raise DevclusterError(
                f"{dockerfile}: nothing is known here to stand for FROM {name}",
                mend=f"use one of {', '.join(BASES)}, or add a base to {DOCKERFILES}",
            )
    return bases


def _parser(dockerfile: Path) -> DockerfileParser:
    # Comments may be in any encoding; what is asked for here is ASCII.
    content = BytesIO(dockerfile.read_text(errors="replace").encode())
    return DockerfileParser(fileobj=content)  # type: ignore[arg-type] # the stub says text; it reads bytes


def _declare_trust(dockerfile: Path) -> bytes:
    """Answer the Dockerfile with TRUST_VARIABLES as build arguments of every stage, which no image keeps."""
    lines = dockerfile.read_bytes().splitlines()
    declared = [f"ARG {variable}".encode() for variable in TRUST_VARIABLES]
    ends = [line["endline"] for line in _parser(dockerfile).structure if line["instruction"] == "FROM"]
    for end in reversed(ends):
        lines[end + 1 : end + 1] = declared
    return b"\n".join([*lines, b""])


def _canonical(name: str) -> str:
    """Answer the short name of an official image, whichever registry's name stands before it."""
    return name.rpartition("/library/")[2]


def _provide_base(name: str, progress: Progress) -> None:
    with locked("images", lambda: progress.say("image", "waiting for another command on images …")):
        _make_base(name, progress)


def _make_base(name: str, progress: Progress) -> None:
    if _image_exists(name):
        return
    if name == DEBIAN:
        with progress.step("image", f"base {name} from Debian's packages", expected="about 1 min"):
            _bootstrap_debian()
        return
    _make_base(DEBIAN, progress)
    context = _observe_go() if name == GOLANG else DOCKERFILES / "python"
    dockerfile = DOCKERFILES / name.partition(":")[0] / "Dockerfile"
    with progress.step("image", f"base {name} on {DEBIAN}", expected="about 30 s"):
        _build_image(dockerfile, name, context)


def _observe_go() -> Path:
    """Answer the folder of this machine's Go, which stands in for an image's; raises DevclusterError."""
    wanted = GOLANG.partition(":")[2].partition("-")[0]
    go = shutil.which("go")
    said = "" if go is None else host.run([go, "env", "GOVERSION", "GOROOT"])
    if go is None or not said.startswith(f"go{wanted}"):
        raise DevclusterError(
            f"the base image {GOLANG} holds this machine's Go, which is {said.split()[0] if said else 'not there'}",
            mend=f"install Go {wanted}",
        )
    return Path(said.split()[1])


def _bootstrap_debian() -> None:
    with tempfile.TemporaryDirectory(dir=_folder()) as scratch:
        root, context = Path(scratch) / "root", Path(scratch) / "context"
        context.mkdir()
        host.run([*_OWN_MOUNTS, "debootstrap", "--variant=minbase", "bookworm", root])
        for downloaded in (*root.glob("var/cache/apt/archives/*.deb"), *root.glob("var/lib/apt/lists/*_*")):
            downloaded.unlink()
        host.run(["tar", "--create", "--numeric-owner", f"--directory={root}", f"--file={context / 'root.tar'}", "."])
        _build_image(DOCKERFILES / "debian" / "Dockerfile", DEBIAN, context)


def _build_archive(dockerfile: Path, name: str, context: Path, options: Sequence[str] = ()) -> Path:
    _build_image(dockerfile, name, context, options)
    archive = images_folder() / f"{name.replace('/', '_').replace(':', '_')}.tar"
    # Elsewhere first: the path must be free of colons, and another build of this name may be under way.
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "image.tar"
        _buildah("push", name, f"docker-archive:{fresh}:{name}")
        unfinished = archive.with_suffix(f".{os.getpid()}")
        shutil.move(fresh, unfinished)
        unfinished.replace(archive)
    return archive


def _build_image(dockerfile: Path, name: str, context: Path, options: Sequence[str] = ()) -> None:
    how = ("--isolation=chroot", "--pull=never", "--layers", "--force-rm")
    _buildah("build", *how, *options, f"--file={dockerfile}", f"--tag={name}", str(context))


def _image_exists(name: str) -> bool:
    return host.succeeds([*_command(), "inspect", "--type=image", name])


def _buildah(*arguments: str) -> None:
    done = subprocess.run(
        [*_command(), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise DevclusterError(
            f"buildah {arguments[0]} failed for {arguments[-1]}", evidence="\n".join(done.stdout.splitlines()[-15:])
        )


_OWN_MOUNTS = ("unshare", "--mount", "--propagation=private")


def _command() -> Sequence[str]:
    folder = _folder()
    driver = "overlay" if host.overlay_works(folder) else "vfs"
    storage = [f"--root={folder / 'storage'}", f"--runroot={folder / 'run'}", f"--storage-driver={driver}"]
    return [*_OWN_MOUNTS, "buildah", *storage]


def _folder() -> Path:
    folder = images_folder() / "buildah"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
