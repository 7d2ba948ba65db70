"""Where does a plan lose accuracy? ``python -m tools.layer_errors MODEL.onnx PLAN.json --calib PATH``.

Every tensor and every weight that the plan puts on a grid is put there alone, all else float, and the model's first float
output is compared: the noise of each grid in decibels below the signal. In a network that is not close to breaking, the
powers of these noises add up to about that of the whole plan, so that the first lines are the reasons of its loss.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from converter.cli.command import Parser, exit_code, print_line
from converter.load.model import load
from converter.methods.judging.output_error import on_grids
from converter.plan.constants import weight_codes
from converter.plan.records import Plan
from converter.planning.replay import planned_model, read_plan
from converter.quantization.parameters import dequantize
from converter.sensitivity.context import quantized_edges_of, stack
from converter.torch_backend.network import Hook, Network, network_of, run_samples
from converter.torch_backend.workers import one_thread_each
from tools.calibration import calibration_feeds

__all__ = ["Noise", "main", "noises"]

Tensor = torch.Tensor


@dataclass(frozen=True)
class Noise:
    """What one grid does to the output.

    Attributes:
        kind: ``tensor`` or ``weight``.
        name: of the tensor, or of the operator whose weight it is.
        op_type: of the operator that makes the tensor or reads the weight.
        share: noise over signal, as powers.
    """

    kind: str
    name: str
    op_type: str
    share: float

    @property
    def decibels(self) -> float:
        """The same as signal over noise, in decibels."""
        return float("inf") if self.share == 0.0 else -10.0 * float(np.log10(self.share))


def noises(model: ir.Model, plan: Plan, feed: Mapping[str, Tensor]) -> list[Noise]:
    """The noise of every grid, the loudest first.

    Args:
        model: canonical float model with the plan's equalizations and non-uniform quantizers applied.
        plan: for it.
        feed: samples by input name, the sample axis in front.

    Raises:
        converter.torch_backend.ops.UnknownOperatorError: an operator has no torch function.
    """
    network = network_of(model)
    quantized_edges = quantized_edges_of(model, plan)
    makers = {o: s.op_type for s in network.steps for o in s.outputs}
    expected = _answers(network, feed)
    found = []
    for root in dict.fromkeys(r.owner for r in quantized_edges.values()):
        grid = plan.tensors[root].params
        assert grid is not None
        got = _answers(network, feed, hook=on_grids(quantized_edges, {root: grid}))
        found.append(Noise("tensor", root, makers.get(root, "input"), _share(expected, got)))
    for name, op_type, constants in _weights(model, plan):
        got = _answers(network, feed, constants=constants)
        found.append(Noise("weight", name, op_type, _share(expected, got)))
    return sorted(found, key=lambda noise: -noise.share)


def _answers(
    network: Network, feed: Mapping[str, Tensor], hook: Hook | None = None, constants: Mapping[str, Tensor] | None = None
) -> Tensor:
    with torch.no_grad():
        values = run_samples(network, feed, hook=hook, constants=constants)
    return next(v for v in values.values() if v.is_floating_point())


def _share(expected: Tensor, got: Tensor) -> float:
    return float((got - expected).double().square().sum() / expected.double().square().sum())


def _weights(model: ir.Model, plan: Plan) -> Iterator[tuple[str, str, dict[str, Tensor]]]:
    """Name and type of every operator with constants on grids, and these constants as the plan stores them."""
    for node in model.graph:
        op = plan.ops.get(str(node.name))
        if op is None or op.runs != "integer":
            continue
        stored = {}
        for index, grid in op.constants.items():
            value = node.inputs[index]
            array = None if value is None or value.const_value is None else value.const_value.numpy()
            if array is not None and value is not None and index == 1:
                stored[str(value.name)] = torch.from_numpy(dequantize(weight_codes(op, index, array, grid), grid))
        if stored:
            yield str(node.name), node.op_type, stored


def _report(found: Sequence[Noise], most: int) -> Iterator[str]:
    whole = sum(n.share for n in found)
    yield f"{len(found)} grids; their noises together {Noise('', '', '', whole).decibels:.1f} dB below the signal"
    by_kind: dict[str, float] = {}
    for noise in found:
        key = f"{noise.kind} of {noise.op_type}"
        by_kind[key] = by_kind.get(key, 0.0) + noise.share
    parts = sorted(by_kind.items(), key=lambda item: -item[1])
    yield ", ".join(f"{key} {100.0 * share / whole:.0f} %" for key, share in parts if share > 0.01 * whole)
    for noise in found[:most]:
        yield f"{noise.decibels:6.1f} dB {100.0 * noise.share / whole:5.1f} %  {noise.kind:6} {noise.op_type:20} {noise.name}"


def _prepared(flags: argparse.Namespace) -> tuple[ir.Model, Plan, dict[str, Tensor]]:
    source = load(flags.source)
    plan = read_plan(flags.plan)
    feeds = calibration_feeds(source, flags.calib, count=flags.samples, seed=flags.seed)
    return *planned_model(source, plan, feeds, flags.plan), stack(feeds)


def _run(flags: argparse.Namespace) -> None:
    model, plan, feed = _prepared(flags)
    with one_thread_each():
        found = noises(model, plan, feed)
    for line in _report(found, flags.most):
        print_line(line)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = Parser(prog="python -m tools.layer_errors", description="Show what each grid of a plan costs in accuracy.")
    parser.add_argument("source", type=Path, metavar="MODEL.onnx", help="the float model")
    parser.add_argument("plan", type=Path, metavar="PLAN.json", help="what convert.py --plan-out wrote for it")
    parser.add_argument("--calib", type=Path, help="images (default: built-in synthetic ones)")
    parser.add_argument("--samples", type=int, default=16, help="images (default 16)")
    parser.add_argument("--most", type=int, default=20, help="lines to print (default 20)")
    parser.add_argument("--seed", type=int, default=1, help="of the choice of images (default 1, another than for calibration)")
    return exit_code(lambda: _run(parser.parse_args(arguments)))


if __name__ == "__main__":
    raise SystemExit(main())
