"""``bridgequant doctor [MODEL.onnx]``: what runs in integer on this machine, and whether a file fits it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from converter.cli.command import Parser, exit_code, print_line
from converter.cli.terminal import watch
from converter.load.files import check_input, check_outputs, write_files

if TYPE_CHECKING:
    from converter.doctor.fit import FileFit
    from converter.doctor.kernels import Kernel
    from converter.doctor.machine import Machine

__all__ = ["main"]


@dataclass(frozen=True)
class _Findings:
    machine: Machine
    onnxruntime: str
    providers: tuple[str, ...]
    saturates: bool
    kernels: tuple[Kernel, ...]
    targets: tuple[str, ...]
    file: FileFit | None


def main(words: Sequence[str], *, prog: str = "bridgequant doctor") -> int:
    """Run the command; returns the exit code, which does not tell whether the file fits: the JSON does."""
    return exit_code(lambda: _run(words, prog))


def _parser(prog: str) -> Parser:
    parser = Parser(
        prog=prog,
        description="Tell what ONNX Runtime computes in integer on this machine, which --target that is, and whether a file fits.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("model", metavar="MODEL.onnx", type=Path, nargs="?", help="any ONNX model, float or quantized")
    add("--input-shape", metavar="NAME:DIMS", action="append", default=[], help="size of an open input; repeatable")
    add("--json", metavar="FILE", help="write what was found as JSON; - is stdout")
    add("-q", "--quiet", action="store_true", help="no progress and no table")
    return parser


def _run(words: Sequence[str], prog: str) -> None:
    flags = _parser(prog).parse_args(words)
    json_path = None if flags.json in (None, "-") else Path(flags.json)
    if flags.model is not None:
        check_input(flags.model)
    check_outputs({} if json_path is None else {"--json": json_path}, {} if flags.model is None else {"MODEL.onnx": flags.model})
    with watch(quiet=flags.quiet) as progress:
        progress.stage("examine")
        found = _examined(flags)
    text = json.dumps(_record(found), indent=1) + "\n"
    if json_path is not None:
        write_files({json_path: text.encode()})
    if flags.json == "-":
        print_line(text.rstrip("\n"))
    elif not flags.quiet:
        for line in _lines(found):
            print_line(line)


def _examined(flags: argparse.Namespace) -> _Findings:
    import onnxruntime

    from converter.calibration.input_shapes import parse_input_shapes
    from converter.doctor.fit import fit_of, machine_targets
    from converter.doctor.kernels import find_kernels, saturates
    from converter.doctor.machine import this_machine

    shapes = parse_input_shapes(flags.input_shape)
    machine, saturating = this_machine(), saturates()
    fit = None if flags.model is None else fit_of(flags.model, machine, saturating, input_shapes=shapes)
    providers = tuple(onnxruntime.get_available_providers())
    kernels = tuple(find_kernels())
    return _Findings(machine, onnxruntime.__version__, providers, saturating, kernels, machine_targets(machine, saturating), fit)


def _record(found: _Findings) -> dict[str, object]:
    record = asdict(found)
    if found.file is not None:
        record["file"]["fits"] = not found.file.faults
    return record


def _lines(found: _Findings) -> list[str]:
    machine = found.machine
    sets = "not told by the system" if machine.instruction_sets is None else ", ".join(machine.instruction_sets) or "none that counts"
    rows = [
        ("machine", ", ".join(part for part in (machine.architecture, machine.processor, f"{machine.cores} cores") if part)),
        ("instructions", sets),
        ("runtime", f"ONNX Runtime {found.onnxruntime}; {', '.join(found.providers)}; the CPU provider is the one that is judged here"),
        ("8-bit weights", "saturate beside uint8 activations" if found.saturates else "exact beside uint8 activations"),
        ("target", _target(found.targets)),
    ]
    lines = [f"{name:14} {text}" for name, text in rows]
    return [*lines, "", *_kernel_lines(found.kernels), *([] if found.file is None else ["", *_file_lines(found.file)])]


def _target(targets: Sequence[str]) -> str:
    if not targets:
        return "no machine class is built in for this machine; docs/targets.md says how to measure one"
    others = f"; {', '.join(targets[1:])} will do too" if targets[1:] else ""
    return f"for this machine, convert with --target {targets[0]}{others}"


def _kernel_lines(kernels: Sequence[Kernel]) -> list[str]:
    """Operators as rows, types of activations as columns."""
    columns = list(dict.fromkeys(kernel.activations for kernel in kernels))
    cells = {(kernel.kind, kernel.activations): _kernel_name(kernel) for kernel in kernels}
    kinds = dict.fromkeys(kernel.kind for kernel in kernels)
    rows = [
        ["operator", *(f"{name} activations" for name in columns)],
        *([kind, *(cells[kind, name] for name in columns)] for kind in kinds),
    ]
    wide = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=True)).rstrip() for row in rows]


def _kernel_name(kernel: Kernel) -> str:
    """The kernel that computes; where the runtime moves data around it, those are left out."""
    names = [name for name in kernel.ran if name != "Transpose"] or list(kernel.ran[:1])
    return ", ".join(names) if kernel.integer else f"float ({', '.join(names)})"


def _file_lines(file: FileFit) -> list[str]:
    needs = file.needs
    codes = f"{' and '.join(needs.activations)} activations, int8 weights up to {needs.weight_codes}" if needs.activations else "no codes"
    made = f"made for {needs.target}" if needs.target else "does not say for which machine"
    lines = [
        f"{file.name}: opset {needs.opset}, IR {needs.ir_version}, {codes}; {made}",
        *([] if not needs.domains else [f"  operators of {', '.join(needs.domains)}"]),
        *([] if file.integer is None else [f"  {file.integer:.1%} of its multiply-accumulates run in integer here"]),
        *([] if file.parity_db is None else [f"  {file.parity_db:.0f} dB against the same file without fused operators (200: equal)"]),
        *(f"  {remark}" for remark in file.remarks),
    ]
    return [*lines, *(["it fits"] if not file.faults else [f"it does not fit: {fault}" for fault in file.faults])]
