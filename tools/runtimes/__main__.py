"""Converted files in every minor version of ONNX Runtime from 1.17 on: ``python -m tools.runtimes --wheels DIR --install``.

A row for each version, a column for each file: its outputs beside those of the newest version, or why it does not run. Without
``--pair``, the files are made from the smallest trained checkpoint. Nothing is downloaded without ``--install``. The exit code is 5 if
a file does not run as it should in a version that its metadata promise is enough.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from packaging.version import InvalidVersion, Version

from converter.cli.command import Parser, exit_code, print_line
from converter.errors import UsageError, VerificationError
from converter.load.files import write_files
from converter.methods.names import METHOD_NAMES, MethodName
from models.export import build, export_model
from runtime_tests.model_pair import open_model_pair
from tools.runtimes.files import make_files
from tools.runtimes.matrix import Cell, run_versions
from tools.runtimes.wheels import install, installed, last_of_each_minor, published

__all__ = ["broken_promises", "main", "markdown"]

CHECKPOINTS = Path(__file__).resolve().parents[2] / "models" / "checkpoints"

NETWORK = "mobilevit_xxs"
"""The smallest of those with a trained checkpoint."""


def markdown(columns: Mapping[str, Sequence[Cell]]) -> str:
    """A row for each version. In brackets: what a file does not promise.

    Args:
        columns: the same versions for each file.
    """
    lines = [f"| ONNX Runtime | {' | '.join(columns)} |", f"| ---: |{' --- |' * len(columns)}"]
    for row in zip(*columns.values(), strict=True):
        cells = (cell.text if cell.promised else f"({cell.text})" for cell in row)
        lines.append(f"| {row[0].version} | {' | '.join(cells)} |")
    return "\n".join(lines)


def broken_promises(columns: Mapping[str, Sequence[Cell]]) -> list[str]:
    """Sentences on files that do not run as they should in a version that they say is enough."""
    return [
        f"{name} in {cell.version}: {cell.text}" for name, cells in columns.items() for cell in cells if cell.promised and not cell.agrees
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the files, run them, print the table; returns the exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m tools.runtimes", description="Converted files in every version of ONNX Runtime from 1.17 on.")
    add = parser.add_argument
    add("--wheels", type=Path, required=True, metavar="DIR", help="with a folder for each version, named after it")
    add("--install", action="store_true", help="have pip put versions that are missing into --wheels (60 to 150 MB each)")
    add("--versions", nargs="+", metavar="X.Y.Z", help="default: of each minor version the last one")
    add("--pair", nargs=2, type=Path, action="append", metavar=("FLOAT", "INT8"), help="files to run; repeatable")
    add("--targets", nargs="+", default=["arm64", "x86"], metavar="NAME", help="without --pair: to convert for (default arm64 x86)")
    add(
        "--method",
        default="mse",
        choices=METHOD_NAMES,
        metavar="NAME",
        help="without --pair (default mse: quick, and as good as any for this)",
    )
    add("--calib", type=Path, metavar="PATH", help="without --pair: images to calibrate on (default: built-in synthetic ones)")
    add("--data", type=Path, metavar="PATH", help="images to run on (default: built-in synthetic ones)")
    add("--samples", type=int, default=100, metavar="N", help="how many (default 100)")
    add("--out", type=Path, default=Path("build/runtimes"), metavar="DIR", help="of the files that are made (default build/runtimes)")
    flags = parser.parse_args(arguments)
    parser.check_least(flags, samples=1)
    folders = _folders(flags.wheels, flags.versions, flags.install)
    pairs = flags.pair or _made(flags.out, flags.targets, flags.calib, flags.method)
    columns: dict[str, Sequence[Cell]] = {}
    for floats, path in pairs:
        model_pair = open_model_pair(floats, path, data=flags.data, count=flags.samples)
        sys.stderr.write(f"running {path} in {len(folders)} versions\n")
        columns[path.stem] = run_versions(model_pair, folders)
    print_line(markdown(columns))
    broken = broken_promises(columns)
    if broken:
        raise VerificationError(broken[0], where=f"{len(broken)} such cells of the table", hint="correct what files promise, or the files")


def _made(out: Path, targets: Sequence[str], calib: Path | None, method: MethodName) -> list[tuple[Path, Path]]:
    floats = out / f"{NETWORK}.onnx"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder: {error.strerror}", where=f"--out {out}", hint="choose another") from None
    write_files({floats: export_model(build(NETWORK, checkpoint=CHECKPOINTS / f"{NETWORK}.safetensors"))})
    return [(floats, path) for path in make_files(floats, out, targets, calib, method)]


def _folders(wheels: Path, wanted: Sequence[str] | None, install_missing: bool) -> dict[Version, Path]:
    try:
        versions = None if wanted is None else [Version(v) for v in wanted]
    except InvalidVersion as error:
        raise UsageError(str(error), where="--versions", hint="give versions such as 1.17.3") from None
    if install_missing:
        install(wheels, last_of_each_minor(published()) if versions is None else versions)
    found = installed(wheels)
    if versions is None:
        versions = last_of_each_minor(found)
    missing = [str(v) for v in versions if v not in found]
    if missing or not versions:
        what = f"there is no ONNX Runtime {', '.join(missing)}".rstrip()
        raise UsageError(what, where=f"--wheels {wheels}", hint="add --install to have pip download what is missing")
    return {version: found[version] for version in versions}


if __name__ == "__main__":
    raise SystemExit(main())
