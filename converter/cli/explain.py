"""Explain: what the converter sees in a model, without converting it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from converter.calibration.input_shapes import calibration_shapes
from converter.calibration.observer import collect_statistics
from converter.calibration.samples import load_samples
from converter.canonicalise import canonicalise
from converter.graph.source_nodes import name_after_source
from converter.load.files import check_input
from converter.load.model import load
from converter.options import Options
from converter.progress import SILENT, Progress
from converter.sensitivity.bridge_blocks import Block, Layer, Structure, find_structure
from converter.targets import find_target

__all__ = ["explain", "structure_tables"]


def explain(source_path: Path, options: Options, *, progress: Progress = SILENT) -> Structure:
    """Find the bridge blocks and layers of a model.

    Args:
        options: sizes of open inputs, seed and threads.

    Raises:
        converter.errors.ConverterError: the model cannot be read or run.
    """
    check_input(source_path)
    progress.stage("load")
    source = load(source_path)
    specs, _ = calibration_shapes(source, options.input_shapes, None, options.threads)
    feeds = load_samples(None, specs, count=1, preprocess=None, seed=options.seed).calibration[:1]
    progress.stage("canonicalise")
    canonical = canonicalise(source.model, feeds, find_target(options.target))
    name_after_source(source.model, canonical.model)
    progress.stage("observe")
    seen = collect_statistics(canonical.model, feeds, seed=options.seed, threads=options.threads)
    return find_structure(canonical.model, {name: stats.shape for name, stats in seen.tensors.items()})


def structure_tables(structure: Structure) -> RenderableType:
    """Bridge blocks, then layers, each with the number of its block."""
    layers = np.bincount([la.block for la in structure.layers if la.block is not None], minlength=len(structure.blocks))
    title = f"{len(structure.blocks)} bridge blocks, {len(structure.layers)} layers"
    blocks = _table("block", "kind", "map", "layers", "operators", "judged at")
    for number, (block, count) in enumerate(zip(structure.blocks, layers, strict=True), 1):
        blocks.add_row(str(number), block.kind, _size(block), str(count), str(len(block.nodes)), Text("\n".join(block.outputs)))
    listed = _table("block", "layer", "operator")
    for layer in structure.layers:
        listed.add_row("" if layer.block is None else str(layer.block + 1), Text(_kind(layer)), Text(layer.name))
    parts: list[RenderableType] = [Text(title), Text("")]
    if structure.blocks:
        parts += [blocks, Text("")]
    return Group(*parts, listed)


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _size(block: Block) -> str:
    return "" if block.size is None else f"{block.size[0]}x{block.size[1]}"


def _kind(layer: Layer) -> str:
    return f"{layer.op_type} of two computed tensors" if layer.product else layer.op_type
