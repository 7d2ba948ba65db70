"""Pixels become numbers by a DequantizeLinear, so that their codes can go on to the first layer as they are.

1. ``Cast(pixels)``, from uint8 to float32: a ``DequantizeLinear`` with scale 1 and zero point 0. That is cheaper also where float
   operators follow, and the codes of what it gives are the pixels.
2. An ``Add`` behind it that subtracts a mean of each channel, in front of a convolution that pads: zero is then the pixel value of the
   mean, which is no integer, and codes must hold zero exactly. In steps of a little more than one pixel, m / k for a mean m and a whole
   k that all channels share, they do. The DequantizeLinear gives pixels in these steps, the Add subtracts k, and the convolution, or
   whoever else reads, takes the steps into its constants. Subtracting k from codes only moves their zero point: it needs no node.

Where a convolution does not pad, means and deviations are folded into it altogether before, and case 1 is left.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.canonicalise.folding.affine import fold_affine
from converter.canonicalise.folding.layers import is_layer
from converter.graph.builder import GraphBuilder
from converter.graph.queries import constant, is_float, sole_consumer

__all__ = ["WIDEST_STEP", "take_pixels"]

WIDEST_STEP = 1.25
"""Pixels, of a code: with more, what the mean's exact zero costs in resolution is worse than another node."""

_LARGEST = 255


def take_pixels(model: ir.Model) -> list[str]:
    """Apply both cases; returns the names of the tensors concerned."""
    builder = GraphBuilder(model.graph)
    changed = []
    for node in list(model.graph):
        x = node.inputs[0] if node.inputs else None
        if node.op_type != "Cast" or x is None or x.dtype != ir.DataType.UINT8 or constant(x) is not None or not is_float(node.outputs[0]):
            continue
        changed.append(str(node.outputs[0].name))
        shift = _mean_behind(node)
        if shift is None:
            _decode(builder, node, x, np.ones(1))
        else:
            changed.append(str(shift.outputs[0].name))
            _centre(builder, node, x, shift)
    if changed:
        fold_affine(model)
    return changed


def _mean_behind(cast: ir.Node) -> ir.Node | None:
    """The Add that subtracts a mean that codes can hold; None if there is none."""
    shift = sole_consumer(cast.outputs[0])
    if shift is None or shift.op_type != "Add":
        return None
    mean, rank = _mean(shift), len(cast.outputs[0].shape or ())
    if mean is None or rank < 2 or shift.outputs[0].is_graph_output():
        return None
    steps = _steps(mean)
    if steps is None:
        return None
    if mean.size == 1:
        return shift
    layer = sole_consumer(shift.outputs[0])
    channels = [*mean.shape] == [mean.size if axis == 1 else 1 for axis in range(rank)]
    return shift if channels and is_layer(layer, "Conv") else None


def _mean(shift: ir.Node) -> npt.NDArray[np.float64] | None:
    """What an Add subtracts, if it is a constant."""
    array = next((a for a in map(constant, shift.inputs) if a is not None), None)
    return None if array is None else -array.astype(np.float64)


def _steps(mean: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """Steps in pixels, one for each mean, of which each mean is the same whole multiple; None if they would be too wide."""
    if not 1.0 <= float(mean.min()) <= float(mean.max()) <= _LARGEST:
        return None
    # a mean of 128/255 that was written as 0.501961 is meant to be whole
    steps: npt.NDArray[np.float64] = mean / np.floor(mean.min() + 1e-3)
    steps = np.where(np.abs(steps - 1.0) < 1e-5, 1.0, steps)
    return steps if steps.max() <= WIDEST_STEP else None


def _decode(builder: GraphBuilder, cast: ir.Node, x: ir.Value, steps: npt.NDArray[np.float64]) -> None:
    """Put a DequantizeLinear in the place of a Cast; the numbers are pixels over steps."""
    output = cast.outputs[0]
    single = steps.size == 1
    scale = (1.0 / steps).astype(np.float32).reshape(() if single else -1)
    parameters = [
        builder.initializer(f"{output.name}_scale", scale),
        builder.initializer(f"{output.name}_zero_point", np.zeros(scale.shape, np.uint8)),
    ]
    attrs = {} if single else {"axis": 1}
    decoded = builder.add("DequantizeLinear", [x, *parameters], attrs, name=f"{output.name}_decoded", like=output, before=cast)
    builder.replace(output, decoded, [cast])


def _centre(builder: GraphBuilder, cast: ir.Node, x: ir.Value, shift: ir.Node) -> None:
    """Case 2."""
    mean, output = _mean(shift), shift.outputs[0]
    assert mean is not None
    steps = _steps(mean)
    assert steps is not None
    _decode(builder, cast, x, steps)
    index = next(i for i, v in enumerate(shift.inputs) if constant(v) is not None)
    whole = np.array(-np.rint(mean.reshape(-1)[0] / steps.reshape(-1)[0]), np.float32)
    shift.replace_input_with(index, builder.initializer(f"{output.name}_whole", whole))
    if np.all(steps == 1.0):
        return
    readers = list(output.uses())
    factor = builder.initializer(f"{output.name}_steps", steps.astype(np.float32).reshape(() if steps.size == 1 else steps.shape))
    scaled = builder.add("Mul", [output, factor], name=f"{output.name}_in_steps", like=output, after=shift)
    for use in readers:
        use.node.replace_input_with(use.idx, scaled)
