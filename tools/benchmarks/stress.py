"""Make a model harder to quantize, and compute the same: ``python -m tools.benchmarks.stress IN.onnx OUT.onnx --spread 100``.

In trained networks the channels of one activation can differ by orders of magnitude; in a network with random weights, or
a well-behaved one, they do not. Here every place where a factor per channel can be moved between constants without a
trace (:mod:`converter.transforms.equalization.find`) gets random factors, so that the ranges of channels spread while the outputs stay. A
good method loses little on such a model; one with a single scale per tensor loses what the spread takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from converter.calibration.observer import collect_statistics
from converter.canonicalise import canonicalise
from converter.cli.command import Parser, exit_code, print_line
from converter.emit.model_files import model_files
from converter.errors import UsageError, VerificationError
from converter.graph.weight_files import in_memory
from converter.load.files import check_input, check_outputs, write_files
from converter.load.model import load
from converter.runtime.session import Feed, open_session, run_session
from converter.transforms.equalization.apply import apply_equalizations
from converter.transforms.equalization.find import find_sites
from converter.transforms.equalization.site import Equalization, EqualizationSite
from tools.calibration import calibration_feeds

__all__ = ["Stress", "main", "stress"]

DEFAULT_SPREAD = 100.0
_SAMPLES = 4
_LARGEST_ERROR = 1e-3
"""Relative; the rewrites of canonicalisation have to be ten times better."""


@dataclass(frozen=True)
class Stress:
    """What was done.

    Attributes:
        model: float, with the metadata of the source.
        sites: how many places were rescaled.
        before: median over the key tensors of the sites: largest range of a channel over the median one.
        after: the same behind.
        error: largest difference of an output, relative to the largest output.
    """

    model: onnx.ModelProto
    sites: int
    before: float
    after: float
    error: float


def stress(path: Path, *, spread: float = DEFAULT_SPREAD, seed: int = 0) -> Stress:
    """Rescale every site of a model that needs no insertion.

    Args:
        path: float ONNX model.
        spread: factors are drawn log-uniformly from 1/sqrt(spread) to sqrt(spread).

    Raises:
        VerificationError: the outputs would change by more than float rounding, which large spreads do.
        ConverterError: the model cannot be loaded or run.
    """
    source = load(path)
    feeds = calibration_feeds(source, None, count=_SAMPLES, seed=seed)
    model = canonicalise(source.model, feeds[:1]).model
    shapes = {name: stats.shape for name, stats in collect_statistics(model, feeds[:1]).tensors.items()}
    sites = {name: site for name, site in find_sites(model, shapes).items() if not site.inserted}
    generator = np.random.default_rng(seed)
    reach = np.log(spread) / 2
    equalizations = {name: Equalization(tuple(np.exp(generator.uniform(-reach, reach, site.channels)))) for name, site in sites.items()}
    stressed = apply_equalizations(model, sites, equalizations)
    proto = in_memory(ir.to_proto(stressed))
    onnx.helper.set_model_props(proto, source.metadata)
    error = _error(source.model, proto, feeds)
    if not error <= _LARGEST_ERROR:
        raise VerificationError(
            f"the outputs would change by {error:.1e}, nothing was written", where=str(path), hint="give a smaller --spread"
        )
    return Stress(proto, len(sites), _median_spread(model, sites, feeds), _median_spread(stressed, sites, feeds), error)


def _median_spread(model: ir.Model, sites: Mapping[str, EqualizationSite], feeds: Sequence[Feed]) -> float:
    """Median over key tensors of the largest channel range over the median channel range; 1.0 without any site."""
    proto: onnx.ModelProto = ir.to_proto(model)
    known = {o.name for o in proto.graph.output}
    proto.graph.output.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in sites if n not in known)
    session = open_session(proto)
    runs = [run_session(session, feed, list(sites)) for feed in feeds] if sites else []
    spreads = []
    for name, site in sites.items():
        (member,) = [m for m in site.members if m.tensor == name]
        values = np.concatenate([run[name].reshape(-1) for run in runs])
        channels = np.concatenate([np.broadcast_to(member.channels, run[name].shape).reshape(-1) for run in runs])
        largest, smallest = np.full(site.channels, -np.inf), np.full(site.channels, np.inf)
        np.maximum.at(largest, channels[channels >= 0], values[channels >= 0])
        np.minimum.at(smallest, channels[channels >= 0], values[channels >= 0])
        ranges = largest - smallest
        middle = float(np.median(ranges))
        spreads.append(float(ranges.max()) / middle if middle > 0.0 else 1.0)
    return float(np.median(spreads)) if spreads else 1.0


def _error(source: onnx.ModelProto, stressed: onnx.ModelProto, feeds: Sequence[Feed]) -> float:
    before, after = (open_session(m) for m in (source, stressed))
    worst = 0.0
    for feed in feeds:
        wanted, got = run_session(before, feed), run_session(after, feed)
        worst = max(worst, *(float(np.abs(got[n] - wanted[n]).max() / max(np.abs(wanted[n]).max(), 1e-30)) for n in wanted))
    return worst


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m tools.benchmarks.stress", description="Spread the channel ranges of a float model.")
    parser.add_argument("source", type=Path, metavar="IN.onnx")
    parser.add_argument("output", type=Path, metavar="OUT.onnx")
    parser.add_argument("--spread", type=float, default=DEFAULT_SPREAD, help=f"largest factor over smallest (default {DEFAULT_SPREAD:g})")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args(arguments)
    if not (np.isfinite(flags.spread) and flags.spread >= 1.0):
        raise UsageError(f"{flags.spread:g} is no spread", where="--spread", hint="give a number of 1 or more, such as 100")
    check_input(flags.source)
    check_outputs({"OUT": flags.output}, {"IN": flags.source})
    result = stress(flags.source, spread=flags.spread, seed=flags.seed)
    write_files(model_files(result.model, flags.output))
    print_line(
        f"{result.sites} sites rescaled; largest channel range over the median one, median of the sites: "
        f"{result.before:.1f} before, {result.after:.1f} after; outputs differ by {result.error:.1e}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
