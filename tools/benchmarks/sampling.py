"""Does judging on samples lose anything? ``python -m tools.benchmarks.sampling MODEL.onnx --calib PATH``.

``q-hyvit`` reconstructions the grids of a layer at some hundred sampled places. Here every layer is judged at all places of all samples
as well: how much larger is the error, over all places, of what the samples choose than of the best of the same candidates?
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from converter.canonicalise import canonicalise
from converter.cli.command import Parser, exit_code, print_line
from converter.load.model import load
from converter.methods.judging.layer_readers import Reader
from converter.methods.judging.layer_search import ranked_activations
from converter.methods.judging.output_error import LayerReconstruction, activation_errors, reconstruction_of
from converter.methods.judging.range_candidates import covering, scale_candidates
from converter.methods.judging.tensor_error import TensorSample, grid_errors
from converter.options import Options
from converter.planning.search import find_losses
from converter.quantization.parameters import QuantParams
from converter.sensitivity.context import QuantizedEdge, stack
from converter.sensitivity.curvature import capture
from converter.sensitivity.layer_samples import LayerSample, layers_of
from converter.sensitivity.output_loss import OutputLoss
from converter.torch_backend.network import Network, network_of
from converter.torch_backend.workers import one_thread_each
from tools.calibration import calibration_feeds

__all__ = ["LayerResult", "compare_layer", "main", "summary"]

_ALL = 1 << 40
_PLAIN_NUMBERS = 8192
_RANGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)


@dataclass(frozen=True)
class LayerResult:
    """One layer.

    Attributes:
        name: of the operator.
        excess: error of the sampled choice over that of the exhaustive one, both over all places; 1 is no loss, and below 1 the
            sampled search, which moves the ends of the best ranges too, found something better.
        sampled_seconds: processor time of the sampled search.
        exhaustive_seconds: the same of the scan over all places.
    """

    name: str
    excess: float
    sampled_seconds: float
    exhaustive_seconds: float


def compare_layer(sample: LayerSample, everything: LayerSample, bits: int) -> LayerResult:
    """Choose a grid for a layer's first operand on samples and on all places, and reconstruction both on all places.

    Args:
        sample: the layer at sampled places.
        everything: the same at all places.
    """
    few, every = reconstruction_of(sample), _unthinned(everything)
    low, high = float(every.left.min()), float(every.left.max())
    numbers = every.left.reshape(-1)
    kept = numbers[torch.randperm(len(numbers), generator=torch.Generator().manual_seed(0))[:_PLAIN_NUMBERS]]
    start = _nearest(kept, [covering(low * a, high * b, bits, True) for a in _RANGES for b in _RANGES])
    guard = TensorSample(torch.arange(len(kept)), kept[None], torch.ones_like(kept)[None])
    begun = time.process_time()
    reader = Reader(sample.name, 0, QuantizedEdge(sample.operands[0], 1.0))
    chosen = ranked_activations([reader], {sample.name: few}, {(sample.name, 1): few.right}, start, low, high, guard=guard)[0]
    between = time.process_time()
    candidates = [start, *scale_candidates(low, high, bits, True)]
    errors = activation_errors(every, 0, every.right, candidates)
    done = time.process_time()
    best = float(errors.min())
    error = float(activation_errors(every, 0, every.right, [chosen])[0])
    return LayerResult(sample.name, error / best if best > 0 else 1.0, between - begun, done - between)


def _nearest(numbers: torch.Tensor, grids: Sequence[QuantParams]) -> QuantParams:
    """The grid of least plain error, from which the method starts as well."""
    return grids[int(grid_errors(TensorSample(torch.arange(len(numbers)), numbers[None], torch.ones_like(numbers)[None]), grids).argmin())]


def _unthinned(sample: LayerSample) -> LayerReconstruction:
    return LayerReconstruction(sample.left, sample.right, sample.left @ sample.right, sample.fisher)


def summary(results: Sequence[LayerResult], bits: int) -> str:
    """A line of figures over all layers."""
    excess = np.asarray([r.excess for r in results])
    sampled, exhaustive = (sum(getattr(r, f"{kind}_seconds") for r in results) for kind in ("sampled", "exhaustive"))
    worst = max(results, key=lambda r: r.excess)
    return (
        f"{bits} bits, {len(results)} layers: error of the sampled choice over the exhaustive one: mean {excess.mean():.4f}, median "
        f"{np.median(excess):.4f}, worst {worst.excess:.4f} ({worst.name}); processor time {sampled:.1f} s against {exhaustive:.1f} s"
    )


def _run(flags: argparse.Namespace) -> None:
    network, feed, losses = _prepared(flags)
    names = layers_of(network)
    with one_thread_each():
        samples, _ = capture(network, names, feed, losses, seed=flags.seed)
        results: dict[int, list[LayerResult]] = {bits: [] for bits in flags.bits}
        for name in names:
            everything = _everything(network, name, feed, losses, flags.seed)
            for bits, found in results.items():
                found.append(compare_layer(samples[name], everything, bits))
    for bits, found in results.items():
        print_line(summary(found, bits))


def _everything(network: Network, name: str, feed: Mapping[str, torch.Tensor], losses: Mapping[str, OutputLoss], seed: int) -> LayerSample:
    return capture(network, [name], feed, losses, rows=_ALL, seed=seed)[0][name]


def _prepared(flags: argparse.Namespace) -> tuple[Network, dict[str, torch.Tensor], dict[str, OutputLoss]]:
    source = load(flags.source)
    feeds = calibration_feeds(source, flags.calib, count=flags.samples, seed=flags.seed)
    model = canonicalise(source.model, feeds[:1]).model
    return network_of(model), stack(feeds), find_losses(model, feeds, Options())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m tools.benchmarks.sampling", description="Compare judging on samples with judging everywhere.")
    parser.add_argument("source", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--calib", type=Path, help="images (default: built-in synthetic ones)")
    parser.add_argument("--samples", type=int, default=8, help="calibration images (default 8)")
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 6, 4], choices=range(4, 9), help="widths (default 8 6 4)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return exit_code(lambda: _run(_parse(arguments)))


if __name__ == "__main__":
    raise SystemExit(main())
