from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from runtime_tests.emulation.apt import apt_in
from runtime_tests.emulation.external import run_program

needs_apt = pytest.mark.skipif(shutil.which("apt-config") is None, reason="no apt")


def settings_in(command: list[str]) -> dict[str, str]:
    """What apt understands of a command's options."""
    words = ["apt-config", "dump", *(word for word in command if word.startswith("--option"))]
    lines = run_program(words, "apt's settings", hint="see whether it runs").splitlines()
    return {key: value.strip('";') for key, _, value in (line.partition(" ") for line in lines)}


@needs_apt
def test_all_that_apt_keeps_is_in_the_folder(tmp_path: Path) -> None:
    settings = settings_in(apt_in(tmp_path / "apt", architecture="arm64"))
    assert settings["APT::Architecture"] == "arm64" and settings["APT::Sandbox::User"] == "root"
    for place in ("Dir::State::lists", "Dir::State::status", "Dir::State::extended_states", "Dir::Cache::archives"):
        assert Path(settings[place]).parent == tmp_path / "apt"
    assert settings["Dir::Cache::pkgcache"] == settings["Dir::Cache::srcpkgcache"] == ""


@needs_apt
def test_a_source_of_its_own_is_the_only_one(tmp_path: Path) -> None:
    line = "deb https://example.org/debian trixie main"
    settings = settings_in(apt_in(tmp_path / "apt", source=line))
    assert Path(settings["Dir::Etc::sourcelist"]).read_text() == f"{line}\n" and settings["Dir::Etc::sourceparts"] == "/dev/null"
    usual = settings_in(apt_in(tmp_path / "usual"))
    assert usual["Dir::Etc::sourcelist"] != settings["Dir::Etc::sourcelist"]


def test_packages_of_an_earlier_day_are_not_taken_along(tmp_path: Path) -> None:
    apt_in(tmp_path / "apt")
    (tmp_path / "apt" / "archives" / "old_1_amd64.deb").write_bytes(b"")
    apt_in(tmp_path / "apt")
    assert [path.name for path in (tmp_path / "apt" / "archives").iterdir()] == ["partial"]
