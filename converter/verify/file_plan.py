"""The plan that a QDQ file shows, whoever wrote it: which operators stand among codes, and where there are codes.

It says nothing of scales. What it is for is the cost of the file, by the prices of a target.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from converter.forms.clamp import ABSORBED_CLAMP, CLIP
from converter.forms.convolved import CHANNELS_FIRST, CHANNELS_LAST
from converter.forms.elementwise import ELEMENTWISE
from converter.forms.layer import LINEAR_CONVOLUTION
from converter.forms.registry import FORMS
from converter.forms.requantize import REQUANTIZE
from converter.forms.rescale import RESCALE
from converter.graph.builder import GraphBuilder
from converter.graph.marks import SOFTMAX_ROWS, mark_makers
from converter.graph.operator_sets import BARRIER, CLAMPS
from converter.graph.queries import attributes, constant, sole_consumer
from converter.partition.cost_model import predict
from converter.plan.records import OpPlan, Plan, TensorPlan
from converter.quantization.bit_widths import BitWidths
from converter.quantization.parameters import QuantParams
from converter.runtime.session import Feed
from converter.targets import Target
from converter.targets.costs import Shapes
from converter.verify.coverage_by_profile import Tensor, named, tensors_by_profile

__all__ = ["file_costs"]

_Q, _DQ = "QuantizeLinear", "DequantizeLinear"
_CODES = ("int8", "uint8")
"""Types, as the runtime's profile calls them."""

_WRITES_FLOAT = ("Gemm", "MatMul")
"""Operators whose integer kernels can write float numbers."""

_SOME = QuantParams((1.0,), (0,))
"""Stands for any scale and zero point; costs do not depend on them."""


def file_costs(model: onnx.ModelProto, feed: Feed, target: Target, in_float: Collection[str] = ()) -> dict[str, float]:
    """What one inference of a QDQ file costs, in each of a target's units.

    An operator is priced as the file spells it: an integer Gelu as the Sigmoid and the Mul that it is there. Between a DQ and a Q it counts
    as integer if the target has an integer price for it.

    Args:
        model: int8 model.
        feed: one sample, for the sizes of tensors.
        target: whose prices count.
        in_float: names of operators of which it is known that they run in float, wherever they stand.

    Returns:
        costs by unit, the target's first unit first; none if the file holds integer operators themselves, which have no prices.

    Raises:
        ModelError: the model does not run.
    """
    if any(node.domain not in ("", "ai.onnx") or "Integer" in node.op_type or "QLinear" in node.op_type for node in model.graph.node):
        return {}
    model = named(model)
    with tempfile.TemporaryDirectory() as folder:
        tensors = tensors_by_profile(model, feed, Path(folder))
    shapes = {name: tensor.shape for name, tensor in tensors.items()} | {name: array.shape for name, array in feed.items()}
    plain = ir.from_proto(model)
    plan = _plan(plain, tensors, shapes, target, in_float)
    return {each.unit: predict(plain, plan, None, shapes, each).total for each in (target, target.second) if each is not None}


def _plan(model: ir.Model, tensors: Mapping[str, Tensor], shapes: Shapes, target: Target, in_float: Collection[str]) -> Plan:
    """Take Q and DQ out of a graph, in place; what they said of it, as a plan."""
    _fold_constants(model, shapes)
    on_codes = {str(n.name) for n in model.graph if any(tensors[str(o.name)].type in _CODES for o in n.outputs if str(o.name) in tensors)}
    among: set[str] = set()
    for node in model.graph:
        if node.op_type not in (_Q, _DQ) and str(node.name) not in in_float and (str(node.name) in on_codes or _among_codes(node, among)):
            among.add(str(node.name))
    absorbed = {str(n.name) for n in model.graph if str(n.name) in among and _is_absorbed(n, among)}
    coded = _without_conversions(model)
    _mark_softmax_rows(model, on_codes)
    for node in model.graph:
        for output in node.outputs:
            if str(output.name) in tensors and tensors[str(output.name)].type in ("float", *_CODES):
                output.type = ir.TensorType(ir.DataType.FLOAT)
    coded |= {str(o.name) for n in model.graph if str(n.name) in on_codes for o in n.outputs}
    forms = dict.fromkeys(among, ELEMENTWISE.name) | dict.fromkeys(_named(model, _Q), REQUANTIZE.name)
    forms |= dict.fromkeys((name for op in CLAMPS for name in _named(model, op) if name in among), CLIP.name)
    forms |= dict.fromkeys(absorbed, ABSORBED_CLAMP.name) | _convolved(model, on_codes)
    ops = {}
    for node in model.graph:
        form = forms.get(str(node.name), "")
        integer = bool(form) and math.isfinite(FORMS[form].cost(node, shapes, target))
        writes = any(str(o.name) in coded for o in node.outputs)
        ops[str(node.name)] = OpPlan(
            node.op_type, "integer" if integer else "float", "codes" if integer and writes else "float", form=form if integer else ""
        )
    return Plan("", BitWidths(), target.name, {name: TensorPlan("measured", _SOME) for name in coded}, ops)


