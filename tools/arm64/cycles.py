"""Estimate the cycles of one inference on an ARM64 core: ``python -m tools.arm64.cycles MODEL.onnx [MODEL.onnx ...] --core CORE``."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from converter.cli.command import exit_code
from converter.load.files import write_files
from runtime_tests.emulation.environment import environment
from tools.arm64.flags import model_parser, parse_models
from tools.arm64.llvm import CORE_MODELS, check_modelled
from tools.arm64.model_cycles import Amount, ModelCycles, cycles_by_type, cycles_per_op, model_cycles

__all__ = ["cycles_json", "main", "print_by_type", "print_cycles"]

_NONE = ["", "", "", ""]
_LONGEST = len("QLinearGlobalAveragePool")


def cycles_json(found: Sequence[ModelCycles]) -> str:
    """Everything as JSON: what ran, LLVM's version and processor; then for each model the whole, and its parts if it was taken apart."""
    machine = found[0].count.machine
    llvm = {"version": found[0].llvm, "processor": check_modelled(machine.core).processor}
    content = {"machine": dataclasses.asdict(machine), "llvm": llvm, "models": [_model(each) for each in found]}
    return json.dumps(content, indent=2) + "\n"


def _model(found: ModelCycles) -> dict[str, object]:
    head = {"model": str(found.count.model), "sha256": found.count.digest, **dataclasses.asdict(found.whole)}
    if found.call is None:
        return head
    types = [
        {"op_type": op_type, "nodes": nodes, **dataclasses.asdict(amount)}
        for op_type, (nodes, amount) in cycles_by_type(found.nodes).items()
    ]
    nodes = [dataclasses.asdict(node) for node in found.nodes]
    return {
        **head,
        "call": dataclasses.asdict(found.call),
        "remainder": dataclasses.asdict(found.remainder),
        "types": types,
        "nodes": nodes,
    }


def print_cycles(console: Console, found: Sequence[ModelCycles]) -> None:
    """A table: millions of instructions and cycles, both beside the first model's, and instructions of a cycle."""
    machine = found[0].count.machine
    console.print(f"{machine}; cycles by LLVM {found[0].llvm} for {check_modelled(machine.core).processor}", markup=False)
    table = _table("model", "M instructions", "ratio", "M cycles", "ratio", "IPC", "judged")
    first = found[0].amount
    for each in found:
        ratios = (f"{each.amount.instructions / first.instructions:.3f}", f"{each.amount.cycles / first.cycles:.3f}")
        instructions, cycles, per_cycle = _cells(each.amount)
        judged = f"{each.whole.judged / each.whole.instructions:.1%}"
        table.add_row(escape(str(each.count.model)), instructions, ratios[0], cycles, ratios[1], per_cycle, judged)
    console.print(table)


def print_by_type(console: Console, found: Sequence[ModelCycles]) -> None:
    """A table: what each type of node takes in each model, side by side, with all that makes up the whole."""
    headings = [f"{place}\n{heading}" for place in range(1, len(found) + 1) for heading in ("nodes", "M instr.", "M cycles", "IPC")]
    table = _table("type", *headings)
    types = [cycles_by_type(each.nodes) for each in found]
    cost = {op_type: max(sums[op_type][1].cycles for sums in types if op_type in sums) for sums in types for op_type in sums}
    for op_type in sorted(cost, key=lambda name: (-cost[name], name)):
        cells = ([str(sums[op_type][0]), *_cells(sums[op_type][1])] if op_type in sums else _NONE for sums in types)
        table.add_row(op_type, *(cell for row in cells for cell in row))
    table.add_section()
    for name, amounts in (
        ("call of the runtime", [each.call or Amount(0, 0.0) for each in found]),
        ("remainder", [each.remainder for each in found]),
        ("whole model", [each.amount for each in found]),
    ):
        table.add_row(name, *(cell for amount in amounts for cell in ("", *_cells(amount))))
    console.print(table)
    for each in found:
        for node in (node for node in each.nodes if node.error is not None):
            console.print(f"not measured: {node.op_type} {node.name}: {node.error.splitlines()[0]}", markup=False)  # type: ignore[union-attr]


def _cells(amount: Amount) -> tuple[str, str, str]:
    per_cycle = amount.per_cycle
    return f"{amount.instructions / 1e6:.3f}", f"{amount.cycles / 1e6:.3f}", "" if per_cycle is None else f"{per_cycle:.2f}"


def _table(first: str, *others: str) -> Table:
    table = Table()
    table.add_column(first, overflow="fold", min_width=_LONGEST)
    for heading in others:
        table.add_column(heading, justify="right")
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Estimate and print; returns the exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    what = "Estimate the cycles of one inference on an ARM64 core."
    per_op = "what each type of node takes, the models side by side"
    flags = parse_models(model_parser("python -m tools.arm64.cycles", what, CORE_MODELS, per_op), arguments)
    env = environment(flags.root, flags.runtime)
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    if flags.per_op:
        found = [cycles_per_op(model, flags.core, env, inputs=flags.inputs, seed=flags.seed) for model in flags.models]
    else:
        found = model_cycles(flags.models, flags.core, env, inputs=flags.inputs, seed=flags.seed)
    print_cycles(console, found)
    if flags.per_op:
        print_by_type(console, found)
    if flags.json is not None:
        write_files({flags.json: cycles_json(found).encode()})


if __name__ == "__main__":
    raise SystemExit(main())
