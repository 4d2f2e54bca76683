"""Which programs there are and where each is kept."""

from pathlib import Path

import pytest

from devcluster import programs as table
from devcluster.programs import CONTROL_PLANE_PROGRAMS, GO_MODULES, NODE_PROGRAMS, TOOLS, kubernetes_versions, programs


@pytest.mark.parametrize("version", kubernetes_versions())
def test_every_program_that_a_level_needs_can_be_built(version: str) -> None:
    needed = {*CONTROL_PLANE_PROGRAMS, *NODE_PROGRAMS, *TOOLS}

    assert needed == set(programs(version))


@pytest.mark.parametrize("version", kubernetes_versions())
def test_every_program_is_declared_in_the_module_it_is_built_from(version: str) -> None:
    for program in programs(version).values():
        manifest = (program.source / "go.mod").read_text()

        assert (program.source / "go.sum").exists()
        if program.name != "pause":
            assert f"tool {program.package}" in manifest or f"\t{program.package}\n" in manifest


@pytest.mark.parametrize("version", kubernetes_versions())
def test_every_version_is_the_one_its_go_mod_pins(version: str) -> None:
    for program in programs(version).values():
        if program.name != "pause":
            assert f" v{program.version}" in (program.source / "go.mod").read_text(), program.name


def test_the_newest_kubernetes_comes_first() -> None:
    assert kubernetes_versions()[0] == "1.37.2"
    assert "1.36.3" in kubernetes_versions()


def test_a_changed_pin_is_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pause = programs(kubernetes_versions()[0])["pause"]
    before = pause.folder_name
    copy = tmp_path / "pause"
    copy.mkdir()
    for path in (GO_MODULES / "pause").iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "go.mod").write_text((copy / "go.mod").read_text() + "// another\n")

    monkeypatch.setattr(table, "GO_MODULES", tmp_path)

    assert pause.folder_name != before
