"""One network of each family through export and conversion, as a table: ``python -m tools.benchmarks.families --calib PATH``.

The weights are random, so the table shows that everything converts, loads, runs in integer and computes what was
planned. What it costs in accuracy can only be seen on trained networks.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from converter.cli.command import Parser, exit_code, print_line
from converter.options import Options
from converter.pipeline import convert
from converter.report import Report
from converter.targets import TARGETS
from models.export import build, export_model

__all__ = ["FAMILIES", "FamilyResult", "convert_family", "main", "markdown"]

FAMILIES = ("mobilevit_xxs", "mobilevitv2_050", "mobile_former_26m", "efficientformer_l1", "efficientformerv2_s0")


@dataclass(frozen=True)
class FamilyResult:
    """One conversion."""

    network: str
    size: int
    report: Report


def convert_family(network: str, folder: Path, options: Options, *, size: int | None = None) -> FamilyResult:
    """Export a network with random weights and convert it.

    Args:
        network: name, as in ``models.registry``.
        folder: where both files go; the export is reused if it is there.
        size: pixels; by default what the network was published for.
    """
    built = build(network, size=size)
    source = folder / f"{network}_{built.size}.onnx"
    if not source.exists():
        source.write_bytes(export_model(built))
    report = convert(source, folder / f"{network}_{built.size}_{options.target}_{options.method}.onnx", options)
    return FamilyResult(network, built.size, report)


def markdown(results: Sequence[FamilyResult]) -> str:
    """The results as a Markdown table."""
    lines = [
        "| network | px | target | SQNR dB | top-1 agreement | parity dB | integer coverage | size MB | float time / int8 time here |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for result in results:
        report, verdict = result.report, result.report.verdict
        assert verdict is not None
        quality = verdict.outputs[0]
        assert quality.sqnr_db is not None and verdict.parity_db is not None
        agreement = "" if quality.agreement is None else f"{quality.agreement:.0%}"
        latency = "" if report.latency is None else f"{report.latency.ratio:.2f}"
        lines.append(
            f"| {result.network} | {result.size} | {report.target} | {quality.sqnr_db:.1f} | {agreement} | {verdict.parity_db:.0f} "
            f"| {verdict.integer_coverage.coverage:.1%} | {report.float_bytes / 1e6:.1f} → {report.integer_bytes / 1e6:.1f} | {latency} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m tools.benchmarks.families", description="Convert one network of each family.")
    parser.add_argument("--calib", type=Path, help="images (default: built-in synthetic ones)")
    parser.add_argument("--out", type=Path, default=Path("build/families"))
    parser.add_argument("--networks", nargs="+", default=FAMILIES, metavar="NAME")
    parser.add_argument("--targets", nargs="+", default=["arm64", "x86"], choices=list(TARGETS))
    parser.add_argument("--method", default=Options.method)
    flags = parser.parse_args(arguments)
    flags.out.mkdir(parents=True, exist_ok=True)
    results = []
    for network in flags.networks:
        for target in flags.targets:
            sys.stderr.write(f"{network} for {target}\n")
            results.append(convert_family(network, flags.out, Options(calib=flags.calib, target=target, method=flags.method)))
    print_line(markdown(results).rstrip())


if __name__ == "__main__":
    raise SystemExit(main())
