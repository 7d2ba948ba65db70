"""Explain: what the converter sees in a model, without converting it."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from converter.calibration.input_shapes import calibration_shapes
from converter.calibration.observer import TensorStats, collect_statistics
from converter.calibration.samples import load_samples
from converter.canonicalise import canonicalise
from converter.graph.queries import constant, data_inputs, is_float
from converter.graph.source_nodes import name_after_source
from converter.load.files import check_input
from converter.load.model import load
from converter.options import Options
from converter.pipeline import calibrate
from converter.progress import SILENT, Progress
from converter.sensitivity.bridge_blocks import Block, Layer, Structure, find_structure
from converter.targets import find_target

__all__ = ["Explained", "LayerRanges", "explain", "explained_tables"]

_ALMOST_ALL = 0.999
"""Share of values within what is called the usual range."""


_ABOUT_BLOCKS = (
    "in a bridge block feature maps become tokens, or tokens maps; on a round trip both. map: height x width",
    "judged at: the tensors that leave it, whose error the search may look at (--bridge-blocks)",
)


@dataclass(frozen=True)
class LayerRanges:
    """What calibration samples showed around a layer.

    Attributes:
        read: statistics of the computed tensor it reads, of a product the one on the left.
        written: statistics of its output.
    """

    read: TensorStats
    written: TensorStats


@dataclass(frozen=True)
class Explained:
    """What was found in a model.

    Attributes:
        structure: bridge blocks and layers.
        calibration: a sentence on the samples; empty where none were given.
        ranges: by name of the layer; empty where no samples were given.
        weights: bytes of its float constants, by name of the layer.
    """

    structure: Structure
    calibration: str = ""
    ranges: Mapping[str, LayerRanges] = field(default_factory=dict)
    weights: Mapping[str, int] = field(default_factory=dict)


def explain(source_path: Path, options: Options, *, progress: Progress = SILENT) -> Explained:
    """Find the bridge blocks and layers of a model, and with calibration samples what each layer reads and writes.

    Args:
        options: sizes of open inputs, samples, target, seed and threads.

    Raises:
        converter.errors.ConverterError: the model cannot be read or run, or the samples cannot be used.
    """
    check_input(source_path)
    progress.stage("load")
    source = load(source_path)
    if options.calib is not None:
        at = calibrate(source, options, progress)
        structure = find_structure(at.canonical.model, at.shapes)
        ranges = _ranges(at.canonical.model, structure, at.seen.tensors)
        return Explained(structure, at.samples.description, ranges, _weights(at.canonical.model, structure))
    specs, _ = calibration_shapes(source, options.input_shapes, None, options.threads)
    feeds = load_samples(None, specs, count=1, preprocess=None, seed=options.seed).calibration[:1]
    progress.stage("canonicalise")
    canonical = canonicalise(source.model, feeds, find_target(options.target))
    name_after_source(source.model, canonical.model)
    progress.stage("observe")
    seen = collect_statistics(canonical.model, feeds, seed=options.seed, threads=options.threads)
    structure = find_structure(canonical.model, {name: stats.shape for name, stats in seen.tensors.items()})
    return Explained(structure, weights=_weights(canonical.model, structure))


def _weights(model: ir.Model, structure: Structure) -> dict[str, int]:
    """Bytes of the float constants that each layer reads."""
    names = {layer.name for layer in structure.layers}
    read = {str(node.name): (constant(v) for v in node.inputs if is_float(v)) for node in model.graph if node.name in names}
    return {name: sum(array.nbytes for array in arrays if array is not None) for name, arrays in read.items()}


def _ranges(model: ir.Model, structure: Structure, seen: Mapping[str, TensorStats]) -> dict[str, LayerRanges]:
    names = {layer.name for layer in structure.layers}
    found = {}
    for node in model.graph:
        read = next((str(value.name) for _, value in data_inputs(node)), "")
        written = str(node.outputs[0].name)
        if node.name in names and read in seen and written in seen:
            found[str(node.name)] = LayerRanges(seen[read], seen[written])
    return found


def explained_tables(found: Explained) -> RenderableType:
    """Bridge blocks, then layers, each with the number of its block, and with its ranges where they are known."""
    structure = found.structure
    layers = np.bincount([la.block for la in structure.layers if la.block is not None], minlength=len(structure.blocks))
    title = f"{_counted(structure.blocks, 'bridge block')}, {_counted(structure.layers, 'layer')}"
    blocks = _table("block", "kind", "map", "layers", "operators", "judged at")
    for number, (block, count) in enumerate(zip(structure.blocks, layers, strict=True), 1):
        blocks.add_row(str(number), block.kind, _size(block), str(count), str(len(block.nodes)), Text("\n".join(block.outputs)))
    listed = _table("block", "layer", "weights", *(["reads", "outliers", "writes"] if found.ranges else []), "operator")
    for layer in structure.layers:
        ranges = _range_cells(found.ranges.get(layer.name)) if found.ranges else []
        weights = found.weights.get(layer.name, 0)
        place = "" if layer.block is None else str(layer.block + 1)
        listed.add_row(place, Text(_kind(layer)), _bytes(weights) if weights else "", *ranges, Text(layer.name))
    parts: list[RenderableType] = [Text(title), Text("")]
    if found.calibration:
        parts[1:] = [
            Text(f"ranges on {found.calibration}"),
            Text(f"outliers: largest magnitude read over that of {_ALMOST_ALL:.1%} of the values; a quantizer that covers 10x"),
            Text("leaves the usual values a tenth of its codes"),
            Text(""),
        ]
    if structure.blocks:
        parts += [*map(Text, _ABOUT_BLOCKS), Text(""), blocks, Text("")]
    return Group(*parts, listed)


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _range_cells(ranges: LayerRanges | None) -> list[str]:
    if ranges is None:
        return ["", "", ""]
    magnitudes = np.abs(ranges.read.sample)
    usual = float(np.quantile(magnitudes, _ALMOST_ALL)) if magnitudes.size else 0.0
    largest = max(abs(ranges.read.minimum), abs(ranges.read.maximum))
    return [_span(ranges.read), f"{largest / usual:.1f}x" if usual > 0.0 else "", _span(ranges.written)]


def _span(stats: TensorStats) -> str:
    return f"{stats.minimum:.3g}..{stats.maximum:.3g}"


def _counted(found: Sized, what: str) -> str:
    return f"{len(found)} {what}{'' if len(found) == 1 else 's'}"


def _size(block: Block) -> str:
    return "" if block.size is None else f"{block.size[0]}x{block.size[1]}"


def _bytes(number: int) -> str:
    return f"{number / 1e6:.2f} MB" if number >= 1e6 else f"{number / 1e3:.1f} kB"


def _kind(layer: Layer) -> str:
    return f"{layer.op_type} of two computed tensors" if layer.product else layer.op_type
