"""Shape inference by the onnx package, without copying weights to C++ and back."""

from __future__ import annotations

from collections.abc import Callable

import onnx
from onnx import helper

from converter.errors import ModelError
from converter.graph.weight_files import exceeds_file, folder_of, is_in_file

__all__ = ["check_model", "infer_shapes", "without_weights"]

_HEAVY = 1 << 12
"""Bytes above which an initializer is kept out of calls that only look at shapes."""


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Element types, and shapes as far as they can be known, for every tensor.

    Raises:
        ModelError: the onnx package cannot tell, because an operator is unknown or types contradict each other.
    """
    try:
        return without_weights(lambda m: onnx.shape_inference.infer_shapes(m, data_prop=True), model)
    except onnx.shape_inference.InferenceError as error:
        first = str(error).strip().splitlines()[0][:200]
        raise ModelError(f"shapes cannot be inferred: {first}") from error


def check_model(model: onnx.ModelProto) -> None:
    """The onnx checker; weights of a large model count as inputs, as it takes no model over 2 GB.

    Raises:
        onnx.checker.ValidationError: says what is wrong.
    """
    if folder_of(model) is None and not exceeds_file(model):
        onnx.checker.check_model(model)
    else:
        without_weights(_checked, model)


def _checked(model: onnx.ModelProto) -> onnx.ModelProto:
    onnx.checker.check_model(model)
    return model


def without_weights(call: Callable[[onnx.ModelProto], onnx.ModelProto], model: onnx.ModelProto) -> onnx.ModelProto:
    """Call with large initializers reduced to their types, so that they are not copied to C++ and back, and put them back."""
    heavy = [i for i in model.graph.initializer if is_in_file(i) or i.ByteSize() > _HEAVY]
    if not heavy:
        return call(model)
    light = onnx.ModelProto(
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        metadata_props=model.metadata_props,
        opset_import=model.opset_import,
        functions=model.functions,
        graph=onnx.GraphProto(
            name=model.graph.name,
            node=model.graph.node,
            input=[*model.graph.input, *(helper.make_tensor_value_info(i.name, i.data_type, list(i.dims)) for i in heavy)],
            output=model.graph.output,
            value_info=model.graph.value_info,
            initializer=[i for i in model.graph.initializer if not is_in_file(i) and i.ByteSize() <= _HEAVY],
        ),
    )
    result = call(light)
    del result.graph.input[len(model.graph.input) :]
    result.graph.initializer.extend(heavy)
    return result
