"""Canonicalise: bring a model to one spelling, and prove on data that it still computes the same.

Every rewrite is exact to float rounding. The outputs of the canonical model are compared with those of the original
on calibration inputs and on edges made from them; if they differ, the rewrites are tried one by one, and those that do
not hold are undone and reported. A tensor that a rewrite makes anew, in place of another, keeps the name of that other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
from onnxscript import optimizer

from converter.canonicalise.averages import spell_out_averages
from converter.canonicalise.axes import shield_resizes
from converter.canonicalise.einsums import multiply_out_einsums
from converter.canonicalise.folding.affine import fold_affine
from converter.canonicalise.folding.parallel_layers import add_parallel_layers
from converter.canonicalise.folding.spread_channels import even_out_channels
from converter.canonicalise.outputs import distinct_outputs, set_outputs_aside
from converter.canonicalise.past_movement import bring_forward
from converter.canonicalise.pixels import take_pixels
from converter.canonicalise.proof import TOLERANCE, Difference, Reference, difference, measure_noise, run_reference
from converter.canonicalise.recognition.activations import fuse_activations
from converter.canonicalise.recognition.normalization import fuse_normalizations
from converter.canonicalise.resizes import multiply_out_resizes
from converter.canonicalise.space_to_depth import move_blocks
from converter.canonicalise.standard import infer_shapes, refuse_control_flow, simplify, to_canonical_opset
from converter.canonicalise.tidy import tidy_spellings
from converter.canonicalise.transpose_chains import rearrange
from converter.errors import ModelError
from converter.graph.builder import remove_dead
from converter.graph.operator_sets import CANONICAL_OPSET
from converter.graph.weight_files import offload_constants
from converter.runtime.session import Feed
from converter.targets import DEFAULT_TARGET, Target, find_target

__all__ = ["CANONICAL_OPSET", "PROOF_SAMPLES", "TOLERANCE", "Canonical", "Rewrite", "canonicalise", "undone"]

PROOF_SAMPLES = 2
"""On which a rewrite has to leave the outputs."""

Step = Callable[[ir.Model, Target], tuple[ir.Model, int]]


@dataclass(frozen=True)
class Rewrite:
    """What one rewrite did.

    Attributes:
        name: of the rewrite.
        count: how many times it fired.
        kept: false if it changed the outputs and was undone.
        error: the relative difference it left or would have left.
        edge: the edge on which it would have left that, if it was undone because of an edge.
    """

    name: str
    count: int
    kept: bool
    error: float
    edge: str = ""


@dataclass(frozen=True)
class Canonical:
    """The canonical model and how it came about.

    Attributes:
        model: opset 20, shapes inferred, every tensor named, with outputs that are computed, each once.
        rewrites: in the order they were applied.
        error: largest relative difference between its outputs and the original's.
        constants: outputs of the original that are constants, by name.
    """

    model: ir.Model
    rewrites: tuple[Rewrite, ...]
    error: float
    constants: Mapping[str, npt.NDArray[Any]]


def _fuse(model: ir.Model) -> list[str]:
    return fuse_activations(model) + fuse_normalizations(model)


def _even_out(model: ir.Model, _: Target) -> tuple[ir.Model, int]:
    return even_out_channels(model)


def _fold_constants(model: ir.Model, _: Target) -> tuple[ir.Model, int]:
    before = len(model.graph)
    optimizer.fold_constants(model, onnx_shape_inference=False)
    remove_dead(model)
    return model, before - len(model.graph)


def _edit(edit: Callable[[ir.Model], list[str]]) -> Step:
    """A step that changes the model it is given, whatever the target."""
    return _priced(lambda model, _: edit(model))


def _priced(edit: Callable[[ir.Model, Target], list[str]]) -> Step:
    """A step that changes the model it is given where the target's prices say so."""

    def step(model: ir.Model, target: Target) -> tuple[ir.Model, int]:
        changed = edit(model, target)
        remove_dead(model)
        return model, len(changed)

    return step


def _simplify(model: ir.Model, _: Target) -> tuple[ir.Model, int]:
    simplified = _read(infer_shapes(simplify(ir.to_proto(model))))
    return simplified, max(0, len(model.graph) - len(simplified.graph))


_STEPS: dict[str, Step] = {
    "fold constants": _fold_constants,
    "fuse clusters": _edit(_fuse),
    "fold factors and offsets": _edit(fold_affine),
    "simplify": _simplify,  # not before the others, because it renames the tensors that it fuses
    "fuse what that uncovered": _edit(_fuse),
    "multiply out einsums": _edit(multiply_out_einsums),
    "move blocks": _edit(move_blocks),
    "tidy spellings": _edit(tidy_spellings),
    "average by convolution": _priced(spell_out_averages),
    "interpolate by product": _priced(multiply_out_resizes),
    "keep resizes apart": _edit(shield_resizes),
    "add parallel layers": _edit(add_parallel_layers),
    "bring constants forward": _edit(bring_forward),
    "fold what that uncovered": _edit(fold_affine),
    "take pixels": _edit(take_pixels),
    "rearrange axes": _priced(rearrange),
    "even out channels": _even_out,
}
"""The rewrites in order: each takes a model, which it may change, and gives the new one and how often it fired."""


