"""Fit a target's costs to measurements: ``python -m tools.profile.target TARGET --out FILE.toml``.

Types and settings come from the target named. Costs are measured: counted instructions of an emulated core if ``--core`` is
given or the target is for ARM64 and this machine is not, or what is known of its cycles with ``--objective cycles``; by the clock in
Node, with ONNX Runtime Web, for the target ``web`` or if ``--web`` is given; by the clock on this machine otherwise.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime
from rich.console import Console
from rich.table import Table

from converter.cli.command import Parser, exit_code
from converter.errors import UsageError
from converter.forms.registry import WITHOUT_FORM
from converter.graph.operator_sets import CLAMPS
from converter.load.files import check_outputs, write_files
from converter.runtime.session import Feed
from converter.targets import DEFAULT_TARGET, find_target
from converter.targets.costs import COLUMN_CONVOLUTION_KIND, LINEAR_CONVOLUTION_KIND, PIECEWISE_LINEAR_KIND, kind_of
from converter.targets.target import Cost, Prices, Target
from converter.targets.target_file import FILE_SUFFIX, target_text
from runtime_tests.emulation.cores import CORES, check_core
from runtime_tests.emulation.environment import RUNTIME_CHOICE, Environment, environment
from tools.arm64.model_cycles import check_cycles
from tools.profile.arm64 import CYCLES, INSTRUCTIONS, counted_nodes
from tools.profile.clock import clocked_nodes, prepared
from tools.profile.fit import Fit, fit, fit_all
from tools.profile.probes import BRANCH_LETTERS, Probe, among_codes, convolved_form, feeds, integers, probe_model, probes, seen_in
from tools.profile.samples import Sample, Timed, conversion_samples, operator_samples
from tools.profile.web import web_nodes
from tools.web.package import FOLDER_VARIABLE, Package, find_package

__all__ = [
    "PICOSECOND_FLOOR",
    "RUNS",
    "VISITS",
    "Measured",
    "check_target_file",
    "fitted",
    "main",
    "measured_forms",
    "print_fits",
    "probe_forms",
    "refitted",
]

_CORES: Mapping[str, str] = {
    "arm64": "cortex-a76",
    "arm64-v8.0": "cortex-a53",
    "arm64-a55": "cortex-a55",
    "arm64-i8mm": "max-sve128",
    "arm64-sme": "max-sme",
}
_WEB = "web"
_EMULATED_FLOOR, PICOSECOND_FLOOR, _WEB_FLOOR = 20e3, 5e6, 1e6
"""Costs below which errors in proportion do not matter."""

_CLOCK_UNIT = "picoseconds"

RUNS, VISITS = 20, 3
"""Of each probe by the clock, unless told otherwise."""

_SMALLEST = {"node": 1.0}
_ELEMENTWISE = ("Sub", "Div", "HardSigmoid", "Tanh", "Erf")
"""Operators whose samples together make the cost of float operators that are not listed."""


@dataclass(frozen=True)
class _Visits:
    """How often each probe is visited by the clock, how often it runs then, and who is told of it."""

    runs: int
    rounds: int
    console: Console

    def progress(self, done: int, total: int) -> None:
        if done % 100 == 0 or done == total:
            self.console.print(f"{done} of {total} visits", markup=False)

    def told(self, ran: str, began: float) -> str:
        return f"{ran}, one thread, {self.rounds} visits of {self.runs} runs in {time.time() - began:.0f} s"


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        floats: operators in float.
        integers: operators in integer.
        conversions: Q and DQ.
        call: cost of a run without operators.
        ran: on what, in a line.
        unit: of all costs.
        floor: cost below which errors in proportion do not matter.
        onnxruntime: version of the runtime that ran.
    """

    floats: list[Sample]
    integers: list[Sample]
    conversions: list[Sample]
    call: float
    ran: str
    unit: str
    floor: float
    onnxruntime: str = ""


def fitted(base: Target, measured: Measured) -> tuple[Target, dict[str, Fit]]:
    """The target with costs that fit the measurements, and the fits by kind and form, as ``Conv integer``."""
    # a piecewise-linear sigmoid of which nothing was measured keeps its price; in another unit that would mean something else,
    # and without a price nothing is replaced
    kept = PIECEWISE_LINEAR_KIND in base.costs and base.unit == measured.unit
    found, fits = _operators(measured)
    costs = {PIECEWISE_LINEAR_KIND: base.costs[PIECEWISE_LINEAR_KIND]} | found if kept else found
    conversions = fit_all(measured.conversions, measured.floor)
    fits |= conversions
    quantize, dequantize = (conversions[f"{which}Linear"].prices for which in ("Quantize", "Dequantize"))
    other = fit([s for s in measured.floats if s.kind in _ELEMENTWISE], ("node", "element"), measured.floor)
    target = replace(
        base,
        unit=measured.unit,
        costs=costs,
        # the placement needs a Q to be no cheaper than a DQ
        quantize_node=max(quantize.get("node", 0.0), dequantize.get("node", 0.0)),
        quantize_element=max(quantize.get("element", 0.0), dequantize.get("element", 0.0)),
        dequantize_node=dequantize.get("node", 0.0),
        dequantize_element=dequantize.get("element", 0.0),
        call=measured.call,
        other=other.prices,
        fit=_remarks(measured.ran, fits),
        onnxruntime=measured.onnxruntime,
        second=None,
    )
    return target, fits


