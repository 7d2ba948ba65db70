"""Write an emitted graph in the lowest opset and IR version that it needs, so that old runtimes read it too, or in a given one.

The graph is built in :data:`CANONICAL_OPSET`. A node means the same in another opset if the definitions there differ in nothing that it
uses; reductions and Split are spelled in another way before 18. ``onnx.version_converter`` cannot do this: it has no way down for most
of these operators, and loses names and metadata.

Source of what changed when: the definitions themselves, in ``onnx.defs``, and https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import onnx
import onnx_ir as ir
from onnx.defs import OpSchema

from converter.errors import ModelError
from converter.graph.operator_sets import CANONICAL_OPSET, NEWEST_OUTPUT_OPSET, OLDEST_OUTPUT_OPSET
from converter.graph.queries import constant

__all__ = ["opset_range", "write_in_opset"]

_DOES_NOTHING: Mapping[str, tuple[object, ...]] = {
    "allowzero": (0,),
    "antialias": (0,),
    "axes": (),
    "block_size": (0,),
    "ceil_mode": (0,),
    "dilations": ((1,), (1, 1), (1, 1, 1)),
    "end": (),
    "keep_aspect_ratio_policy": ("stretch",),
    "layout": (0,),
    "noop_with_empty_axes": (0,),
    "num_outputs": (),
    "output_dtype": (0,),
    "precision": (0,),
    "reduction": ("none",),
    "saturate": (0, 1),  # is about floating-point numbers of 8 bits, of which a graph has none
    "start": (0,),
    "training_mode": (0,),
}
"""Attributes that only some opsets have: where they are missing, or have one of these values, an operator does what it did before."""

_CAME_LATER: tuple[tuple[str, str, object, int], ...] = (
    ("Pad", "mode", "wrap", 19),
    ("Resize", "coordinate_transformation_mode", "half_pixel_symmetric", 19),
    ("ScatterElements", "reduction", "max", 18),
    ("ScatterElements", "reduction", "min", 18),
    ("ScatterND", "reduction", "max", 18),
    ("ScatterND", "reduction", "min", 18),
)
"""Operator, attribute, value, and the opset since when it has this meaning, where the definitions do not show it."""


_OTHER_KERNELS: Mapping[str, int] = {"AveragePool": 19}
"""Operators that ONNX Runtime computes in another way before some opset, so that the last bit differs and a code may move."""


class _Spelling(NamedTuple):
    """How a node is written in some opset."""

    inputs: tuple[ir.Value | None, ...]
    attributes: tuple[ir.Attr, ...]


def write_in_opset(model: ir.Model, wanted: int | None = None) -> None:
    """Write an emitted graph in another opset, in place, and stamp the model with it and with the IR version that belongs to it.

    Args:
        model: of :data:`CANONICAL_OPSET`, without subgraphs.
        wanted: the opset; None for the lowest from :data:`OLDEST_OUTPUT_OPSET` on in which every node means what it means now.

    Raises:
        ModelError: a node means something else in the opset that is wanted, or is not there. The model is left as it was.
    """
    ranges = {node: opset_range(node) for node in model.graph}
    opset = max((low for low, _ in ranges.values()), default=OLDEST_OUTPUT_OPSET) if wanted is None else wanted
    for node, (low, high) in ranges.items():
        if not low <= opset <= high:
            bound = f"{low} or newer" if opset < low else f"{high} or older"
            raise ModelError(
                f"the result cannot be written in opset {opset}: its {node.op_type} needs {bound}",
                where=f"node '{node.name}'",
                hint=f"leave --opset out, or give {bound}",
            )
    for node in model.graph:
        _rewrite(model.graph, node, opset)
    model.graph.opset_imports[""] = opset
    model.ir_version = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])


def opset_range(node: ir.Node) -> tuple[int, int]:
    """The lowest and the highest opset in which a node of :data:`CANONICAL_OPSET` can be written, as far as every one between them can."""
    low = high = CANONICAL_OPSET
    while low > OLDEST_OUTPUT_OPSET and _spelled(node, low - 1) is not None:
        low -= 1
    while high < NEWEST_OUTPUT_OPSET and _spelled(node, high + 1) is not None:
        high += 1
    return low, high


def _rewrite(graph: ir.Graph, node: ir.Node, opset: int) -> None:
    spelling = _spelled(node, opset)
    assert spelling is not None
    dropped = [v for v in node.inputs[len(spelling.inputs) :] if v is not None]
    node.resize_inputs(len(spelling.inputs))
    node.attributes.clear()
    node.attributes.update({a.name: a for a in spelling.attributes})
    for value in dropped:
        if not value.uses() and not value.is_graph_output():
            graph.initializers.pop(str(value.name), None)


def _spelled(node: ir.Node, opset: int) -> _Spelling | None:
    """How a node is written in an opset; None if it cannot be."""
    if not onnx.defs.has(node.op_type, max_inclusive_version=opset):
        return None
    here, there = (onnx.defs.get_schema(node.op_type, max_inclusive_version=v) for v in (CANONICAL_OPSET, opset))
    spelling: _Spelling | None = _Spelling(tuple(node.inputs), tuple(node.attributes.values()))
    if here.since_version == there.since_version:
        return spelling
    if opset < _OTHER_KERNELS.get(node.op_type, 0):
        return None
    if any(opset < since and _has(node, name, value) for op, name, value, since in _CAME_LATER if op == node.op_type):
        return None
    if opset < _RESPELLED_IN and node.op_type in _BEFORE_18:
        spelling = _BEFORE_18[node.op_type](node)
    if spelling is None or not _same_attributes(spelling, here, there) or not _takes(node, spelling, there):
        return None
    return _Spelling(spelling.inputs, tuple(a for a in spelling.attributes if a.name in there.attributes))


def _has(node: ir.Node, name: str, value: object) -> bool:
    return name in node.attributes and node.attributes[name].value == value


def _same_attributes(spelling: _Spelling, here: OpSchema, there: OpSchema) -> bool:
    """Whether attributes that only one of the definitions has do nothing, and the others have the same defaults."""
    if any(here.attributes[n].default_value != there.attributes[n].default_value for n in here.attributes.keys() & there.attributes.keys()):
        return False
    used = {a.name: a.value for a in spelling.attributes}
    one_only = here.attributes.keys() ^ there.attributes.keys()
    harmless = (n in there.attributes or used[n] in _DOES_NOTHING.get(n, ()) if n in used else n in _DOES_NOTHING for n in one_only)
    return all(harmless)


def _takes(node: ir.Node, spelling: _Spelling, schema: OpSchema) -> bool:
    """Whether an operator takes so many inputs and gives so many outputs, of these types."""
    return all(
        len(values) <= most and all(_allowed(value, formal, index) for index, value in enumerate(values))
        for values, most, formal in (
            (spelling.inputs, schema.max_input, schema.inputs),
            (node.outputs, schema.max_output, schema.outputs),
        )
    )


def _allowed(value: ir.Value | None, formal: Sequence[OpSchema.FormalParameter], index: int) -> bool:
    if value is None or value.dtype is None:
        return True
    return f"tensor({value.dtype.name.lower()})" in formal[min(index, len(formal) - 1)].types


def _reduction_before_18(node: ir.Node) -> _Spelling | None:
    """With its axes as an attribute."""
    given = tuple(node.attributes.values())
    if len(node.inputs) < 2 or node.inputs[1] is None:
        return _Spelling(tuple(node.inputs[:1]), given)
    axes = constant(node.inputs[1])
    if axes is None or axes.size == 0:  # without any, the attribute means all
        return None
    return _Spelling(tuple(node.inputs[:1]), (*given, ir.AttrInt64s("axes", [int(a) for a in axes.reshape(-1)])))


def _split_before_18(node: ir.Node) -> _Spelling | None:
    """Without the number of equal parts, which is that of its outputs."""
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if "num_outputs" in node.attributes:
        size = None if shape is None else shape[axis]
        if not isinstance(size, int) or size % len(node.outputs) != 0:
            return None
    return _Spelling(tuple(node.inputs), tuple(a for name, a in node.attributes.items() if name != "num_outputs"))


_RESPELLED_IN = 18

_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")

_BEFORE_18: Mapping[str, Callable[[ir.Node], _Spelling | None]] = {
    **{f"Reduce{name}": _reduction_before_18 for name in _REDUCTIONS},
    "Split": _split_before_18,
}
"""Operators that are spelled in another way before opset 18."""
