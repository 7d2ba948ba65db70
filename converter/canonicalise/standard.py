"""The first rewrites, by well-kept libraries: one opset, constants folded, BatchNorm folded, dead code removed."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper, version_converter

from converter.errors import ModelError
from converter.graph.operator_sets import CANONICAL_OPSET
from converter.graph.protos import freeze_initializers, names_in, refill, unused_name
from converter.graph.shape_inference import infer_shapes, without_weights
from converter.graph.simplification import simplify
from converter.load.control_flow import CUT_OFF, holds_control_flow

__all__ = ["infer_shapes", "refuse_control_flow", "simplify", "to_canonical_opset"]

_REDEFINED = {"GroupNormalization"}
"""Operators whose younger version has no way back to the canonical opset; for one spelling, their older versions expand too."""

_TWINS = {"GlobalMaxPool": "GlobalAveragePool"}
"""Operators that the converter has no adapter for although nothing but their types changed, and one alike that it has."""

_HINT = f"export the model with opset {CANONICAL_OPSET} or 17"


def to_canonical_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert to :data:`CANONICAL_OPSET`; operators that are younger are replaced by their definitions.

    Initializers that are also listed as inputs become constants. The model given is left as it is.

    Raises:
        ModelError: the converter does not know how to.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    freeze_initializers(result)
    if holds_control_flow(result) is not None:
        result = simplify(result)  # the version converter leaves what is inside of nodes as it is
    opset = next(o.version for o in result.opset_import if o.domain in ("", "ai.onnx"))
    if opset < 13:
        _flatten_old_hardmax(result)
    result = _expand_definitions(infer_shapes(result), opset)
    if opset == CANONICAL_OPSET:
        return result
    twins = _disguise(result) if opset > CANONICAL_OPSET else {}
    try:
        result = without_weights(lambda m: version_converter.convert_version(m, CANONICAL_OPSET), result)
    except Exception as error:  # the converter is C++ and raises whatever its adapters raise
        first = str(error).strip().splitlines()[-1]
        raise ModelError(
            f"the model cannot be brought from opset {opset} to opset {CANONICAL_OPSET}: {first}", where=_culprit(model, first), hint=_HINT
        ) from error
    for node in result.graph.node:
        node.op_type = twins.get(node.output[0], node.op_type)
    if opset < 11:
        _state_old_resize(result)
        _drop_old_pad_values(result)
    result.ir_version = max(result.ir_version, helper.find_min_ir_version_for(result.opset_import, ignore_unknown=True))
    return infer_shapes(result)


def _drop_old_pad_values(model: onnx.ModelProto) -> None:
    """The number that a Pad of opset 10 and older need not have, as it reflects or repeats, and that the converter leaves behind."""
    for node in model.graph.node:
        if node.op_type == "Pad":
            refill(node.attribute, (a for a in node.attribute if a.name == "mode"))


def _state_old_resize(model: onnx.ModelProto) -> None:
    """Say by attributes what Upsample and the Resize of opset 10 took for granted.

    Coordinates scale from the corner; the nearest neighbour is the lower one or, as ONNX Runtime has it, the upper one
    when the image shrinks.
    """
    constants = {i.name: i for i in model.graph.initializer}
    constants.update((n.output[0], a.t) for n in model.graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value")
    for node in model.graph.node:
        if node.op_type != "Resize":
            continue
        scales = constants.get(node.input[2])
        factors = numpy_helper.to_array(scales) if scales is not None else np.ones(1)
        shrinks = bool(factors.min() < 1 and factors.max() <= 1)
        stated = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "ceil" if shrinks else "floor"}
        node.attribute.extend(helper.make_attribute(name, value) for name, value in stated.items())


def _flatten_old_hardmax(model: onnx.ModelProto) -> None:
    """Give every Hardmax a matrix to read, on which its old meaning and the new one agree; the converter does so for Softmax only.

    Before opset 13 it looked at everything from its axis on as one row.
    """
    nodes, taken = [], names_in(model.graph)
    for node in model.graph.node:
        if node.op_type != "Hardmax":
            nodes.append(node)
            continue
        x, y = node.input[0], node.output[0]
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        shape, matrix, rows = (unused_name(f"{y}_{part}", taken) for part in ("shape", "matrix", "rows"))
        nodes += [
            helper.make_node("Shape", [x], [shape]),
            helper.make_node("Flatten", [x], [matrix], axis=axis),
            helper.make_node("Hardmax", [matrix], [rows], axis=1, name=node.name),
            helper.make_node("Reshape", [rows, shape], [y]),
        ]
    if len(nodes) > len(model.graph.node):
        refill(model.graph.node, nodes)


def _expand_definitions(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Replace operators younger than the canonical opset by their definitions."""
    younger = []
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or not _is_younger(node.op_type):
            continue
        schema = onnx.defs.get_schema(node.op_type, max_inclusive_version=opset)
        if not (schema.has_function or schema.has_context_dependent_function):
            raise ModelError(
                f"operator '{node.op_type}' has no form in opset {CANONICAL_OPSET}",
                where=f"node '{node.name or node.output[0]}'",
                hint="export the model with an older opset",
            )
        present = {a.name for a in node.attribute}
        defaults = (a.default_value for a in schema.attributes.values() if a.name not in present)
        node.attribute.extend(a for a in defaults if a.type != onnx.AttributeProto.UNDEFINED)
        younger.append(("", node.op_type))
    if not younger:
        return model

    def inline(light: onnx.ModelProto) -> onnx.ModelProto:
        light.graph.value_info.extend(helper.make_tensor_value_info(i.name, i.data_type, list(i.dims)) for i in light.graph.initializer)
        inlined: onnx.ModelProto = onnx.inliner.inline_selected_functions(light, sorted(set(younger)), inline_schema_functions=True)
        return inlined

    try:
        return infer_shapes(without_weights(inline, model))
    except Exception as error:  # the inliner is C++ too
        name = younger[0][1]
        first = str(error).strip().splitlines()[-1]
        raise ModelError(
            f"operator '{name}' cannot be replaced by its definition: {first}", where=_culprit(model, name), hint=_HINT
        ) from error


def _is_younger(op_type: str) -> bool:
    return op_type in _REDEFINED or not onnx.defs.has(op_type, max_inclusive_version=CANONICAL_OPSET)


def _disguise(model: onnx.ModelProto) -> dict[str, str]:
    """Put twins in place of operators without an adapter; returns the true types by output."""
    true_types = {n.output[0]: n.op_type for n in model.graph.node if n.op_type in _TWINS}
    for node in model.graph.node:
        node.op_type = _TWINS.get(node.op_type, node.op_type)
    return true_types


def _culprit(model: onnx.ModelProto, message: str) -> str:
    """The node whose operator the converter complains of, as far as its message tells."""
    for node in model.graph.node:
        if node.op_type in message.replace(".", " ").replace(":", " ").split():
            return f"node '{node.name or node.output[0]}' ({node.op_type})"
    return "opset conversion"


def refuse_control_flow(model: ir.Model) -> None:
    """Refuse what only a graph inside a node can say.

    Raises:
        ModelError: a node holds a graph.
    """
    for node in model.graph:
        if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
            raise ModelError(
                f"operator '{node.op_type}' holds a graph of its own, which cannot be quantized",
                where=f"node '{node.name or node.outputs[0].name}'",
                hint=CUT_OFF,
            )
