"""By which loss an error in a model's output counts: of class scores, or of other values. Found from the graph and the values.

Scores: the output is made by a Softmax or LogSoftmax, or its entries add up to one; errors count by the KL divergence.
Values: all else, such as boxes, landmarks, maps; errors count by their square over the power of the output. An output that a
Concat joins from parts is measured part by part: boxes from 0 to 640 would drown scores from 0 to 1 beside them.

What a linear layer gives at the end of a network may be class scores or an embedding, and nothing in the graph tells which.
Then both losses count, half and half, and so that an error of all entries alike costs as much by the one as by the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.errors import UsageError
from converter.graph.operator_sets import LAYERS, VIEWS
from converter.graph.queries import attributes, constant, is_float_output, narrows_output

__all__ = ["OutputLoss", "describe_losses", "output_losses"]

Array = npt.NDArray[Any]
Kind = Literal["scores", "values", "either"]
Range = tuple[int, int]
Joined = tuple[int, tuple[Range, ...]]

_SUM_ERROR = 1e-3
"""By which probabilities may miss one when they are added up."""

_OTHER_RANGE = 10.0
"""Times the root mean square of one part that of another is, if they are quantities of different ranges."""

_VALUES_IN_NATS = 0.2
"""What an error as large as the output is worth, if it may be class scores: they stand more of it than of divergence."""


@dataclass(frozen=True)
class OutputLoss:
    """The loss of one output.

    Attributes:
        kind: ``either`` if nothing tells class scores from values.
        axis: of the classes, or of the parts; counted from the end, so that axes in front do not matter.
        parts: (start, stop) along the axis of what is measured apart; empty for the output as a whole.
        reason: what told the kind, as a clause.
        score_weight: factor of the KL divergence.
        value_weight: factor of the squared error over the power.
        powers: mean square of each part, or of the whole, over some samples. A sample that happens to be zero has none of its own.
    """

    kind: Kind
    axis: int = -1
    parts: tuple[Range, ...] = ()
    reason: str = ""
    score_weight: float = 1.0
    value_weight: float = 1.0
    powers: tuple[float, ...] = ()

    @property
    def counts_scores(self) -> bool:
        """True where the KL divergence counts."""
        return self.kind != "values"

    @property
    def counts_values(self) -> bool:
        """True where the squared error counts."""
        return self.kind != "scores"


def output_losses(model: ir.Model, values: Mapping[str, Sequence[Array]], wanted: Mapping[str, str]) -> dict[str, OutputLoss]:
    """The loss of each float output.

    Args:
        model: canonical float model.
        values: of the float outputs on a few samples, by name.
        wanted: ``scores`` or ``values`` by output name, where the user knows better.

    Raises:
        UsageError: ``wanted`` names no float output of the model.
    """
    outputs = {str(v.name): v for v in model.graph.outputs if is_float_output(v)}
    for name in wanted:
        if name not in outputs:
            hint = f"its float outputs are {', '.join(outputs)}" if outputs else "it has none"
            raise UsageError(f"the model has no float output '{name}'", where="--loss", hint=hint)
    return {n: _measured(_loss(v, values.get(n, ()), wanted.get(n, "")), values.get(n, ())) for n, v in outputs.items()}


def describe_losses(losses: Mapping[str, OutputLoss]) -> str:
    """In words, for the report."""
    words = {"scores": "KL divergence", "values": "squared error", "either": "KL divergence and squared error"}
    return "; ".join(f"{words[each.kind]} of {name} ({each.reason})" for name, each in losses.items())


def _loss(output: ir.Value, samples: Sequence[Array], wanted: str) -> OutputLoss:
    rank = len(samples[0].shape) if samples else len(output.shape or ())
    if wanted == "scores":
        return OutputLoss("scores", _summing_axis(samples) or -1, reason="as asked for")
    axis, parts = _joined(output, rank, samples) or (-1, ())
    if wanted == "values":
        return OutputLoss("values", axis, parts, "as asked for")
    found = _softmax_axis(output, rank)
    if found is not None:
        return OutputLoss("scores", found, reason="made by a softmax")
    summing = _summing_axis(samples)
    if summing is not None:
        return OutputLoss("scores", summing, reason="its entries add up to one")
    if parts:
        return OutputLoss("values", axis, parts, f"joined from {len(parts)} parts, which are measured apart")
    found = _layer_axis(output, rank)
    if rank in (2, 3) and found == -1 and samples and samples[0].shape[-1] > 1:
        return OutputLoss("either", reason="made by a linear layer, so class scores or values")
    return OutputLoss("values", reason="not made as class scores are")


def _measured(loss: OutputLoss, samples: Sequence[Array]) -> OutputLoss:
    powers = [_power(samples, loss.axis, part) for part in loss.parts] or [_power(samples)]
    # what is zero on all samples has errors all the same
    return _weighted(replace(loss, powers=tuple(power or 1.0 for power in powers)), samples)


def _power(samples: Sequence[Array], axis: int = -1, part: Range | None = None) -> float:
    """Mean square of the finite numbers, perhaps of one range along an axis; 0 if there are none."""
    cut = [s if part is None else np.moveaxis(s, axis, -1)[..., slice(*part)] for s in samples]
    finite = [c[np.isfinite(c)].astype(np.float64) for c in cut]
    count = sum(f.size for f in finite)
    return sum(float(np.square(f).sum()) for f in finite) / count if count else 0.0


def _weighted(loss: OutputLoss, samples: Sequence[Array]) -> OutputLoss:
    """The weights of a loss that has both terms: neither shall drown the other."""
    usable = [s for s in samples if s.size and np.isfinite(s).all()]
    if loss.kind != "either" or not usable:
        return loss
    scores = np.concatenate([np.moveaxis(s, loss.axis, -1).reshape(-1, s.shape[loss.axis]) for s in usable]).astype(np.float64)
    shares = np.exp(scores - scores.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    # what both losses are for an error of variance one in every entry, to second order
    by_scores = 0.5 * float((shares * (1.0 - shares)).sum(1).mean())
    by_values = 1.0 / max(float(np.square(scores).mean()), 1e-30)
    unit = max(by_scores, _VALUES_IN_NATS * by_values)
    return replace(loss, score_weight=0.5 * unit / max(by_scores, 1e-30 * unit), value_weight=0.5 * unit / by_values)


def _summing_axis(samples: Sequence[Array]) -> int | None:
    """The axis along which entries are no less than zero and add up to one, counted from the end."""
    usable = [s for s in samples if s.size]
    if not usable or any(not (s >= 0.0).all() for s in usable):
        return None
    for axis in range(-1, -usable[0].ndim - 1, -1):
        if usable[0].shape[axis] > 1 and all(np.abs(s.sum(axis, dtype=np.float64) - 1.0).max() < _SUM_ERROR for s in usable):
            return axis
    return None


def _softmax_axis(output: ir.Value, rank: int) -> int | None:
    """The axis of the Softmax that makes an output, as it lies in the output, counted from the end; None if there is no such."""
    maker, moves = _made(output)
    if maker is None or maker.op_type not in ("Softmax", "LogSoftmax"):
        return None
    made = maker.outputs[0]
    return _followed(int(attributes(maker).get("axis", -1)), made, moves, rank)


def _layer_axis(output: ir.Value, rank: int) -> int | None:
    """The same for the output channels of a linear layer with constant weights, perhaps with a bias behind it."""
    maker, moves = _made(output)
    if maker is not None and maker.op_type == "Add":
        computed = [v for v in maker.inputs if constant(v) is None]
        maker = computed[0].producer() if len(computed) == 1 and computed[0] is not None else None
    if maker is None or maker.op_type not in LAYERS or constant(maker.inputs[1]) is None:
        return None
    return _followed(1 if maker.op_type == "Conv" else -1, maker.outputs[0], moves, rank)


def _made(output: ir.Value) -> tuple[ir.Node | None, list[ir.Node]]:
    """The operator that makes an output, and those behind it that only move its entries, in order."""
    moves: list[ir.Node] = []
    node = output.producer()
    if node is not None and narrows_output(node) and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    while node is not None and node.op_type in VIEWS | {"Transpose", "Identity"} and node.inputs[0] is not None:
        moves.insert(0, node)
        node = node.inputs[0].producer()
    return node, moves


def _followed(axis: int, value: ir.Value, moves: Sequence[ir.Node], rank: int) -> int | None:
    """Where an axis of a tensor lies after some moves, counted from the end; None if it is not to be found there."""
    shape = value.shape
    before = len(shape) if shape is not None else rank
    if not -before <= axis < before:
        return None  # the model declares another shape than it gives
    axis %= before
    for node in moves:
        after = node.outputs[0].shape
        if node.op_type == "Transpose":
            axis = list(attributes(node).get("perm", range(before)[::-1])).index(axis)
        elif node.op_type in VIEWS:
            if shape is None or after is None:
                return None
            found = _kept(axis, list(shape), list(after))
            if found is None:
                return None
            axis = found
        shape, before = after, len(after) if after is not None else before
    return axis - before


def _kept(axis: int, before: Sequence[Any], after: Sequence[Any]) -> int | None:
    """Where an axis is after a Reshape that leaves it as it is: the same size, beside the same ones but for those of size one."""
    if before[axis] == 1:
        return None
    left = [size for size in before[:axis] if size != 1]
    right = [size for size in before[axis + 1 :] if size != 1]
    for place, size in enumerate(after):
        same = [s for s in after[:place] if s != 1] == left or [s for s in after[place + 1 :] if s != 1] == right
        if size == before[axis] and same:
            return place
    return None


def _joined(value: ir.Value, rank: int, samples: Sequence[Array]) -> Joined | None:
    """The parts from which a Concat joins an output, those of one range together; None if there are no two of different ranges.

    Where several Concats follow each other, as of boxes and scores, and of what is found at several scales, it is the one that
    joins different ranges.
    """
    for axis, parts in _concats(value, rank):
        merged = _merged(axis, parts, samples)
        if len(merged) > 1:
            return axis, merged
    return None


def _concats(value: ir.Value, rank: int) -> Iterator[Joined]:
    """Axis, counted from the end, and ranges of what is joined, of each Concat that makes an output and of those in front of it."""
    maker, moves = _made(value)
    if maker is None or maker.op_type != "Concat":
        return
    own = maker.outputs[0]
    before = len(own.shape) if own.shape is not None else rank
    axis = int(attributes(maker)["axis"]) % before
    place, parts = _followed(axis, own, moves, rank), _parts(maker, axis)
    if place is not None and len(parts) > 1:
        yield place, parts
    inner = [list(_concats(v, before)) for v in maker.inputs if v is not None]
    for candidate in inner[0] if inner else []:
        if all(candidate in each for each in inner) and candidate[0] % before != axis:
            found = _followed(candidate[0], own, moves, rank)
            if found is not None:
                yield found, candidate[1]


def _merged(axis: int, parts: Sequence[Range], samples: Sequence[Array]) -> tuple[Range, ...]:
    """Neighbouring parts of one range as one, and those that are zero throughout with the one before them."""
    merged: list[tuple[Range, float]] = []
    for start, stop in parts:
        power = _power(samples, axis, (start, stop))
        if merged and (power == 0.0 or max(power, merged[-1][1]) < _OTHER_RANGE**2 * min(power, merged[-1][1])):
            (first, before), old = merged[-1]
            total = stop - first
            merged[-1] = (first, stop), (old * (before - first) + power * (stop - start)) / total
        else:
            merged.append(((start, stop), power))
    return tuple(part for part, _ in merged)


def _parts(concat: ir.Node, axis: int) -> tuple[Range, ...]:
    """Ranges of what is joined, those of a Concat along the same axis in it included; none if a size is not known."""
    sizes: list[int] = []
    for value in concat.inputs:
        maker = value.producer() if value is not None else None
        shape = value.shape if value is not None else None
        inner: tuple[Range, ...] = ()
        if maker is not None and maker.op_type == "Concat" and shape is not None and int(attributes(maker)["axis"]) % len(shape) == axis:
            inner = _parts(maker, axis)
        size = shape[axis] if shape is not None and len(shape) > axis else None
        if not inner and not isinstance(size, int):
            return ()
        sizes += [stop - start for start, stop in inner] or [int(str(size))]
    ends = np.cumsum(sizes).tolist()
    return tuple(zip([0, *ends[:-1]], ends, strict=True))