def canonicalise(model: onnx.ModelProto, feeds: Sequence[Feed], target: Target | None = None) -> Canonical:
    """Rewrite a float model into canonical form. The model given is left as it is.

    Args:
        feeds: a few calibration inputs on which the rewrites are proven.
        target: whose prices decide between two ways to compute the same; by default :data:`converter.targets.DEFAULT_TARGET`.

    Raises:
        ModelError: the opset cannot be converted, the runtime cannot run the model, control flow is left in it, or all its
            outputs are constants.
    """
    target = target or find_target(DEFAULT_TARGET)
    start = to_canonical_opset(distinct_outputs(model))
    reference = _reference(model, start, feeds)
    current, counts = _read(start), {}
    for name, step in _STEPS.items():
        current, counts[name] = step(current, target)
        offload_constants(current)
    found = _difference(current, reference)
    if not found.small:
        reference = measure_noise(reference)
        found = _difference(current, reference)
    if found.small:
        rewrites, error = tuple(Rewrite(name, count, True, found.error) for name, count in counts.items()), found.error
    else:
        current, rewrites, error = _one_by_one(start, reference, target)
    refuse_control_flow(current)
    finished = _finished(current, model)
    constants = set_outputs_aside(finished, reference.outputs[0])
    remove_dead(finished)
    return Canonical(finished, rewrites, error, constants)


def undone(canonical: Canonical) -> list[str]:
    """A sentence for each rewrite that was undone."""
    sentences = []
    for rewrite in canonical.rewrites:
        what = (
            f"changes the outputs by {rewrite.error:.0e} of the largest"
            if np.isfinite(rewrite.error)
            else "leaves outputs infinite or missing"
        )
        where = rewrite.edge or "calibration samples"
        if not rewrite.kept:
            sentences.append(f"rewrite '{rewrite.name}' was left out, because it {what} on {where}; that costs speed, not accuracy")
    return sentences


def _one_by_one(start: onnx.ModelProto, reference: Reference, target: Target) -> tuple[ir.Model, tuple[Rewrite, ...], float]:
    last = difference(start, reference)
    if last.error > TOLERANCE:
        raise ModelError(
            f"bringing the model to opset {CANONICAL_OPSET} changes its outputs by {last.error:.1e}",
            where="opset conversion",
            hint=f"export the model with opset {CANONICAL_OPSET} or 17",
        )
    # an edge on which the converted model differs says nothing about rewrites
    edges = (edge for edge in reference.edges if difference(start, replace(reference, edges=(edge,))).small)
    reference = replace(reference, edges=tuple(edges))
    current, rewrites = _read(start), []
    for name, step in _STEPS.items():
        before = ir.to_proto(current)
        candidate, count = step(current, target)
        offload_constants(candidate)
        found = _difference(candidate, reference)
        error, edge = found.decisive
        rewrites.append(Rewrite(name, count, found.small, error, edge))
        current, last = (candidate, found) if found.small else (_read(before), last)
    return current, tuple(rewrites), last.error


def _difference(model: ir.Model, reference: Reference) -> Difference:
    """The difference to the reference; infinite if an operator is not of the canonical opset, even if the runtime has it."""
    standard = (n.domain == "" and onnx.defs.has(n.op_type, max_inclusive_version=CANONICAL_OPSET) for n in model.graph)
    return difference(ir.to_proto(model), reference) if all(standard) else Difference(float("inf"))


def _reference(model: onnx.ModelProto, converted: onnx.ModelProto, feeds: Sequence[Feed]) -> Reference:
    """What the original computes, or the converted model if the original is of an opset too young for the runtime."""
    try:
        return run_reference(model, feeds)
    except ModelError:
        if next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx")) <= CANONICAL_OPSET:
            raise
        return run_reference(converted, feeds)


def _read(proto: onnx.ModelProto) -> ir.Model:
    """The model with constants as initializers and every node under a name of its own."""
    model: ir.Model = ir.from_proto(proto)
    common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    taken = {n.name for n in model.graph if n.name}
    seen: set[str] = set()
    for node in model.graph:
        if not node.name or node.name in seen:
            wish = node.name or f"{node.op_type}_{node.outputs[0].name}"
            while wish in taken:
                wish += "_"
            node.name = wish
            taken.add(wish)
        seen.add(node.name)
    return model


def _finished(model: ir.Model, source: onnx.ModelProto) -> ir.Model:
    """Shapes inferred, and inputs and outputs declared as in the file: inference may have settled open dimensions."""
    model = _read(infer_shapes(ir.to_proto(model)))
    declared = {v.name: v for v in (*source.graph.input, *source.graph.output)}
    for value in (*model.graph.inputs, *model.graph.outputs):
        shape = ir.serde.deserialize_value_info_proto(declared[str(value.name)], None).shape
        value.shape = value.shape if shape is None else shape
    return model