def refitted(base: Target, measured: Measured) -> tuple[Target, dict[str, Fit]]:
    """The same with new costs of the operators that were measured; all else is kept.

    Raises:
        UsageError: what is kept was measured elsewhere, or in another unit.
    """
    before = base.fit.get("measured")
    if (base.unit, before) != (measured.unit, measured.ran):
        what = f"the costs that '{base.name}' would keep are {base.unit}, measured on: {before or 'an unknown machine'}"
        raise UsageError(what, where="--only", hint=f"without it, measure all on: {measured.ran}")
    costs, fits = _operators(measured)
    return replace(base, costs={**base.costs, **costs}, fit={**base.fit, **_remarks(measured.ran, fits)}), fits


def _operators(measured: Measured) -> tuple[dict[str, Cost], dict[str, Fit]]:
    """Costs of the kinds of operators that were measured, and the fits by kind and form."""
    by_form = {"float": fit_all(measured.floats, measured.floor), "integer": fit_all(measured.integers, measured.floor, integer=True)}
    costs = {}
    for kind, found in by_form["float"].items():
        integer = by_form["integer"].get(kind)
        # what costs nothing in float could never be worth anything in integer
        costs[kind] = Cost(found.prices or _SMALLEST, None if integer is None else integer.prices)
    for kind, plain in ((COLUMN_CONVOLUTION_KIND, "Conv"), (LINEAR_CONVOLUTION_KIND, "Linear")):
        if kind in by_form["integer"]:
            costs[kind] = Cost(costs[plain].float, by_form["integer"][kind].prices)
    return costs, {f"{kind} {form}": found for form in by_form for kind, found in by_form[form].items()}


def _remarks(ran: str, fits: Mapping[str, Fit]) -> dict[str, Any]:
    errors = {name: [round(found.median, 3), round(found.largest, 3)] for name, found in fits.items()}
    return {"measured": ran, "errors": "relative: median, largest", **errors}


def _emulated(core: str, env: Environment, target: Target, given: Sequence[Probe], unit: str) -> Measured:
    model = probe_model(given)
    seen = seen_in(model)
    in_float, call, ran = counted_nodes(ir.to_proto(model), core, env, unit)
    _, offered = integers(model, seen, target)
    half = probe_model(given, only={name[:BRANCH_LETTERS] for name in offered})
    in_integer, _, _ = counted_nodes(integers(half, seen_in(half), target)[0], core, env, unit)
    found = _measured(model, in_float, in_integer, offered, call, ran, unit, _EMULATED_FLOOR, env.runtime)
    others = [*_convolved(core, env, target, given, unit), *_without_form(core, env, target, model, unit)]
    return replace(found, integers=[*found.integers, *others])


def _convolved(core: str, env: Environment, target: Target, given: Sequence[Probe], unit: str) -> list[Sample]:
    """What layers take as convolutions of another image, with all that moves codes there and back."""
    forms = {str(node.name): convolved_form(node)[1] for node in probe_model(given).graph}
    names = [name for name, kind in forms.items() if kind and not name.endswith("_before")]
    if not names:
        return []
    model = probe_model(given, only=names)
    proto, offered = integers(model, seen_in(model), target, convolved=True)
    nodes, _, _ = counted_nodes(proto, core, env, unit)
    shapes = {name: stats.shape for name, stats in seen_in(model).tensors.items()}
    found = (
        (kind, operator_samples(nodes, model, shapes, [n for n in offered if forms[n] == kind])) for kind in dict.fromkeys(forms.values())
    )
    return [replace(sample, kind=kind) for kind, samples in found if kind for sample in samples]


def _without_form(core: str, env: Environment, target: Target, model: ir.Model, unit: str) -> list[Sample]:
    """Integer kernels that no form of the converter uses: what files of other tools cost, and that the forms would not pay."""
    proto, names = among_codes(model, target, WITHOUT_FORM)
    if not names:
        return []
    nodes, _, _ = counted_nodes(proto, core, env, unit)
    shapes = {name: stats.shape for name, stats in seen_in(model).tensors.items()}
    return operator_samples(nodes, model, shapes, names)