def _mark_softmax_rows(model: ir.Model, on_codes: Collection[str]) -> None:
    """Let the tail of a sigmoid, behind the difference of codes from the largest of their row, be the exponential that it stands for."""
    for node in model.graph:
        below = node.inputs[0].producer() if node.op_type == "Sigmoid" and node.inputs[0] is not None else None
        largest = below.inputs[1].producer() if below is not None and below.op_type == "Sub" and below.inputs[1] is not None else None
        if below is None or str(below.name) not in on_codes or largest is None or largest.op_type != "ReduceMax":
            continue
        node.op_type = "Exp"
        mark_makers([largest.outputs[0], below.outputs[0], node.outputs[0]], SOFTMAX_ROWS)


def _fold_constants(model: ir.Model, shapes: Shapes) -> None:
    """Let zeros of the same shape stand for what is computed from constants alone, such as weights behind a DQ."""
    builder = GraphBuilder(model.graph)
    for node in list(model.graph):
        inputs = [v for v in node.inputs if v is not None]
        if inputs and all(constant(v) is not None for v in inputs) and all(str(o.name) in shapes for o in node.outputs):
            for output in node.outputs:
                if not output.is_graph_output():
                    zeros = builder.initializer(f"{output.name}_folded", np.zeros(shapes[str(output.name)], np.float32))
                    ir.convenience.replace_all_uses_with(output, zeros)
            if not any(o.is_graph_output() for o in node.outputs):
                builder.remove([node])


def _among_codes(node: ir.Node, among: Collection[str]) -> bool:
    """True if an operator reads numbers of codes alone and its kernel could write codes, or float numbers."""
    return (_reads_codes(node) or _is_absorbed(node, among)) and (
        node.op_type in _WRITES_FLOAT or all(_becomes_codes(o) for o in node.outputs if o.uses() or o.is_graph_output())
    )


def _reads_codes(node: ir.Node) -> bool:
    computed = [v for v in node.inputs if v is not None and constant(v) is None]
    return bool(computed) and all(_made_by(v) == _DQ for v in computed)


def _is_absorbed(node: ir.Node, among: Collection[str]) -> bool:
    """True for a clamp behind an operator among codes, which becomes part of that one."""
    x = node.inputs[0] if node.inputs else None
    maker = x.producer() if x is not None else None
    return node.op_type in CLAMPS and maker is not None and str(maker.name) in among and sole_consumer(maker.outputs[0]) is node


def _becomes_codes(value: ir.Value) -> bool:
    """True if all that reads a value are Q, or one clamp in front of them."""
    readers = [use.node for use in value.uses()]
    if value.is_graph_output() or not readers:
        return False
    if len(readers) == 1 and readers[0].op_type in CLAMPS:
        return _becomes_codes(readers[0].outputs[0])
    return all(reader.op_type == _Q for reader in readers)


def _without_conversions(model: ir.Model) -> set[str]:
    """Take out every DQ, barrier and Q, but a Q of what comes from a DQ; names of the tensors of which there are codes."""
    coded = set()
    decoded: set[ir.Value] = set()
    for node in list(model.graph):
        x, output = node.inputs[0] if node.inputs else None, node.outputs[0]
        barrier = node.op_type == BARRIER and len(node.inputs) == 1
        if x is None or not (barrier or node.op_type in (_Q, _DQ)):
            continue
        if node.op_type == _Q and x in decoded:
            coded.add(str(output.name))
            continue
        if node.op_type == _Q:
            coded.add(str(x.name))
        elif node.op_type == _DQ:
            decoded.add(x)
        ir.convenience.replace_all_uses_with(output, x, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
    return coded


def _convolved(model: ir.Model, on_codes: Collection[str]) -> dict[str, str]:
    """Forms of convolutions over rows or over columns taken together, and of the movements around them, which cost nothing beside."""
    found: dict[str, str] = {}
    for node in model.graph:
        x = node.inputs[0] if node.op_type == "Conv" else None
        rows = x is not None and list(attributes(node).get("kernel_shape", ())) == [1, 1]
        types = ("Transpose", "Reshape") if rows else ("Transpose", "Reshape", "Transpose")
        before = _chain(x.producer() if x is not None else None, *types, forward=False)
        behind = _chain(sole_consumer(node.outputs[0]), *types, forward=True)
        around = [*before, *behind]
        if len(around) == 2 * len(types) and all(str(each.name) in on_codes for each in around):
            perms = [tuple(attributes(each).get("perm", ())) for each in (before[0], behind[0])]
            if perms == [CHANNELS_FIRST, CHANNELS_LAST]:
                free = around if rows else [each for each in around if each is not before[-1]]  # the image is brought in order once
                found |= dict.fromkeys((str(each.name) for each in free), RESCALE.name)
                found |= {str(node.name): LINEAR_CONVOLUTION.name} if rows else {}
    return found


def _chain(node: ir.Node | None, *types: str, forward: bool) -> list[ir.Node]:
    """The nodes of these types in a row, from one on; fewer if the row is not so long."""
    found: list[ir.Node] = []
    for op_type in types:
        if node is None or node.op_type != op_type:
            break
        found.append(node)
        x = node.inputs[0]
        node = sole_consumer(node.outputs[0]) if forward else x.producer() if x is not None else None
    return found


def _made_by(value: ir.Value) -> str:
    maker = value.producer()
    return "" if maker is None else maker.op_type


def _named(model: ir.Model, op_type: str) -> list[str]:
    return [str(node.name) for node in model.graph if node.op_type == op_type]
