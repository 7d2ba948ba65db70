"""k-bit confinement: whatever comes in, no code leaves the grid that the file gives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from converter.graph.operator_sets import PRODUCTS
from converter.partition.bit_widths import CONTAINER_BITS
from converter.runtime.session import Feed, open_session, run_session
from converter.targets import TARGETS
from runtime_tests.model_pair import ModelPair

__all__ = ["FAR", "Confinement", "Escape", "measure_confinement"]

FAR = 1000.0
"""Inputs are this many times as large as the samples, beside the samples themselves."""

_SAMPLES = 2
Limits = tuple[int, int]


@dataclass(frozen=True)
class Escape:
    """Codes beyond their limits: the tensor, what it may hold and what it held, lowest and highest."""

    tensor: str
    allowed: Limits
    found: Limits


@dataclass(frozen=True)
class Confinement:
    """What was looked at.

    Attributes:
        activations: tensors of codes that were watched while the model ran.
        weights: stored constants of layers.
        escapes: those that hold codes beyond their limits; none in a sound model.
    """

    activations: int
    weights: int
    escapes: tuple[Escape, ...]


def measure_confinement(model_pair: ModelPair) -> Confinement:
    """Watch codes at run time, on samples and on inputs far out of range.

    A tensor of codes is watched if an integer Clip follows its Q, and held to that Clip's limits. Where the file says how
    many bits enter layers (metadata ``bridgequant.bits``), what enters a layer is watched whether there is a Clip or not,
    and the layers' stored weights are held to their bits, too, or to those that its target takes without saturating.

    Raises:
        ModelError: the model does not run.
    """
    constants = {tensor.name: tensor for tensor in model_pair.model.graph.initializer}
    watched = _clipped(model_pair.model, constants)
    stored: dict[str, Limits] = {}
    if model_pair.bits is not None:
        for name, depthwise in _entering_layers(model_pair.model, constants).items():
            stored_as = None if depthwise is None else _weight_bits(model_pair, model_pair.bits, depthwise)
            bits = model_pair.bits[1] if stored_as is None else stored_as
            limits = _limits(model_pair.model, constants, name, bits)
            if bits == CONTAINER_BITS:  # nothing can leave its container
                continue
            if stored_as is not None:
                stored[name] = limits
            else:
                watched[name] = _narrower(limits, watched.get(name, limits))
    escapes = [_escape(name, numpy_helper.to_array(constants[name]), limits) for name, limits in stored.items()]
    escapes += [_escape(name, codes, watched[name]) for name, codes in _codes(model_pair, list(watched)).items()]
    return Confinement(len(watched), len(stored), tuple(escape for escape in escapes if escape is not None))


def _clipped(model: onnx.ModelProto, constants: Mapping[str, onnx.TensorProto]) -> dict[str, Limits]:
    """Outputs of the integer Clips, and their limits."""
    makers = {output: node.op_type for node in model.graph.node for output in node.output}
    found = {}
    for node in model.graph.node:
        if node.op_type == "Clip" and makers.get(node.input[0]) == "QuantizeLinear" and len(node.input) == 3:
            ends = [numpy_helper.to_array(constants[name]).item() for name in node.input[1:] if name in constants]
            if len(ends) == 2:
                found[node.output[0]] = (int(ends[0]), int(ends[1]))
    return found


def _entering_layers(model: onnx.ModelProto, constants: Mapping[str, onnx.TensorProto]) -> dict[str, bool | None]:
    """Codes that layers multiply: None if they are computed, else whether they are stored weights of a depthwise convolution."""
    codes = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    found: dict[str, bool | None] = {}
    for node in model.graph.node:
        for name in node.input[:2] if node.op_type in PRODUCTS else ():
            if name in codes:
                stored = constants.get(codes[name])
                found[codes[name]] = None if stored is None else _is_depthwise(node, stored)
    return found


def _is_depthwise(node: onnx.NodeProto, weight: onnx.TensorProto) -> bool:
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    return bool(node.op_type == "Conv" and weight.dims[1] == 1 and weight.dims[0] == groups)


def _weight_bits(model_pair: ModelPair, bits: tuple[int, int], depthwise: bool) -> int:
    """What the file says, or fewer where the kernels of its target would saturate."""
    target = TARGETS.get(model_pair.target or "")
    if target is None:
        return bits[0]
    return min(bits[0], target.depthwise_weight_bits if depthwise else target.dense_weight_bits(bits[1]))


def _limits(model: onnx.ModelProto, constants: Mapping[str, onnx.TensorProto], name: str, bits: int) -> Limits:
    """Smallest and largest code of so many bits; signed or not as the zero point of the DQ that reads them."""
    reader = next(node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] == name)
    zero_point = constants.get(reader.input[2]) if len(reader.input) > 2 else None
    signed = zero_point is not None and zero_point.data_type == onnx.TensorProto.INT8
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def _narrower(one: Limits, other: Limits) -> Limits:
    return max(one[0], other[0]), min(one[1], other[1])


def _codes(model_pair: ModelPair, names: list[str]) -> dict[str, npt.NDArray[Any]]:
    """Lowest and highest code of each tensor, over near and far samples."""
    if not names:
        return {}
    session = open_session(_exposed(model_pair.model, names), threads=1, settings=model_pair.settings)
    runs = [run_session(session, feed, names) for near in model_pair.feeds[:_SAMPLES] for feed in (near, *_far(near))]
    return {name: np.array([[run[name].min(), run[name].max()] for run in runs]) for name in names}


def _far(feed: Feed) -> tuple[Feed, Feed]:
    """The sample blown up, with either sign; what is not floating-point stays."""
    scaled = [
        {name: x * x.dtype.type(factor) if np.issubdtype(x.dtype, np.floating) else x for name, x in feed.items()} for factor in (FAR, -FAR)
    ]
    return scaled[0], scaled[1]


def _exposed(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """The same model with these tensors as further outputs."""
    result = onnx.ModelProto.FromString(model.SerializeToString())
    present = {value.name for value in result.graph.output}
    result.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in present)
    inferred: onnx.ModelProto = onnx.shape_inference.infer_shapes(result)
    return inferred


def _escape(name: str, codes: npt.NDArray[Any], limits: Limits) -> Escape | None:
    found = int(codes.min()), int(codes.max())
    return None if limits[0] <= found[0] and found[1] <= limits[1] else Escape(name, limits, found)