def _clocked(target: Target, given: Sequence[Probe], visits: _Visits) -> Measured:
    settings = target.session_settings.get(platform.machine(), {})
    forms, offered = probe_forms(target, given)
    pairs = [[prepared(each, feed, settings) for each in protos] for protos, feed in forms]
    began = time.time()
    nodes = clocked_nodes(pairs, runs=visits.runs, rounds=visits.rounds, progress=visits.progress)
    ran = visits.told(f"{platform.processor() or platform.machine()}, onnxruntime {onnxruntime.__version__}", began)
    return measured_forms(given, nodes, offered, ran, PICOSECOND_FLOOR, onnxruntime.__version__)


def _in_web(target: Target, given: Sequence[Probe], visits: _Visits, package: Package) -> Measured:
    forms, offered = probe_forms(target, given)
    began = time.time()
    nodes = web_nodes(forms, package, runs=visits.runs, rounds=visits.rounds, progress=visits.progress)
    ran = visits.told(f"Node on {platform.processor() or platform.machine()}, onnxruntime-web {package.version}", began)
    return measured_forms(given, nodes, offered, ran, _WEB_FLOOR, package.version)


def probe_forms(target: Target, given: Sequence[Probe]) -> tuple[list[tuple[list[onnx.ModelProto], Feed]], frozenset[str]]:
    """Float and integer form of each probe with its inputs; and the names of those that have an integer form."""
    forms: list[tuple[list[onnx.ModelProto], Feed]] = []
    offered: set[str] = set()
    for place in range(len(given)):
        model = probe_model(given[place : place + 1], first=place)
        proto, names = integers(model, seen_in(model), target)
        offered |= names
        forms.append(([ir.to_proto(model), proto], feeds(model)))
    return forms, frozenset(offered)


def measured_forms(
    given: Sequence[Probe], nodes: Sequence[Sequence[Sequence[Timed]]], offered: frozenset[str], ran: str, floor: float, version: str
) -> Measured:
    """What the nodes of both forms of each probe, timed by the clock, say about operators."""
    in_float = [node for pair in nodes for node in pair[0]]
    in_integer = [node for pair in nodes for node in pair[1]]
    return _measured(probe_model(given), in_float, in_integer, offered, 0.0, ran, _CLOCK_UNIT, floor, version)


def _measured(
    model: ir.Model,
    in_float: Sequence[Timed],
    in_integer: Sequence[Timed],
    offered: frozenset[str],
    call: float,
    ran: str,
    unit: str,
    floor: float,
    version: str,
) -> Measured:
    shapes = {name: stats.shape for name, stats in seen_in(model).tensors.items()}
    return Measured(
        operator_samples(in_float, model, shapes),
        operator_samples(in_integer, model, shapes, offered),
        conversion_samples(in_integer),
        call,
        ran,
        unit,
        floor,
        version,
    )


def print_fits(console: Console, target: Target, fits: Mapping[str, Fit]) -> None:
    """Show what each kind of operator costs, and how far the fit is off."""
    console.print(f"{target.name}: {target.fit['measured']}; costs in {target.unit}", markup=False)
    table = Table()
    for heading in ("operator", "measured", "median error", "largest error", "price of each"):
        table.add_column(heading, justify="right" if heading in ("measured", "median error", "largest error") else "left", overflow="fold")
    for name, found in fits.items():
        table.add_row(name, str(found.samples), f"{found.median:.1%}", f"{found.largest:.1%}", _prices(found.prices))
    console.print(table)


