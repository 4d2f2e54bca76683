"""ARCHITECTURE.md says where each thing is: all that it names is there, and every module is named."""

import re
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAYERS = ("contract", "core", "operator", "sdk", "devcluster")


def expand(text: str) -> list[str]:
    """Answer what a name with `{a,b}` in it stands for."""
    parts = [part.split(",") for part in re.split(r"[{}]", text)]
    # Outside of braces a comma is part of a name.
    choices = [part if number % 2 else [",".join(part)] for number, part in enumerate(parts)]
    return ["".join(chosen) for chosen in product(*choices)]


def named() -> list[Path]:
    """Answer the paths of the table, those in a section below the section's folder."""
    text = (ROOT / "ARCHITECTURE.md").read_text().partition("## Where each thing is")[2].partition("\n## ")[0]
    found: list[Path] = []
    folder = ROOT
    for title, cell in re.findall(r"^\| (.+?) \| (.+) \|$", text, flags=re.MULTILINE):
        names = [one for name in re.findall(r"`([^`]+)`", cell) for one in expand(name)]
        if title.startswith("**"):
            folder = ROOT
        within = folder
        for name in names:
            paths = next((here for base in (within, folder, ROOT) if (here := sorted(base.glob(name)))), None)
            assert paths, f"{title}: there is no {name}"
            within = paths[0] if paths[0].is_dir() else paths[0].parent
            found += paths
        if title.startswith("**") and names:
            folder = within
            # It says where the section is, not what is in it.
            del found[-1]
    return found


def test_what_the_map_names_is_there_and_every_module_is_on_it() -> None:
    files = set(named())
    folders = {path for path in files if path.is_dir()}
    modules = [path for layer in LAYERS for path in (ROOT / layer / "src").rglob("*.py") if path.name != "__init__.py"]

    missing = [str(one.relative_to(ROOT)) for one in modules if one not in files and not folders & {*one.parents}]
    assert missing == []
