"""Predicted against counted cost of whole models: ``python -m tools.profile.check FLOAT.onnx ... --target arm64 --core cortex-a76``.

Each float model is converted for the target. Both the float model and what was made of it are counted in the emulated core, and
set beside what the target's prices said, with ``--second`` those of its second unit.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from converter.cli.command import Parser, exit_code
from converter.errors import BoundMissedError, UsageError
from converter.options import Options
from converter.pipeline import convert
from converter.targets import find_target
from runtime_tests.emulation.cores import CORES, check_core
from runtime_tests.emulation.count import count
from runtime_tests.emulation.environment import RUNTIME_CHOICE, Environment, environment
from tools.arm64.model_cycles import check_cycles, model_cycles
from tools.profile.arm64 import CYCLES, INSTRUCTIONS

__all__ = ["Comparison", "compared", "main"]


@dataclass(frozen=True)
class Comparison:
    """One model: millions of the target's unit, predicted and counted."""

    model: str
    predicted: float
    counted: float

    @property
    def error(self) -> float:
        """Of the prediction, relative to the count."""
        return self.predicted / self.counted - 1.0


def compared(
    models: Sequence[Path], options: Options, core: str, env: Environment | None = None, *, second: bool = False
) -> list[Comparison]:
    """Convert each model and compare: the float model, then the integer one.

    Args:
        second: compare in the target's second unit.

    Raises:
        UsageError: the target's costs are neither instructions nor cycles, or the emulator is not set up.
    """
    unit = _unit(options.target, second)
    if unit == CYCLES:
        check_cycles(core)
    env = env or environment()
    found = []
    with tempfile.TemporaryDirectory(prefix="profile-") as folder:
        for place, model in enumerate(models):
            made = Path(folder, f"{place}.onnx")
            report = convert(model, made, options)
            counts = _counted([model, made], core, env, unit)
            cost = next(each for each in report.costs if each.unit == unit)
            for name, predicted, counted in zip(
                (model.stem, f"{model.stem} int8"), (cost.predicted_float, cost.predicted), counts, strict=True
            ):
                found.append(Comparison(name, predicted / 1e6, counted / 1e6))
    return found


def _unit(name: str, second: bool) -> str:
    """The unit that is compared; UsageError if it is not one that the emulator gives."""
    target = find_target(name)
    if second and target.second is None:
        hint = "add one with python -m tools.profile.target --second"
        raise UsageError(f"target '{target.name}' has no second unit", where="--second", hint=hint)
    unit = target.second.unit if second and target.second is not None else target.unit
    if unit not in (INSTRUCTIONS, CYCLES):
        what = f"the costs of target '{target.name}' are {unit}, not {INSTRUCTIONS} or {CYCLES}"
        raise UsageError(what, where="--target", hint="give a target for ARM64")
    return unit


def _counted(models: Sequence[Path], core: str, env: Environment, unit: str) -> list[float]:
    if unit == CYCLES:
        return [each.amount.cycles for each in model_cycles(models, core, env)]
    return [each.median for each in count(models, core, env=env)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare and print; returns the exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m tools.profile.check", description="Predicted against counted instructions of whole models.")
    add = parser.add_argument
    add("models", nargs="+", type=Path, metavar="FLOAT.onnx")
    add("--target", default="arm64", metavar="NAME", help="whose prices are checked: a name, or FILE.toml (default arm64)")
    add("--core", default="cortex-a76", help=f"{' | '.join(CORES)} (default cortex-a76)")
    add("--method", default="mse", metavar="NAME", help="of the conversion (default mse, a quick one)")
    add("--second", action="store_true", help="check the prices of the target's second unit")
    add("--within", type=float, metavar="SHARE", help="exit 6 if a prediction is off by more, such as 0.15")
    add("--runtime", default="newest", metavar="VERSION", help=f"ONNX Runtime: {RUNTIME_CHOICE} (default newest)")
    add("--root", type=Path, metavar="DIR", help="folder of the emulator's set-up")
    flags = parser.parse_args(arguments)
    if flags.within is not None and not 0 < flags.within < math.inf:
        raise UsageError(f"{flags.within:g} is no share that a prediction may be off by", where="--within", hint="give one such as 0.15")
    options = Options(target=flags.target, method=flags.method, samples=8)
    env = environment(flags.root, flags.runtime)
    found = compared(flags.models, options, check_core(flags.core), env, second=flags.second)
    ran = f"{flags.core}, ONNX Runtime {env.runtime}"
    unit = _unit(flags.target, flags.second)
    _print(Console(width=None if sys.stdout.isatty() else 110, highlight=False), found, flags.target, f"{ran}: million {unit}")
    worst = max(found, key=lambda each: abs(each.error))
    if flags.within is not None and abs(worst.error) > flags.within:
        what = f"{worst.model} is predicted {worst.error:+.2%} off, {100 * flags.within:g}% were allowed"
        raise BoundMissedError(what, where="--within", hint="fit the target anew with python -m tools.profile.target")


def _print(console: Console, found: Sequence[Comparison], target: str, ran: str) -> None:
    table = Table(title=f"target {escape(target)}, {ran}", title_justify="left")
    for heading in ("model", "predicted", "counted", "error"):
        table.add_column(heading, justify="left" if heading == "model" else "right", overflow="fold")
    for each in found:
        table.add_row(escape(each.model), f"{each.predicted:.1f}", f"{each.counted:.1f}", f"{each.error:+.1%}")
    console.print(table)


if __name__ == "__main__":
    raise SystemExit(main())
