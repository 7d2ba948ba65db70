"""Files in runtimes other than ONNX Runtime: ``python -m tools.importers FLOAT INT8 ... --data ZIP --packages DIR``.

A row for each importer, a column for each file: in how many samples the highest score is where ONNX Runtime has it, with kernels
that are exact, and its largest score over the largest difference in dB; or the first line of why the file does not load. Nothing is
installed: what is not there is listed as such.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from converter.cli.command import Parser, exit_code, print_line
from converter.errors import UsageError
from runtime_tests.model_pair import open_model_pair, stacked
from tools.importers.engines import IMPORTERS
from tools.importers.matrix import Cell, reference_outputs, run_importer

__all__ = ["main", "markdown"]


def markdown(files: Sequence[str], rows: Mapping[str, Sequence[Cell]]) -> str:
    """A row for each importer, with its version.

    Args:
        files: names of the columns.
        rows: cells by importer, one for each file.
    """
    lines = [f"| importer | {' | '.join(files)} |", f"| --- |{' --- |' * len(files)}"]
    for importer, cells in rows.items():
        version = next((cell.version for cell in cells if cell.version), "")
        lines.append(f"| {f'{importer} ({version})' if version else importer} | {' | '.join(cell.text for cell in cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the files, print the table; returns the exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m tools.importers", description="Converted files in runtimes other than ONNX Runtime.")
    add = parser.add_argument
    add("float", type=Path, metavar="FLOAT", help="the float model, which is run as well")
    add("int8", type=Path, nargs="+", metavar="INT8", help="what was converted from it")
    add("--data", type=Path, metavar="PATH", help="images to run on (default: built-in synthetic ones)")
    add("--limit", type=int, default=30, metavar="N", help="how many (default 30)")
    add("--importers", nargs="+", default=list(IMPORTERS), metavar="NAME", help=f"default all: {'; '.join(IMPORTERS)}")
    add("--packages", type=Path, metavar="DIR", help="folder of pip's --target with importers that are not installed otherwise")
    add("--seconds", type=float, default=600.0, metavar="S", help="that a file may take in an importer (default 600)")
    add("--megabytes", type=float, default=8000.0, metavar="MB", help="that it may hold (default 8000)")
    flags = parser.parse_args(arguments)
    parser.check_least(flags, limit=1)
    unknown = [name for name in flags.importers if name not in IMPORTERS]
    if unknown:
        raise UsageError(f"there is no importer '{unknown[0]}'", where="--importers", hint=f"choose from {'; '.join(IMPORTERS)}")
    if flags.packages is not None and not flags.packages.is_dir():
        raise UsageError("there is no such folder", where=f"--packages {flags.packages}", hint="make it: pip install --target DIR PACKAGE")
    limits = {"packages": flags.packages, "seconds": flags.seconds, "megabytes": flags.megabytes}
    rows: dict[str, list[Cell]] = {name: [] for name in flags.importers}
    pairs = [open_model_pair(flags.float, path, data=flags.data, count=flags.limit) for path in flags.int8]
    samples = stacked(pairs[0].feeds)
    for path, settings in [(flags.float, {}), *((pair.path, pair.settings) for pair in pairs)]:
        wanted = reference_outputs(path, samples, settings)
        for name, cells in rows.items():
            sys.stderr.write(f"{path.name} in {name}\n")
            cells.append(run_importer(name, path, samples, wanted, **limits))
    print_line(markdown([path.stem for path in (flags.float, *flags.int8)], rows))


if __name__ == "__main__":
    raise SystemExit(main())
