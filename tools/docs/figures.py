"""Draw the pictures of the documentation: ``python -m tools.docs.figures --calib cifar10_train.zip [--out docs/pictures]``.

Everything in them is measured: a checkpoint is converted by default, and with everything in integer, and each tensor's figures are those
of the report. What the texts say of the pictures is printed.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import onnx
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from converter.cli.command import Parser, exit_code, print_line
from converter.diagnosis.records import Diagnosis, TensorFigures
from converter.errors import UsageError
from converter.load.files import write_files
from converter.load.model import load
from converter.options import Options
from converter.pipeline import calibrate, diagnose_plan, make_plan
from models.export import build, export_model
from tools.docs.pages import ROOT

__all__ = ["along_the_network", "codes_left", "draw", "main", "most_cut", "svg", "the_problem"]

_NETWORK = "mobilevitv2_050"
_CODES = 256
_EXACT_DB = 200.0
_ALIKE = (36.0, 38.0)  # dB
_INTEGER, _FLOAT, _CUT = "#1f77b4", "#d98200", "#d62728"


def along_the_network(diagnosis: Diagnosis) -> Figure:
    """Accumulated SQNR of every computed tensor from input to output, integer and float; bridge blocks are shaded."""
    figure = Figure(figsize=(8.0, 3.4), layout="constrained")
    axes = figure.subplots()
    tensors = [t for t in diagnosis.tensors if t.kind != "weight" and t.accumulated_db is not None and t.accumulated_db < _EXACT_DB]
    for number, segment in enumerate(diagnosis.segments):
        places = [place for place, tensor in enumerate(tensors) if tensor.segment == number]
        if segment.bridge and places:
            axes.axvspan(min(places) - 0.5, max(places) + 0.5, color="0.9", lw=0)
            axes.text(sum(places) / len(places), 0.02, "bridge block", transform=axes.get_xaxis_transform(), ha="center", color="0.35")
    for runs, colour in (("integer", _INTEGER), ("float", _FLOAT)):
        chosen = [(place, t.accumulated_db) for place, t in enumerate(tensors) if (t.runs == "integer") == (runs == "integer")]
        axes.scatter([p for p, _ in chosen], [float(db or 0.0) for _, db in chosen], s=10, color=colour, label=f"computed in {runs}")
    axes.set(xlabel="tensors, from input to output", ylabel="SQNR against float, dB")
    axes.grid(axis="y", linewidth=0.3)
    axes.legend(loc="upper right", frameon=False)
    return figure


def codes_left(diagnosis: Diagnosis) -> list[float]:
    """Codes that the median channel of each computed tensor can use with one scale for all of its 256, the fewest first."""
    ratios = [t.spread.ratio for t in diagnosis.tensors if t.kind != "weight" and t.spread is not None and t.spread.ratio is not None]
    return sorted(_CODES / ratio for ratio in ratios)


def most_cut(diagnosis: Diagnosis) -> TensorFigures:
    """The tensor whose parameters reach over the smallest part of what calibration has seen."""
    measured = [t for t in diagnosis.tensors if t.kind == "measured" and t.params is not None and t.params.axis is None and t.histogram]
    return min(measured, key=lambda t: _reach(t)[1] / (t.high - t.low))


def the_problem(diagnosis: Diagnosis) -> Figure:
    """Why ranges alone do not do: channels that differ, numbers that do not matter, and errors that do not matter."""
    figure = Figure(figsize=(10.0, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    codes = codes_left(diagnosis)
    left.plot(np.arange(1, len(codes) + 1), codes, color=_INTEGER)
    left.set_yscale("log", base=2)
    left.yaxis.set_major_formatter("{x:g}")
    left.set(title="Channels of one tensor differ", xlabel="tensors, sorted", ylabel="codes for the median channel, of 256")
    _draw_cut(middle, most_cut(diagnosis))
    points = _judged(diagnosis)
    right.scatter([db for db, _ in points], [loss for _, loss in points], s=8, color=_INTEGER)
    right.set_yscale("log")
    right.set(title="Equal errors cost unequally", xlabel="SQNR of rounding the tensor alone, dB", ylabel="added to the loss")
    for axes in (left, right):
        axes.grid(linewidth=0.3)
    return figure


def _judged(diagnosis: Diagnosis) -> list[tuple[float, float]]:
    """Local SQNR and sensitivity of every computed tensor that has both."""
    tensors = (t for t in diagnosis.tensors if t.kind != "weight")
    return [(t.local_db, t.sensitivity) for t in tensors if t.local_db is not None and t.sensitivity]


def _draw_cut(axes: Axes, tensor: TensorFigures) -> None:
    assert tensor.histogram is not None and tensor.params is not None
    histogram = tensor.histogram
    edges = np.linspace(histogram.low, histogram.high, len(histogram.counts) + 1)
    axes.stairs(np.maximum(histogram.counts, 0.5), edges, baseline=0.5, fill=True, color=_INTEGER)
    axes.set_yscale("log")
    for low, high in ((histogram.low, tensor.params.lowest), (tensor.params.highest, histogram.high)):
        if low < high:
            axes.axvspan(low, high, color=_CUT, alpha=0.15, lw=0)
    axes.set(title="Ends of a range hardly matter", xlabel="number; red: cut off", ylabel="how often")


def _reach(tensor: TensorFigures) -> tuple[float, float]:
    """Share of its numbers that is cut off, and the width that its codes cover of what was seen."""
    assert tensor.params is not None and tensor.clipped is not None
    return tensor.clipped, min(tensor.high, tensor.params.highest) - max(tensor.low, tensor.params.lowest)


def _told(diagnosis: Diagnosis) -> list[str]:
    """What the texts say of the second picture."""
    codes, tensor, points = codes_left(diagnosis), most_cut(diagnosis), _judged(diagnosis)
    assert tensor.params is not None
    clipped, _ = _reach(tensor)
    near = sorted(loss for db, loss in points if _ALIKE[0] <= db < _ALIKE[1])
    few = sum(count < _CODES / 2 for count in codes)
    seen, kept = f"{tensor.low:.1f} to {tensor.high:.1f}", f"{tensor.params.lowest:.1f} to {tensor.params.highest:.1f}"
    losses = f"{near[0]:.2g} to {near[-1]:.2g}" if near else "nothing"
    return [
        f"median channel: fewest {codes[0]:.0f} codes of {_CODES}, fewer than half in {few} of {len(codes)} tensors",
        f"most cut: {tensor.name}, seen {seen}, kept {kept}, {100.0 * clipped:.2g} % of its numbers cut off",
        f"{len(near)} tensors of {_ALIKE[0]:g} to {_ALIKE[1]:g} dB add {losses} to the loss",
    ]


def svg(figure: Figure) -> bytes:
    """The same bytes for the same figure; texts stay texts."""
    stream = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "bridgequant", "svg.fonttype": "none"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert, draw and print; returns the exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m tools.docs.figures", description="Draw the pictures of the documentation.")
    add = parser.add_argument
    add("--calib", type=Path, metavar="PATH", help="images (default: built-in synthetic ones)")
    add("--out", type=Path, default=ROOT / "docs" / "pictures", metavar="FOLDER", help="of the pictures (default docs/pictures)")
    add("--network", default=_NETWORK, metavar="NAME", help=f"a checkpoint of models/checkpoints (default {_NETWORK})")
    flags = parser.parse_args(arguments)
    checkpoint = ROOT / "models" / "checkpoints" / f"{flags.network}.safetensors"
    if not checkpoint.exists():
        raise UsageError("there is no such checkpoint", where=f"--network {flags.network}", hint="see models/checkpoints")
    model = onnx.load_from_string(export_model(build(flags.network, checkpoint=checkpoint)))
    for line in draw(model, flags.calib, flags.out):
        print_line(line)


def draw(model: onnx.ModelProto, calib: Path | None, folder: Path) -> list[str]:
    """Convert twice, by default and with everything in integer, and write a picture of each; returns what can be said of the second.

    Args:
        model: a float network with bridge blocks.
        calib: images; None for synthetic ones.
        folder: of the pictures, which is made if missing.
    """
    usual, whole = (_diagnosed(model, Options(calib=calib, placement=how)) for how in ("latency", "all"))
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {"along_the_network.svg": along_the_network(usual), "the_problem.svg": the_problem(whole)}
    write_files({folder / name: svg(picture) for name, picture in pictures.items()})
    return _told(whole)


def _diagnosed(model: onnx.ModelProto, options: Options) -> Diagnosis:
    at = calibrate(load(model), options)
    return diagnose_plan(at, make_plan(at))


if __name__ == "__main__":
    raise SystemExit(main())
