from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from converter.errors import ConverterError, UsageError
from runtime_tests.emulation import setup
from runtime_tests.emulation.environment import NEWEST, OLDEST, Environment
from runtime_tests.emulation.external import run_program
from runtime_tests.emulation.setup import DEBIAN_PACKAGES, Step, missing_steps, require, set_up

Program = Callable[[str, str], Path]


@pytest.fixture
def env(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "arm64")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """A function that puts a shell script in front of all other programs."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def make(name: str, script: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def emulator(program: Program) -> Path:
    return program("qemu-aarch64", "echo qemu-aarch64 version 7.2.22")


def recorded(done: list[str], *names: str, fail: str = "", recipe: str = "1") -> tuple[Step, ...]:
    def perform(name: str) -> Callable[[Environment], None]:
        def step(env: Environment) -> None:
            done.append(name)
            if name == fail:
                raise ConverterError(f"{name} is broken")

        return step

    return tuple(Step(name, recipe, perform(name)) for name in names)


def test_steps_are_done_once(env: Environment, emulator: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(setup, "STEPS", recorded(done, "a", "b"))
    told: list[str] = []
    set_up(env, told.append)
    set_up(env, told.append)
    assert done == ["a", "b"]
    assert [line.partition(":")[0] for line in told] == ["a", "b"]
    require(env)


def test_a_broken_step_is_done_again_and_what_came_before_it_is_not(
    env: Environment, emulator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(setup, "STEPS", recorded(done, "a", "b", "c", fail="b"))
    with pytest.raises(ConverterError, match="b is broken"):
        set_up(env)
    with pytest.raises(UsageError, match="step 'b' of the set-up is missing"):
        require(env)
    monkeypatch.setattr(setup, "STEPS", recorded(done, "a", "b", "c"))
    set_up(env)
    assert done == ["a", "b", "b", "c"]


def test_a_new_recipe_brings_its_step_and_all_later_ones_back(env: Environment, emulator: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if a later one then breaks: what was built on the old result must not count as done."""
    done: list[str] = []
    first, _, last = recorded(done, "a", "b", "c")
    monkeypatch.setattr(setup, "STEPS", recorded(done, "a", "b", "c"))
    set_up(env)
    done.clear()
    (changed,) = recorded(done, "b", recipe="2")
    (broken,) = recorded(done, "c", fail="c")
    monkeypatch.setattr(setup, "STEPS", (first, changed, broken))
    with pytest.raises(ConverterError, match="c is broken"):
        set_up(env)
    monkeypatch.setattr(setup, "STEPS", (first, changed, last))
    assert missing_steps(env) == [last]
    set_up(env)
    assert done == ["b", "c", "c"]


def test_a_second_runtime_takes_only_the_steps_that_are_its_own(env: Environment, emulator: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    shared, own = recorded(done, "a", "b")
    monkeypatch.setattr(setup, "STEPS", (shared, replace(own, of_runtime=True)))
    for runtime in (OLDEST, NEWEST):
        set_up(replace(env, runtime=runtime))
    assert done == ["a", "b", "b"]


def test_what_all_runtimes_stand_on_brings_the_steps_of_each_back(
    env: Environment, emulator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    shared, own = recorded(done, "a", "b")
    steps = (shared, replace(own, of_runtime=True))
    old, new = (replace(env, runtime=runtime) for runtime in (OLDEST, NEWEST))
    monkeypatch.setattr(setup, "STEPS", steps)
    set_up(old)
    set_up(new)
    monkeypatch.setattr(setup, "STEPS", (replace(shared, recipe="2"), steps[1]))
    set_up(new)
    assert not missing_steps(new)
    assert missing_steps(old) == [steps[1]]


def test_another_version_of_the_emulator_is_refused(env: Environment, program: Program) -> None:
    program("qemu-aarch64", "echo qemu-aarch64 version 9.2.0; echo more")
    with pytest.raises(UsageError) as caught:
        set_up(env)
    written = str(caught.value)
    assert written.startswith("error: the emulator is not version 7.2\n  at: qemu-aarch64 version 9.2.0\n  do: ")
    assert len(written.splitlines()) == 3


def test_without_a_compiler_the_message_says_what_to_install(env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError) as caught:
        setup._build_plugin(env)
    assert str(caught.value).splitlines() == [
        "error: the program 'gcc' is missing",
        "  at: building the plugin",
        "  do: install it (apt-get install gcc libc6-dev)",
    ]
    assert not env.plugin.exists()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no compiler")
def test_the_plugins_build_without_a_warning(env: Environment) -> None:
    setup._build_plugin(env)
    setup._build_blocks_plugin(env)
    for plugin in (env.plugin, env.blocks_plugin):
        assert plugin.read_bytes()[:4] == b"\x7fELF"


def test_packages_are_resolved_apart_from_this_machine(env: Environment, program: Program, tmp_path: Path) -> None:
    program("apt-get", f'echo "$@" >> {tmp_path}/calls')
    setup._download_packages(env)
    update, install = (tmp_path / "calls").read_text().splitlines()
    assert update.endswith(" update")
    assert install.endswith(" --no-install-recommends --download-only install " + " ".join(DEBIAN_PACKAGES))
    for call in (update, install):
        assert "--option=APT::Architecture=arm64" in call
        assert f"--option=Dir::State::status={env.folder}/apt/status" in call
        assert f"--option=Dir::Cache::archives={env.folder}/apt/archives" in call


def test_unpacking_starts_from_an_empty_folder(env: Environment, program: Program) -> None:
    program("dpkg-deb", 'echo "$2" > "$3"/unpacked')
    (env.folder / "apt" / "archives").mkdir(parents=True)
    (env.folder / "apt" / "archives" / "p_1_arm64.deb").touch()
    env.root.mkdir()
    (env.root / "left over").touch()
    setup._unpack_packages(env)
    assert [path.name for path in env.root.iterdir()] == ["unpacked"]
    assert not env.root.with_name("root.new").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, emulator: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError) as caught:
        set_up(Environment(tmp_path / "file" / "below"))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("error: the folder cannot be written: ")
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo first >&2; echo 'E: no such package' >&2; echo last >&2; exit 100", "E: no such package"),
        ("echo first >&2; echo last >&2; exit 1", "last"),
        ("echo told on stdout; exit 1", "told on stdout"),
        ("exit 3", "it ended with code 3"),
    ],
)
def test_a_program_that_fails_is_quoted(program: Program, script: str, said: str) -> None:
    with pytest.raises(ConverterError) as caught:
        run_program([str(program("tool", script)), "word"], "the work", hint="help")
    lines = str(caught.value).splitlines()
    assert lines[0] == f"error: the work failed: {said}"
    assert lines[1].endswith("/tool word")
    assert lines[2] == "  do: help"
