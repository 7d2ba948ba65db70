"""Local functions: operators that a model defines itself become the nodes they stand for."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import FunctionProto, NodeProto, inliner

from converter.errors import ModelError
from converter.graph.protos import nodes_of, refill
from converter.load.vetting import place_of, refuse_invalid

__all__ = ["drop_unused_functions", "inline_functions"]

Identifier = tuple[str, str, str]


def drop_unused_functions(model: onnx.ModelProto) -> None:
    """Drop functions that no node calls, directly or through others: what they hold is nobody's business."""
    functions = {_identifier(f): f for f in model.functions}
    pending = [_called(n) for n in nodes_of(model.graph)]
    used: set[Identifier] = set()
    while pending:
        name = pending.pop()
        if name in functions and name not in used:
            used.add(name)
            pending += [_called(n) for n in nodes_of(functions[name])]
    refill(model.functions, (f for f in model.functions if _identifier(f) in used))


def inline_functions(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model without local functions; nodes of their bodies get names of their own.

    Args:
        model: nodes sorted, the standard domain spelled as an empty name.

    Raises:
        ModelError: a function is not valid, calls itself, or means operators of another opset than the model's.
    """
    if not model.functions:
        return model
    for function in model.functions:
        _adopt_opset(path, model, function)
    refuse_invalid(path, model)
    try:
        inlined: onnx.ModelProto = inliner.inline_local_functions(model)
    except Exception as error:  # the inliner is C++ and raises whatever it likes
        first = str(error).strip().splitlines()[-1][:200]
        raise ModelError(f"local functions cannot be inlined: {first}", where=str(path), hint="export the model without them") from error
    if inlined.functions:
        name = f"{inlined.functions[0].domain}.{inlined.functions[0].name}"
        raise ModelError(f"local function '{name}' cannot be inlined", where=str(path), hint="export the model without local functions")
    return inlined


def _identifier(function: FunctionProto) -> Identifier:
    return function.domain, function.name, function.overload


def _called(node: NodeProto) -> Identifier:
    return node.domain, node.op_type, node.overload


def _adopt_opset(path: Path, model: onnx.ModelProto, function: FunctionProto) -> None:
    """Let a function import the standard opset of the model, if its operators mean the same there."""
    wanted = next(o.version for o in model.opset_import if o.domain == "")
    entry = next((o for o in function.opset_import if o.domain == ""), None)
    if entry is None:
        function.opset_import.append(onnx.helper.make_opsetid("", wanted))
        return
    for node in nodes_of(function):
        if node.domain == "" and not _mean_the_same(node.op_type, entry.version, wanted):
            raise ModelError(
                f"function '{function.name}' is of opset {entry.version}, the model of {wanted}: '{node.op_type}' is another operator",
                where=place_of(path, node),
                hint="export the model and its functions with one opset",
            )
    entry.version = wanted


def _mean_the_same(op_type: str, one: int, other: int) -> bool:
    """True if nothing but element types was added to an operator between two opsets."""
    if one == other:
        return True
    try:
        schemas = [onnx.defs.get_schema(op_type, max_inclusive_version=version) for version in (one, other)]
    except onnx.defs.SchemaError:
        return False
    return schemas[0].since_version == schemas[1].since_version or _signature(schemas[0]) == _signature(schemas[1])


def _signature(schema: onnx.defs.OpSchema) -> object:
    attributes = {name: (a.type, a.required, a.default_value.SerializeToString()) for name, a in schema.attributes.items()}
    return attributes, *([(p.name, p.option) for p in side] for side in (schema.inputs, schema.outputs))
