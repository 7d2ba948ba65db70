"""Set up the emulated ARM64 machine. Quick when it is done already.

The emulator is installed from Debian if it is not there, which needs root. All else goes into one folder, in six steps,
each with a stamp that is written last and names what the step was made from: an interrupted or broken step is done again,
and so is one whose recipe changed, with all that follow. Two steps are done for each version of ONNX Runtime.
Needs Debian 12 on x86-64, ``gcc`` and pip.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from converter.errors import ConverterError, UsageError
from runtime_tests.emulation.apt import apt_in, install_package
from runtime_tests.emulation.command import EMULATOR, command_line, guest_variables, lay_out_root
from runtime_tests.emulation.environment import FOLDER_VARIABLE, NEWEST, RUNTIMES, Environment, environment
from runtime_tests.emulation.external import run_program
from runtime_tests.emulation.guest import MARK

__all__ = ["STEPS", "missing_steps", "require", "set_up"]

EMULATOR_VERSION = "7.2"
"""The plugin interface changes with the emulator's versions; count.c speaks this one's."""

NUMPY = "2.4.6"
DEBIAN_PACKAGES = ("python3.11", "libstdc++6")
WHEEL_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")

_FIRST_CORE = "cortex-a76"
_SOURCES = Path(__file__).parent
_FRESH = "see whether the network and the package registries can be reached, and run the command again"
_OWN_PACKAGES = "apt-get install qemu-user, as root"


@dataclass(frozen=True)
class Step:
    """One step of the set-up.

    Attributes:
        name: also the name of its stamp.
        recipe: changes when the step has to be done again.
        perform: does it, over whatever a broken attempt left behind.
        of_runtime: done for each version of the runtime, with a stamp for each.
    """

    name: str
    recipe: str
    perform: Callable[[Environment], None]
    of_runtime: bool = False

    def stamp(self, env: Environment) -> Path:
        """The file that says that the step is done."""
        return env.stamps / (f"{self.name}-{env.runtime}" if self.of_runtime else self.name)


def _install_emulator() -> None:
    if shutil.which(EMULATOR) is None:
        install_package("qemu-user", "the emulator")
    _check_emulator()


def _check_emulator() -> None:
    answer = run_program([EMULATOR, "--version"], "the emulator", hint=_OWN_PACKAGES, install="qemu-user").partition("\n")[0]
    if f" version {EMULATOR_VERSION}." not in answer:
        raise UsageError(
            f"the emulator is not version {EMULATOR_VERSION}",
            where=answer,
            hint="use the package qemu-user of Debian 12; put it first in PATH",
        )


def _download_packages(env: Environment) -> None:
    """Let apt resolve and fetch the packages as for an empty ARM64 machine, in folders of its own."""
    command = apt_in(env.folder / "apt", architecture="arm64")
    run_program([*command, "update"], "fetching the lists of ARM64 packages", hint=_FRESH)
    run_program(
        [*command, "--no-install-recommends", "--download-only", "install", *DEBIAN_PACKAGES], "fetching ARM64 packages", hint=_FRESH
    )


def _unpack_packages(env: Environment) -> None:
    with _replaced(env.root) as root:
        for package in sorted((env.folder / "apt" / "archives").glob("*.deb")):
            run_program(["dpkg-deb", "--extract", str(package), str(root)], f"unpacking {package.name}", hint=_again(env), install="dpkg")


def _install_wheels(env: Environment) -> None:
    with _replaced(env.site) as site:
        where = [word for platform in WHEEL_PLATFORMS for word in ("--platform", platform)]
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile"]
        command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", "3.11", *where, "--target", str(site)]
        run_program([*command, f"numpy=={NUMPY}", f"onnxruntime=={env.runtime}"], "fetching ARM64 wheels", hint=_FRESH)


def _build_plugin(env: Environment) -> None:
    _build(env.plugin)


def _build_blocks_plugin(env: Environment) -> None:
    _build(env.blocks_plugin)


def _build(plugin: Path) -> None:
    """Build a plugin, in a folder of its own, from the source of the same name."""
    with _replaced(plugin.parent) as folder:
        command = ["gcc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden", f"-DMARK={MARK}"]
        command += [str(_SOURCES / f"{plugin.stem}.c"), "-o", str(folder / plugin.name)]
        run_program(command, "building the plugin", hint="see whether gcc can build a shared library here", install="gcc libc6-dev")


def _check_guest(env: Environment) -> None:
    """Import what the guest needs, which also leaves its compiled bytecode where the runs find it."""
    script = "import ctypes, json, numpy, onnxruntime; print(onnxruntime.__version__)"
    with tempfile.TemporaryDirectory(prefix="arm64-") as folder:
        root = lay_out_root(env, _FIRST_CORE, Path(folder, "root"))
        command = command_line(env, _FIRST_CORE, root, Path(os.devnull), ["-c", script])
        answer = run_program(command, "the first run of the emulated machine", hint=_again(env), variables=guest_variables(env))
    if answer.strip() != env.runtime:
        raise ConverterError(f"the emulated machine has ONNX Runtime {answer.strip()}, not {env.runtime}", hint=_again(env))


def _again(env: Environment) -> str:
    return f"remove {env.folder} and run python -m tools.arm64.setup again"


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """An empty folder that takes another one's place once it is filled."""
    fresh = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    yield fresh
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def _source_digest(source: str) -> str:
    return hashlib.sha256(b"".join((_SOURCES / name).read_bytes() for name in (source, "qemu_plugin.h"))).hexdigest()


