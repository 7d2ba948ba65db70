"""Build the sample: headers of ONNX Runtime's C API, the library of a Python package, and a compiler."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import onnxruntime

from converter.errors import ConverterError, UsageError
from runtime_tests.emulation.apt import apt_in, install_package
from runtime_tests.emulation.environment import Environment
from runtime_tests.emulation.external import run_program
from runtime_tests.emulation.setup import require

__all__ = ["CROSS_COMPILER", "SOURCE", "build", "build_for_arm64", "fetch_headers", "install_cross_compiler"]

SOURCE = Path(__file__).with_name("classify.c")
CROSS_COMPILER = "aarch64-linux-gnu-gcc"
_CROSS_PACKAGES = ("gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross")

_HEADER = "onnxruntime_c_api.h"
_PACKAGE, _RELEASE = "libonnxruntime-dev", "trixie"
"""The oldest Debian that has headers of ONNX Runtime. Newer libraries keep the interface that they describe."""

_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_HINT = f"name a folder that holds {_HEADER} by ONNXRUNTIME_HEADERS; those of ONNX Runtime's Android package do, too"


def fetch_headers(folder: Path) -> Path:
    """The folder of the headers: the one that ``ONNXRUNTIME_HEADERS`` names, else one below ``folder``, filled from Debian's archive.

    Nothing is installed; root is not needed. Quick when they are there already.

    Raises:
        UsageError: this machine has no apt.
        ConverterError: the package cannot be fetched.
    """
    given = os.environ.get("ONNXRUNTIME_HEADERS")
    headers = Path(given) if given else folder.absolute() / "headers"
    if (headers / _HEADER).is_file():
        return headers
    if given:
        raise UsageError(f"there is no {_HEADER} in this folder", where=f"ONNXRUNTIME_HEADERS={given}", hint=_HINT)
    apt = folder.absolute() / "apt"
    command = apt_in(apt, source=f"deb [signed-by={_KEYS}] {_mirror()} {_RELEASE} main")
    run_program([*command, "update"], "fetching the list of packages", hint=_HINT)
    # without what it depends on, which "install --download-only" would fetch too; it goes where it is called
    run_program(["env", "--chdir", str(apt), *command, "download", _PACKAGE], "fetching the headers", hint=_HINT)
    (package,) = apt.glob(f"{_PACKAGE}_*.deb")
    run_program(["dpkg-deb", "--extract", str(package), str(apt / "root")], "unpacking the headers", hint=_HINT, install="dpkg")
    shutil.copytree(apt / "root" / "usr" / "include" / "onnxruntime", headers, dirs_exist_ok=True)
    shutil.rmtree(apt)
    return headers


def _mirror() -> str:
    """Where this machine gets its Debian packages from."""
    command = ["apt-get", "indextargets", "--format", "$(COMPONENT) $(REPO_URI)", "Identifier: Packages"]
    lines = run_program(command, "apt's list of sources", hint=_HINT, install="apt").splitlines()
    found = [uri for component, _, uri in (line.partition(" ") for line in lines) if component == "main" and "security" not in uri]
    if not found:
        raise ConverterError("apt has no source of Debian packages", where="fetching the headers", hint=_HINT)
    return found[0]


def build(folder: Path, headers: Path, *, site: Path | None = None, compiler: str = "gcc") -> Path:
    """Build the sample; returns the program, which knows where its library is.

    Args:
        folder: for the program, and for links that give the library the names that linker and loader look for.
        site: of the Python package that has the library; by default the one that runs here.
        compiler: for the machine that the library is for.

    Raises:
        UsageError: there is no compiler.
        ConverterError: the package has no library, or the compiler fails.
    """
    package = Path(onnxruntime.__file__).parent if site is None else site / "onnxruntime"
    libraries = sorted((package / "capi").glob("libonnxruntime.so.*"))
    if not libraries:
        raise ConverterError("the package holds no library for C programs", where=str(package), hint="take the one for Linux")
    names = folder.absolute() / "library"
    names.mkdir(parents=True, exist_ok=True)
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (names / name).unlink(missing_ok=True)
        (names / name).symlink_to(libraries[0].absolute())
    program = folder.absolute() / "classify"
    command = [compiler, "-std=c11", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-I", str(headers), str(SOURCE)]
    command += ["-o", str(program), "-L", str(names), "-lonnxruntime", "-lm", f"-Wl,-rpath,{names}"]
    run_program(command, "building the sample", hint="see whether the compiler can build a program", install="gcc libc6-dev")
    return program


def install_cross_compiler() -> None:
    """Install the compiler for ARM64 from Debian, if it is not there; needs root.

    Raises:
        UsageError: this is not Debian.
        ConverterError: apt failed.
    """
    if shutil.which(CROSS_COMPILER) is None:
        for package in _CROSS_PACKAGES:
            install_package(package, "the compiler for ARM64")


def build_for_arm64(folder: Path, headers: Path, env: Environment) -> Path:
    """The same for the emulated ARM64 machine, with its library.

    Raises:
        UsageError: there is no compiler for ARM64, or no emulated machine.
        ConverterError: the compiler fails.
    """
    require(env)
    return build(folder, headers, site=env.site, compiler=CROSS_COMPILER)