def _prices(prices: Prices) -> str:
    return ", ".join(f"{feature} {price:g}" for feature, price in prices.items()) or "nothing"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, fit, print and write; returns the exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m tools.profile.target", description="Fit a target's costs to measurements, and write a target file.")
    add = parser.add_argument
    add("target", nargs="?", default=DEFAULT_TARGET, help="whose types and settings are kept: a name, or FILE.toml (default arm64)")
    add("--out", type=Path, metavar="FILE.toml", help="write the target; without it, it is only shown")
    add("--name", help="of the target that is written (default: the same)")
    add("--core", help=f"emulate: {' | '.join(CORES)} (default for ARM64 targets on another machine)")
    add(
        "--objective",
        choices=[INSTRUCTIONS, CYCLES],
        default=INSTRUCTIONS,
        help="emulated: what a cost is; cycles are an estimate, and need python -m tools.arm64.setup --cycles (default instructions)",
    )
    add("--only", nargs="+", metavar="KIND", help="emulated: measure these kinds of operators, such as Conv; all other costs are kept")
    add("--second", action="store_true", help="keep the costs of TARGET, and add these as its second unit, which reports tell beside them")
    add("--runtime", default="newest", metavar="VERSION", help=f"emulated ONNX Runtime: {RUNTIME_CHOICE} (default newest)")
    add("--root", type=Path, metavar="DIR", help="folder of the emulator's set-up")
    add("--web", type=Path, metavar="DIR", help=f"by the clock in Node, with onnxruntime-web in this folder (default {FOLDER_VARIABLE})")
    add("--runs", type=int, default=RUNS, metavar="N", help=f"by the clock: runs at each visit (default {RUNS})")
    add("--visits", type=int, default=VISITS, metavar="N", help=f"by the clock: how often each operator is visited (default {VISITS})")
    flags = parser.parse_args(arguments)
    base = find_target(flags.target)
    check_target_file(flags.target, flags.out, flags.name)
    if min(flags.runs, flags.visits) < 1:
        raise UsageError("nothing would be measured", where="--runs, --visits", hint="give 1 or more")
    web = flags.core is None and (flags.web is not None or base.name == _WEB)
    core = None if web else _core(flags.core, base)
    if flags.only is not None and core is None:
        raise UsageError("by the clock all operators are measured together", where="--only", hint="give --core to emulate one")
    if flags.objective == CYCLES:
        _check_cycles(core)
    if flags.second and _unit(core, flags.objective) == base.unit:
        what = f"the costs of target '{base.name}' are {base.unit} themselves"
        raise UsageError(what, where="--second", hint="give --objective cycles, or leave --second out")
    package = find_package(flags.web) if web else None
    env = environment(flags.root, flags.runtime)
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    notes = Console(stderr=True, highlight=False)
    given = probes() if flags.only is None else _probes_of(flags.only)
    visits = _Visits(flags.runs, flags.visits, notes)
    if package is not None:
        measured = _in_web(base, given, visits, package)
    else:
        measured = _emulated(core, env, base, given, flags.objective) if core else _clocked(base, given, visits)
    kept = base.second if flags.second and base.second is not None else base
    target, fits = fitted(base, measured) if flags.only is None else refitted(kept, measured)
    target = replace(target, name=flags.name or base.name)
    print_fits(console, target, fits)
    if flags.out is not None:
        written = replace(base, name=target.name, second=target) if flags.second else target
        write_files({flags.out.absolute(): target_text(written).encode()})


def _probes_of(kinds: Collection[str]) -> list[Probe]:
    """The probes of some kinds.

    Raises:
        UsageError: there are none of a kind, or it is measured together with others.
    """
    found = [kind_of(node) for node in probe_model(probes()).graph if not str(node.name).endswith("_before")]
    known = sorted(set(found) - set(CLAMPS))
    for kind in kinds:
        if kind not in known:
            raise UsageError(f"no probes are of kind '{kind}' alone", where="--only", hint=f"give some of {', '.join(known)}")
    return [probe for probe, kind in zip(probes(), found, strict=True) if kind in kinds]


def check_target_file(target: str, out: Path | None, name: str | None) -> None:
    """Refuse a file that cannot be written, or is no target file by its name, and a name that no target can have.

    Args:
        target: that is read: a name or a file.

    Raises:
        UsageError: says which.
    """
    if out is not None:
        check_outputs({"--out": out}, {"TARGET": Path(target)} if target.endswith(FILE_SUFFIX) else {})
        if out.suffix != FILE_SUFFIX:
            raise UsageError(f"a target file ends in {FILE_SUFFIX}", where=f"--out {out}", hint=f"write {out.stem}{FILE_SUFFIX}")
    if name is not None and not (name.strip() and name.isprintable()):
        raise UsageError(f"{name!r} is no name for a target", where="--name", hint="give one such as my-board")


def _unit(core: str | None, objective: str) -> str:
    return objective if core else _CLOCK_UNIT


def _check_cycles(core: str | None) -> None:
    """Raise UsageError if no core is emulated, or its cycles cannot be estimated."""
    if core is None:
        raise UsageError("by the clock there are no cycles", where="--objective cycles", hint="give --core to emulate one")
    check_cycles(core)


def _core(asked: str | None, base: Target) -> str | None:
    """The core to emulate; None to use the clock of this machine.

    Raises:
        UsageError: this machine is not of the target's kind, and no core is known for it.
    """
    if asked is not None:
        return check_core(asked)
    if platform.machine() in base.architectures:
        return None
    if base.name in _CORES:
        return _CORES[base.name]
    what = f"'{base.name}' is not for this machine, a {platform.machine()}"
    raise UsageError(what, where="TARGET", hint="run it on such a machine, or for ARM64 give --core")


if __name__ == "__main__":
    raise SystemExit(main())
