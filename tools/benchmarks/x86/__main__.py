"""Latency on this x86 machine: ``python -m tools.benchmarks.x86 --calib PATH [--networks ...] [--packages DIR]``.

Of each network the float model, this converter's file, and ``quantize_static``'s in ONNX Runtime; the float model, this converter's
file and NNCF's in OpenVINO, where it is installed. All run in turns in one process, on one thread each; a cell is float time over the
file's time, so that more is faster, with the range of 80 % of the turns. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from converter.cli.command import Parser, exit_code, print_line
from converter.doctor.kernels import saturates
from converter.errors import UsageError
from converter.methods.names import METHOD_NAMES
from converter.runtime.latency import LatencyRatio
from tools.benchmarks.instructions.models import NETWORKS, Workshop, check_network
from tools.benchmarks.x86.measure import FLOAT, files, latencies, openers, sample
from tools.demo.recogniser import MEMBER

__all__ = ["RECOGNISER", "main", "markdown", "ratio_text"]

RECOGNISER = "recogniser"
"""The demo's network, where the demo has left it and the lines that calibrate it."""

_USUAL = ("mobilevit_xxs", "mobilevitv2_050", RECOGNISER)


def ratio_text(ratios: Sequence[LatencyRatio]) -> str:
    """The median of several measurements; their lowest and highest tenths in brackets."""
    middle = statistics.median(one.ratio for one in ratios)
    return f"{middle:.2f} ({min(one.low for one in ratios):.2f} to {max(one.high for one in ratios):.2f})"


def markdown(columns: Mapping[str, Mapping[str, str]]) -> str:
    """A row for each file, a column for each network.

    Args:
        columns: by network, cells by row.
    """
    names = list(dict.fromkeys(name for cells in columns.values() for name in cells))
    lines = [f"| float time / its time | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    lines += [f"| {name} | {' | '.join(cells.get(name, '') for cells in columns.values())} |" for name in names]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m tools.benchmarks.x86", description="Latency of float and int8 models on this x86 machine.")
    add = parser.add_argument
    names = f"of {', '.join((*NETWORKS, RECOGNISER))}, or float models (default: {' '.join(_USUAL)})"
    add("--networks", nargs="+", default=_USUAL, metavar="NAME|FLOAT.onnx", help=names)
    add("--calib", type=Path, metavar="PATH", help="images to calibrate on (default: built-in synthetic ones)")
    add("--method", choices=METHOD_NAMES, metavar="NAME", help="of this converter's files (default: its own)")
    add("--demo", type=Path, default=Path("build/demo"), metavar="DIR", help="where `python -m tools.demo` has left the recogniser")
    add("--models", type=Path, default=Path("build/x86"), metavar="DIR", help="where models go (default build/x86)")
    add("--packages", type=Path, metavar="DIR", help="folder of pip's --target with OpenVINO and NNCF, if they are not installed otherwise")
    add("--seconds", type=float, default=10.0, metavar="S", help="that one measurement takes (default 10)")
    add("--repeats", type=int, default=3, metavar="N", help="measurements, of which the median is printed (default 3)")
    flags = parser.parse_args(arguments)
    parser.check_least(flags, repeats=1)
    if platform.machine() not in ("x86_64", "AMD64"):
        raise UsageError("this machine is none of x86", where=platform.machine(), hint="other machines: python -m tools.device_bench")
    for network in flags.networks:
        if network != RECOGNISER:
            check_network(network)
    if flags.packages is not None:
        sys.path.append(str(flags.packages.absolute()))
    target = "x86" if saturates() else "x86-vnni"
    flags.models.mkdir(parents=True, exist_ok=True)
    columns: dict[str, dict[str, str]] = {}
    for network in flags.networks:
        model, calib = (flags.demo / Path(MEMBER).name, flags.demo / "calibration.npz") if network == RECOGNISER else (network, flags.calib)
        if network == RECOGNISER and not (model.is_file() and calib.is_file()):
            sys.stderr.write(f"left out: there is no recogniser in {flags.demo}; `make demo` puts it there\n")
            continue
        sys.stderr.write(f"making files of {network} for {target}\n")
        name = Path(network).stem
        columns[name] = _cells(Workshop(flags.models, calib), str(model), target, flags)
        sys.stderr.write(f"{markdown({name: columns[name]})}\n")  # what is known if a later network fails
    print_line(markdown(columns))


def _cells(shop: Workshop, network: str, target: str, flags: argparse.Namespace) -> dict[str, str]:
    rows = files(shop, network, target, flags.method)
    runs, remarks = openers(rows, sample(shop, network))
    found = latencies(runs, seconds=flags.seconds, repeats=flags.repeats)
    return {name: ratio_text(found[name]) if name in found else remarks[name] for name in rows if name != FLOAT}


if __name__ == "__main__":
    raise SystemExit(main())
