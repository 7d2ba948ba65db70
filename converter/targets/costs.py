"""What operators cost on a target, in float and in integer, as a function of their kind and shape."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from converter.graph.macs import macs_of, shape_of
from converter.graph.marks import SOFTMAX_ROWS
from converter.graph.operator_sets import CONVOLUTIONS, RECURRENT
from converter.graph.queries import attributes, constant, data_inputs, moves_one_axis
from converter.targets.target import Prices, Target

__all__ = [
    "COLUMN_CONVOLUTION_KIND",
    "COPY_KIND",
    "LATE_SOFTMAX_KIND",
    "LINEAR_CONVOLUTION_KIND",
    "PIECEWISE_LINEAR_KIND",
    "TRANSPOSE_STEP_KIND",
    "Shapes",
    "between_codes",
    "cheaper_form",
    "convolution_features",
    "features",
    "form_costs",
    "is_view",
    "kind_of",
    "operator_costs",
    "price",
    "step_costs",
    "step_features",
]

Shapes = Mapping[str, tuple[int, ...]]
"""Shape of each float tensor, by name."""

COPY_KIND = "Split"
"""By whose prices a Concat of codes on one grid counts, as it copies just so."""

PIECEWISE_LINEAR_KIND = "PiecewiseLinear"
"""How targets call the integer form of a piecewise-linear sigmoid, a Clip of codes."""

COLUMN_CONVOLUTION_KIND = "ColumnConvolution"
"""How targets call a ``Conv`` of an image that is written as one of several columns at once, with all that this takes."""

LATE_SOFTMAX_KIND = "LateSoftmax"
"""How targets call the exponentials of a softmax's rows, with their maxima and the differences from them."""

LINEAR_CONVOLUTION_KIND = "LinearConvolution"
"""How targets call a ``Linear`` that is written as a convolution over a row of places, with all that this takes."""

TRANSPOSE_STEP_KIND = "TransposeStep"
"""How targets call a Transpose by its :func:`step_features`, which tell more than the features of a ``Transpose``."""

_FLOAT, _CODE = 4, 1
"""Bytes of a number."""

_LOOPS = (2, 4, 8)
"""Bytes of the pieces of several numbers for which a Transpose that moves one axis has loops of its own."""

_BLOCKS: Mapping[int, int] = {_FLOAT: 4, _CODE: 8}
"""Side of the square blocks by which single numbers are moved, by their bytes."""

_POOLS = ("AveragePool", "MaxPool")
"""Operators with a window."""

_NEAREST: Mapping[str, tuple[str, ...]] = {
    "PointwiseConv": ("Conv",),
    "DepthwiseConv": ("Conv",),
    "GroupedConv": ("Conv",),
    "ConvTranspose": ("Conv",),
    "DeformConv": ("Conv",),
    "Linear": ("MatMul",),
    "MatMul": ("Linear",),
    "Einsum": ("MatMul", "Linear"),
    **dict.fromkeys(RECURRENT, ("Linear", "MatMul")),
}
"""By whose float prices kinds count that multiply and are not on a target's list."""


def operator_costs(node: ir.Node, shapes: Shapes, target: Target) -> tuple[float, float | None]:
    """Cost of the float form, and of the integer form if the target has one, in the target's unit."""
    if SOFTMAX_ROWS in node.metadata_props and node.op_type != "Exp":
        cost = target.costs.get(LATE_SOFTMAX_KIND)
        return 0.0, None if cost is None or cost.integer is None else 0.0
    shape = shape_of(node.inputs[0], shapes) if node.op_type == "Transpose" and TRANSPOSE_STEP_KIND in target.costs else None
    if shape is not None:
        floats, codes = step_costs(shape, attributes(node).get("perm", range(len(shape))[::-1]), target)
        if codes is not None:  # else one of the two forms would be priced more finely than the other
            return floats, codes
    return form_costs(kind_of(node), features(node, shapes), target)


def step_costs(shape: Sequence[int], perm: Sequence[int], target: Target) -> tuple[float, float | None]:
    """Cost of a Transpose by its :func:`step_features`, in float and, if the target tells, on codes."""
    floats, codes = (step_features(shape, perm, width) for width in (_FLOAT, _CODE))
    return form_costs(TRANSPOSE_STEP_KIND, floats, target)[0], form_costs(TRANSPOSE_STEP_KIND, codes, target)[1]


def form_costs(kind: str, found: Mapping[str, float], target: Target) -> tuple[float, float | None]:
    """The same for a kind of operator and its features."""
    cost = target.costs.get(kind)
    if cost is None:
        near = _NEAREST.get(kind, ()) if found.get("mac") else ()
        prices = next((target.costs[each].float for each in near if each in target.costs), target.other)
        return price(prices, found), None
    return price(cost.float, found), None if cost.integer is None else price(cost.integer, found)


