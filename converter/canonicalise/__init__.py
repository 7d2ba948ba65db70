"""Canonicalise: bring a model to one spelling, and prove on data that it still computes the same.

Every rewrite is exact to float rounding. The outputs of the canonical model are compared with those of the original
on calibration inputs; if they differ, the rewrites are tried one by one, and those that do not hold are undone and
reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from converter.canonicalise.affine import fold_affine
from converter.canonicalise.clusters import fuse_activations
from converter.canonicalise.normalization import fuse_normalizations
from converter.canonicalise.standard import CANONICAL_OPSET, infer_shapes, simplify, to_canonical_opset
from converter.canonicalise.tidy import tidy_spellings
from converter.rewriting import remove_dead
from converter.runtime import Feed, run_model

__all__ = ["CANONICAL_OPSET", "TOLERANCE", "Canonical", "Rewrite", "canonicalise"]

TOLERANCE = 1e-4
"""Largest difference to the original, relative to the largest output."""


@dataclass(frozen=True)
class Rewrite:
    """What one rewrite did.

    Attributes:
        name: of the rewrite.
        count: how many times it fired.
        kept: false if it changed the outputs and was undone.
        error: the relative difference it left or would have left.
    """

    name: str
    count: int
    kept: bool
    error: float


@dataclass(frozen=True)
class Canonical:
    """The canonical model and how it came about.

    Attributes:
        model: opset 20, shapes inferred, every tensor named.
        rewrites: in the order they were applied.
        error: largest relative difference between its outputs and the original's.
    """

    model: ir.Model
    rewrites: tuple[Rewrite, ...]
    error: float


def _simplify(model: ir.Model) -> ir.Model:
    return ir.from_proto(infer_shapes(simplify(ir.to_proto(model))))


def _in_place(edit: Callable[[ir.Model], list[str]]) -> Callable[[ir.Model], tuple[ir.Model, int]]:
    def step(model: ir.Model) -> tuple[ir.Model, int]:
        model = ir.from_proto(ir.to_proto(model))
        changed = edit(model)
        remove_dead(model)
        return ir.from_proto(infer_shapes(ir.to_proto(model))), len(changed)

    return step


def _simplify_step(model: ir.Model) -> tuple[ir.Model, int]:
    simplified = _simplify(model)
    return simplified, max(0, len(model.graph) - len(simplified.graph))


_STEPS: dict[str, Callable[[ir.Model], tuple[ir.Model, int]]] = {
    "simplify": _simplify_step,
    "fuse activations": _in_place(fuse_activations),
    "fuse normalizations": _in_place(fuse_normalizations),
    "fold factors and offsets": _in_place(fold_affine),
    "tidy spellings": _in_place(tidy_spellings),
    "fold what that uncovered": _in_place(fold_affine),
}


def canonicalise(model: onnx.ModelProto, feeds: Sequence[Feed]) -> Canonical:
    """Rewrite a float model into canonical form.

    Args:
        model: a vetted float model.
        feeds: a few calibration inputs on which the rewrites are proven.

    Raises:
        ModelError: the opset cannot be converted.
    """
    reference = [run_model(model, feed) for feed in feeds]
    start = _named(ir.from_proto(infer_shapes(to_canonical_opset(model))))
    current, counts = start, {}
    for name, step in _STEPS.items():
        current, counts[name] = step(current)
    error = _difference(current, feeds, reference)
    if error <= TOLERANCE:
        return Canonical(current, tuple(Rewrite(n, c, True, error) for n, c in counts.items()), error)
    return _one_by_one(start, feeds, reference)


def _one_by_one(current: ir.Model, feeds: Sequence[Feed], reference: list[dict[str, np.ndarray]]) -> Canonical:
    rewrites = []
    last = _difference(current, feeds, reference)
    for name, step in _STEPS.items():
        candidate, count = step(current)
        error = _difference(candidate, feeds, reference)
        kept = error <= max(TOLERANCE, last)
        rewrites.append(Rewrite(name, count, kept, error))
        if kept:
            current, last = candidate, error
    return Canonical(current, tuple(rewrites), last)


def _difference(model: ir.Model, feeds: Sequence[Feed], reference: list[dict[str, np.ndarray]]) -> float:
    proto = ir.to_proto(model)
    worst = 0.0
    for feed, expected in zip(feeds, reference, strict=True):
        for name, value in run_model(proto, feed).items():
            if not np.issubdtype(value.dtype, np.floating):
                continue
            largest = float(np.abs(expected[name]).max(initial=0.0))
            gap = float(np.abs(value - expected[name]).max(initial=0.0)) / max(largest, 1e-30)
            worst = max(worst, gap if np.isfinite(gap) else float("inf"))
    return worst


def _named(model: ir.Model) -> ir.Model:
    """Give every node a name, so that plans and reports can speak of it."""
    taken = {n.name for n in model.graph if n.name}
    for node in model.graph:
        if not node.name:
            wish = f"{node.op_type}_{node.outputs[0].name}"
            while wish in taken:
                wish += "_"
            node.name = wish
            taken.add(wish)
    return model