STEPS = (
    Step("packages", " ".join(DEBIAN_PACKAGES), _download_packages),
    Step("root", "", _unpack_packages),
    Step("plugin", f"{MARK} {_source_digest('count.c')}", _build_plugin),
    Step("wheels", f"numpy {NUMPY}", _install_wheels, of_runtime=True),
    Step("guest", "", _check_guest, of_runtime=True),
    Step("plugin-blocks", f"{MARK} {_source_digest('blocks.c')}", _build_blocks_plugin),  # the last: no other step is done again for it
)


def missing_steps(env: Environment) -> list[Step]:
    """The steps from the first one on that is not done or was done by another recipe."""
    done = 0
    while done < len(STEPS) and _stamp_text(env, STEPS[done]) == STEPS[done].recipe:
        done += 1
    return list(STEPS[done:])


def _stamp_text(env: Environment, step: Step) -> str | None:
    try:
        return step.stamp(env).read_text()
    except OSError:
        return None


def require(env: Environment) -> None:
    """Make sure that the environment is complete.

    Raises:
        UsageError: it is not, or the emulator has gone since; says what to run.
    """
    missing = missing_steps(env)
    if missing:
        flag = "" if env.runtime == NEWEST else f" --runtime {env.runtime}"
        flag += "" if env.folder == environment().folder else f" --root {env.folder}"
        what = "the ARM64 emulation is not set up" if len(missing) == len(STEPS) else f"step '{missing[0].name}' of the set-up is missing"
        raise UsageError(what, where=str(env.folder), hint=f"run python -m tools.arm64.setup{flag}")
    _check_emulator()


def set_up(env: Environment, tell: Callable[[str], None] = lambda text: None) -> None:
    """Do the missing steps. Two set-ups of one folder wait for each other.

    Raises:
        UsageError: a program is missing, or the folder cannot be written.
        ConverterError: a step failed.
    """
    try:
        env.stamps.mkdir(parents=True, exist_ok=True)
        lock = (env.folder / "lock").open("w")
    except OSError as error:
        hint = f"choose another folder with --root or {FOLDER_VARIABLE}"
        raise UsageError(f"the folder cannot be written: {error.strerror}", where=str(env.folder), hint=hint) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _install_emulator()
        steps = missing_steps(env)
        for step in steps:
            _forget(step, env, everywhere=not steps[0].of_runtime)
        for step in steps:
            begin = time.monotonic()
            step.perform(env)
            step.stamp(env).write_text(step.recipe)
            tell(f"{step.stamp(env).name}: {time.monotonic() - begin:.1f} s")


def _forget(step: Step, env: Environment, *, everywhere: bool) -> None:
    """Take a stamp away; everywhere, if what all versions of the runtime stand on is made anew."""
    for version in RUNTIMES.values() if everywhere else (env.runtime,):
        step.stamp(replace(env, runtime=version)).unlink(missing_ok=True)