def cheaper_form(kind: str, found: Mapping[str, float], target: Target) -> float:
    """The cost among integer operators, in the form that costs less: a float one needs a DQ in front and a Q behind.

    For decisions that are made before it is known what runs in integer.
    """
    between, integers = between_codes(kind, found, target), form_costs(kind, found, target)[1]
    return between if integers is None else min(between, integers)


def between_codes(kind: str, found: Mapping[str, float], target: Target) -> float:
    """The cost of the float form among integer operators, with the DQ and the Q that it needs there."""
    around = target.dequantize(round(found.get("input", 0.0))) + target.quantize(round(found.get("element", 0.0)))
    return form_costs(kind, found, target)[0] + around


def price(prices: Prices, found: Mapping[str, float]) -> float:
    """The sum over features of amount times price."""
    return sum(each * found.get(feature, 0.0) for feature, each in prices.items())


def kind_of(node: ir.Node) -> str:
    """How targets call a node: by operator type, but layers apart by what their kernels do.

    ``Conv`` (dense, or with computed weights), ``PointwiseConv`` (1x1, dense), ``GroupedConv``, ``DepthwiseConv``; ``Linear`` (Gemm and
    MatMul with one constant matrix of weights on the right), ``MatMul`` (all others); ``LinearResize`` and ``CubicResize``
    interpolate, ``Resize`` copies; :data:`LATE_SOFTMAX_KIND` (an Exp of a softmax's rows).
    """
    if node.op_type == "Exp" and SOFTMAX_ROWS in node.metadata_props:
        return LATE_SOFTMAX_KIND
    weight = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if node.op_type == "Conv" and weight is not None:
        groups = attributes(node).get("group", 1)
        if groups == 1:
            return "PointwiseConv" if math.prod(weight.shape[2:]) == 1 else "Conv"
        return "DepthwiseConv" if weight.shape[1] == 1 and groups == weight.shape[0] else "GroupedConv"
    if node.op_type == "Gemm" or (node.op_type == "MatMul" and weight is not None and weight.ndim <= 2):
        return "Linear"
    if node.op_type == "Resize":
        return {"linear": "LinearResize", "cubic": "CubicResize"}.get(attributes(node).get("mode", "nearest"), "Resize")
    return node.op_type


def features(node: ir.Node, shapes: Shapes) -> dict[str, float]:
    """The amount of each of :data:`converter.targets.target.FEATURES` that is not zero; tensors without a shape count nothing."""
    written = [shapes[str(o.name)] for o in node.outputs if str(o.name) in shapes]
    read = [shapes[str(v.name)] for _, v in data_inputs(node) if str(v.name) in shapes]
    found: dict[str, float] = {
        "node": 1.0,
        "element": sum(map(math.prod, written)),
        "input": sum(map(math.prod, read)),
        "row": sum(math.prod(shape[:-1]) for shape in written),
    }
    if macs := macs_of(node, shapes):
        found |= {"mac": macs, **_multiplied(node, macs, written, shapes)}
    elif node.op_type == "InstanceNormalization" and written:
        found["group"] = math.prod(written[0][:2])
    elif node.op_type in _POOLS and written:
        found["window"] = math.prod(written[0]) * math.prod(attributes(node)["kernel_shape"])
    elif node.op_type == "Transpose" and read:
        found["block"] = _blocks(read[0], attributes(node).get("perm", range(len(read[0]))[::-1]))
    return {feature: amount for feature, amount in found.items() if amount}


def _multiplied(node: ir.Node, macs: int, written: Sequence[Sequence[int]], shapes: Shapes) -> dict[str, float]:
    """What else counts of an operator that multiplies matrices."""
    factor = shape_of(node.inputs[1], shapes) or ()
    if node.op_type in CONVOLUTIONS | {"DeformConv"}:
        return _unfolded(node, macs, written, factor)
    if node.op_type in ("Gemm", "MatMul", "Einsum"):
        stored = kind_of(node) == "Linear" and constant(node.inputs[1]) is not None
        return {"matrix": 1.0} if stored else {"matrix": math.prod(written[0][:-2]) if written else 0, "operand": math.prod(factor)}
    return {}


def _unfolded(node: ir.Node, macs: int, written: Sequence[Sequence[int]], weight: Sequence[int]) -> dict[str, float]:
    attrs = attributes(node)
    if node.op_type == "ConvTranspose":
        pointwise = math.prod(weight[2:]) == 1 and all(s == 1 for s in attrs.get("strides", ()))
        return {"column": 0.0 if pointwise else macs * attrs.get("group", 1) / weight[0]}  # the same matrix, behind the product
    return convolution_features(written[0], weight, attrs)


