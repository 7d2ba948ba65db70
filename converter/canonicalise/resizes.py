"""Interpolation between few positions becomes a product with a constant matrix, which has a fast integer kernel.

``Resize`` of the last two axes in a linear or cubic mode computes each result as a weighted mean of the positions of its
picture, with weights that depend on the sizes alone. ``Reshape`` to one axis of positions, ``MatMul`` with those weights
and ``Reshape`` back say the same. The runtime interpolates element by element, in float only in its newer versions, and
as long as there are few positions the product takes less than that. The prices of the target decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from converter.graph.builder import GraphBuilder
from converter.graph.marks import RESIZE, mark_makers
from converter.graph.operator_sets import CANONICAL_OPSET
from converter.graph.queries import attributes, constant, is_float
from converter.runtime.session import run_model
from converter.targets import Target
from converter.targets.costs import cheaper_form, kind_of

__all__ = ["multiply_out_resizes"]

Array = npt.NDArray[Any]

_MAP_RANK = 4
_MOST_WEIGHTS = 1 << 16
"""What a processor's second cache holds beside the tensors."""


def multiply_out_resizes(model: ir.Model, target: Target) -> list[str]:
    """Replace interpolations where the product costs less; returns the names of the tensors concerned."""
    builder = GraphBuilder(model.graph)
    return [name for node in list(model.graph) if node.op_type == "Resize" and (name := _multiply_out(builder, node, target))]


def _multiply_out(builder: GraphBuilder, node: ir.Node, target: Target) -> str:
    x, result = node.inputs[0], node.outputs[0]
    sides = _sides(x), _sides(result)
    if x is None or not is_float(x) or sides[0] is None or sides[1] is None or not _mixes_positions_only(node):
        return ""
    places, results = math.prod(sides[0]), math.prod(sides[1])
    rows = math.prod(d if isinstance(d, int) else 1 for d in (x.shape or ())[:-2])
    if places * results > _MOST_WEIGHTS or not _cheaper(node, rows, places, results, target):
        return ""
    name, kept = str(result.name), [0] * (len(x.shape or ()) - 2)
    weights = _weights(node, sides[0])
    if weights.size != places * results:  # shape inference and the runtime round differently
        return ""
    leading = list(x.shape or ())[:-2]
    flat = _reshape(builder, node, x, [*kept, places], ir.Shape([*leading, places]), f"{name}_positions")
    weight = builder.initializer(f"{name}_weights", weights.reshape(places, results))
    mixed = builder.add("MatMul", [flat, weight], name=f"{name}_MatMul", shape=ir.Shape([*leading, results]), before=node)
    picture = _reshape(builder, node, mixed, [*kept, *sides[1]], ir.Shape([*leading, *sides[1]]), f"{name}_picture")
    mark_makers((flat, mixed, picture), RESIZE)
    builder.replace(result, picture, [node])
    return name


def _reshape(builder: GraphBuilder, anchor: ir.Node, x: ir.Value, sizes: Sequence[int], shape: ir.Shape, name: str) -> ir.Value:
    target = builder.initializer(f"{name}_sizes", np.array(sizes, np.int64))
    return builder.add("Reshape", [x, target], name=f"{name}_Reshape", shape=shape, before=anchor)


def _cheaper(node: ir.Node, rows: int, places: int, results: int, target: Target) -> bool:
    """True if the product costs less than the interpolation."""
    whole = {"node": 1.0, "input": float(rows * places), "element": float(rows * results)}
    product = whole | {"row": float(rows), "mac": float(rows * places * results), "matrix": 1.0}
    return cheaper_form("Linear", product, target) < cheaper_form(kind_of(node), whole, target)


def _sides(value: ir.Value | None) -> list[int] | None:
    """Height and width of a map, if they are known."""
    shape = list(value.shape) if value is not None and value.shape is not None else []
    sides = [d for d in shape[-2:] if isinstance(d, int)]
    return sides if len(shape) == _MAP_RANK and len(sides) == 2 else None


def _mixes_positions_only(node: ir.Node) -> bool:
    """Whether every result is a fixed weighted sum over the last two axes."""
    attrs, shape = attributes(node), node.inputs[0].shape if node.inputs[0] is not None else None
    if attrs.get("mode", "nearest") == "nearest" or "axes" in attrs or attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return False
    scales, sizes = _scales(node), _sizes(node)
    if scales is not None:
        return bool((scales[:-2] == 1).all())
    stretched = attrs.get("keep_aspect_ratio_policy", "stretch") == "stretch"
    return sizes is not None and stretched and shape is not None and sizes[:-2].tolist() == list(shape)[:-2]


def _scales(node: ir.Node) -> Array | None:
    scales = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    return scales if scales is not None and scales.size else None


def _sizes(node: ir.Node) -> Array | None:
    return constant(node.inputs[3]) if len(node.inputs) > 3 else None


def _weights(node: ir.Node, sides: Sequence[int]) -> Array:
    """What each position gives to each result, [positions, 1, ..., height, width], float32: the node's answers to unit pictures."""
    rank, places = len(node.outputs[0].shape or ()), math.prod(sides)
    leading = [places, *[1] * (rank - 3)]
    scales, sizes = _scales(node), _sizes(node)
    if scales is not None:
        inputs, how = ["x", "", "how"], scales.astype(np.float32)
    else:
        assert sizes is not None
        inputs, how = ["x", "", "", "how"], np.array([*leading, *sizes[-2:]], np.int64)
    unit = np.eye(places, dtype=np.float32).reshape(*leading, *sides)
    graph = helper.make_graph(
        [helper.make_node("Resize", inputs, ["y"], **attributes(node))],
        "unit pictures",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, unit.shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(how, "how")],
    )
    opset = [helper.make_opsetid("", CANONICAL_OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=helper.find_min_ir_version_for(opset))
    return run_model(model, {"x": unit})["y"]