def convolution_features(written: Sequence[int], weight: Sequence[int], attrs: Mapping[str, Any]) -> dict[str, float]:
    """What counts of a convolution besides its node and what it reads and writes; zeros among it.

    Args:
        written: shape of the output, channels second.
        weight: shape of the weights, [outputs, inputs of a group, *kernel].
        attrs: of the ONNX operator.
    """
    groups, size = attrs.get("group", 1), math.prod(written)
    macs = size * math.prod(weight[1:])
    depthwise = groups > 1 and groups == weight[0] and weight[1] == 1
    strided = any(s != 1 for s in attrs.get("strides", ()))
    unfolds = not (depthwise and _has_own_kernel(weight[2:], attrs)) and (strided or math.prod(weight[2:]) > 1)
    column = macs * groups / weight[0] if unfolds else 0.0
    channels = weight[0] if weight[1] == 1 else weight[0] // groups
    uneven = macs if depthwise else size
    return {
        "mac": macs,
        "column": column,
        "strided_column": column if strided else 0.0,
        "column_row": column / written[-1],
        "run": macs / weight[0] if depthwise else column / (weight[1] * weight[-1]),
        "group": groups if groups > 1 else 0.0,
        "uneven8": uneven if channels % 8 else 0.0,
        "uneven16": uneven if channels % 16 else 0.0,
    }


def _has_own_kernel(kernel: Sequence[int], attrs: Mapping[str, Any]) -> bool:
    """True where a depthwise convolution of float numbers is computed without unfolding: counted with ONNX Runtime 1.32, on ARM64."""
    plain = all(each == 1 for name in ("strides", "dilations") for each in attrs.get(name, ()))
    return plain and tuple(kernel) == (3, 3) and max(attrs.get("pads", [0])) <= 1


def is_view(shape: Sequence[int], perm: Sequence[int]) -> bool:
    """True if a Transpose moves nothing but axes of length 1."""
    moved = [axis for axis in perm if shape[axis] != 1]
    return moved == sorted(moved)


def step_features(shape: Sequence[int], perm: Sequence[int], width: int = _FLOAT) -> dict[str, float]:
    """What a Transpose does, more finely than :func:`features` (ONNX Runtime, transpose.cc, transpose_helper.cc, MLAS transpose.cpp).

    A piece is made up of the axes at the end that stay in place. One axis that moves past others turns matrices: by blocks where a piece
    is one number, in loops of its own where it has up to 8 bytes, else by a call for each piece. Other permutations find the place of
    every piece by itself.

    Args:
        shape: of what is moved.
        perm: as the operator has it.
        width: bytes of a number.
    """
    total = math.prod(shape)
    found = {"node": 1.0, "element": float(total)}
    if is_view(shape, perm):
        return found
    piece = math.prod(shape[_first_in_place(perm) :])
    pieces = total / piece
    if not moves_one_axis(perm):
        return found | {"single" if piece == 1 else "piece": pieces}
    if piece == 1:
        return found | {"moved": pieces} | _turned(shape, perm, _BLOCKS[width])
    return found | ({"moved_pair": pieces} if piece * width in _LOOPS else {"piece": pieces, "moved_piece": pieces})


def _turned(shape: Sequence[int], perm: Sequence[int], block: int) -> dict[str, float]:
    """How many matrices of single numbers are turned, and what of them lies outside of square blocks."""
    places = [place for place, axis in enumerate(perm) if place != axis]
    first, last = places[0], places[-1]
    rows = shape[last] if perm[first] == last else shape[first]
    columns = math.prod(shape[first : last + 1]) // rows
    matrices = math.prod(shape[:first])
    rim = rows * columns - (rows - rows % block) * (columns - columns % block)
    return {"turned": float(matrices), **({"rim": float(matrices * rim)} if rim else {})}


def _blocks(shape: Sequence[int], perm: Sequence[int]) -> int:
    """Pieces that the runtime moves one by one: none for a mere reshape or if one axis moves past others, which have fast loops.

    Otherwise the axes at the end that stay in place make up a piece (ONNX Runtime, transpose.cc).
    """
    if is_view(shape, perm) or moves_one_axis(perm):
        return 0
    return math.prod(shape[axis] for axis in perm[: _first_in_place(perm)])


def _first_in_place(perm: Sequence[int]) -> int:
    """From which axis on all stay in place."""
    stay = len(perm)
    while stay and perm[stay - 1] == stay - 1:
        stay -= 1
    return stay
