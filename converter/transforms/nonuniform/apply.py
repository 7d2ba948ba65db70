"""Write grids that are not uniform into a model, as ONNX operators in front of their readers.

Logarithmic grids become Log, Round, Clip and Pow; a power-of-two grid a QuantizeLinear with one scale per channel and its
DequantizeLinear. Nothing of that runs in integer, nor does a product that reads it. A twin grid splits its tensor in two,
x = low + high, and every layer behind with it, f(x) = f(low) + f(high): exact in float, and each half gets a uniform grid
of its own like any other tensor, so that the layers run in integer, twice. Products and dense layers write float numbers,
and only their sum is rounded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from converter.graph.builder import GraphBuilder
from converter.graph.marks import NONUNIFORM, TWIN_SUM, mark_makers
from converter.graph.operator_sets import BARRIER
from converter.quantization.parameters import QuantParams
from converter.transforms.nonuniform.marks import source_of
from converter.transforms.nonuniform.quantizer import NonuniformQuantizer, QuantizerSite, check_quantizer, halves, low_copy

__all__ = ["apply_quantizers"]

_SMALLEST = 2.0**-126
"""In place of zero, which has no logarithm."""

_LN2 = math.log(2.0)

# Kim et al., I-BERT, arXiv 2101.01321, section 3.5: exp on (-ln 2, 0] as a (x + b)^2 + c, here multiplied out as FQ-ViT's code has it
_POLYNOMIAL = (0.35815147, 0.96963238, 1.0)
_MINUS_LN2 = -0.6931
_OCTAVES = 30
_LARGEST_SHARE = 2.0**30


def apply_quantizers(
    model: ir.Model, quantizer_sites: Mapping[str, QuantizerSite], quantizers: Mapping[str, NonuniformQuantizer]
) -> ir.Model:
    """A copy of a model with grids written into it.

    The names of nodes and tensors stay. A twin grid adds the tensors of
    :func:`~converter.transforms.nonuniform.quantizer.halves` and the operators of
    :func:`~converter.transforms.nonuniform.quantizer.low_copy`.

    Args:
        model: canonical float model; left as it is.
        quantizer_sites: of this model.
        quantizers: by the tensor that is read.

    Raises:
        ValueError: a grid has no place or does not fit it.
    """
    for name, quantizer in quantizers.items():
        if name not in quantizer_sites:
            raise ValueError(f"tensor '{name}' has no place for a {quantizer.kind} grid")
        check_quantizer(quantizer, quantizer_sites[name])
    result: ir.Model = ir.from_proto(ir.to_proto(model))
    nodes, builder = {str(node.name): node for node in result.graph}, GraphBuilder(result.graph)
    for name, quantizer in quantizers.items():
        readers = [(nodes[reader], index) for reader, index in quantizer_sites[name].readers]
        value = readers[0][0].inputs[readers[0][1]]
        assert value is not None
        anchor = min((node for node, _ in readers), key=list(result.graph).index)
        sheet = _Sheet(builder, anchor, name, quantizer.kind)
        if quantizer.kind == "twin":
            _twin(sheet, value, readers, quantizer.bound)
            continue
        if quantizer.kind == "power-of-two":
            _for_all_readers(builder, value, quantizer)
            continue
        new = _written(sheet, value, quantizer)
        for node, index in readers:
            node.replace_input_with(index, new)
            partner = node.inputs[1 - index] if quantizer.partner is not None else None
            if partner is not None and quantizer.partner is not None:
                node.replace_input_with(
                    1 - index, _uniform(_Sheet(builder, node, str(partner.name), "partner"), partner, quantizer.partner)
                )
    return result


@dataclass(frozen=True)
class _Sheet:
    """Nodes are put in front of ``anchor``, named after ``name`` and marked with ``kind``."""

    builder: GraphBuilder
    anchor: ir.Node
    name: str
    kind: str

    def add(self, op_type: str, *inputs: ir.Value | float, dtype: ir.DataType = ir.DataType.FLOAT, **attributes: int | None) -> ir.Value:
        """Append a node; numbers become constants."""
        values = [self.constant(np.asarray(v, np.float32)) if isinstance(v, float) else v for v in inputs]
        given = {k: v for k, v in attributes.items() if v is not None}
        shape = values[0].shape if op_type not in ("ReduceMax", "ReduceSum") else None
        name = self.builder.free(f"{self.name}_{self.kind}_{op_type}")
        output = self.builder.add(op_type, values, given, name=name, dtype=dtype, shape=shape, before=self.anchor)
        mark_makers([output], NONUNIFORM, self.kind)
        return output

    def constant(self, array: np.ndarray) -> ir.Value:
        return self.builder.initializer(f"{self.name}_{self.kind}_constant", array)


def _written(sheet: _Sheet, value: ir.Value, quantizer: NonuniformQuantizer) -> ir.Value:
    if quantizer.kind in ("log2", "log-sqrt2"):
        return _logarithmic(sheet, value, quantizer)
    assert quantizer.params is not None
    softmax = source_of(value)
    assert softmax is not None and softmax.inputs[0] is not None
    at_softmax = _Sheet(sheet.builder, softmax, str(softmax.name), sheet.kind)
    new = _integer_softmax(at_softmax, softmax.inputs[0], quantizer.params, quantizer.bits)
    old = softmax.outputs[0]
    sheet.builder.replace(old, new, [softmax])
    return new if value is old else value


def _logarithmic(sheet: _Sheet, x: ir.Value, quantizer: NonuniformQuantizer) -> ir.Value:
    """Scale * b^-n, n = clip(round(-log_b(x / scale)), 0, 2^bits - 1); zero where the rounded number exceeds that.

    For the root of two it is 2^floor(-n / 2) times the root for odd n (RepQ-ViT, arXiv 2212.08254, eqs. 14 to 17).
    """
    root = quantizer.kind == "log-sqrt2"
    steps = -(2.0 if root else 1.0) / _LN2
    levels = float(2**quantizer.bits)
    logs = sheet.add("Mul", sheet.add("Log", sheet.add("Max", x, _SMALLEST)), steps)
    if quantizer.scale != 1.0:
        logs = sheet.add("Sub", logs, steps * math.log(quantizer.scale))
    rounded = sheet.add("Round", logs)
    codes = sheet.add("Clip", rounded, 0.0, levels - 1.0)
    if root:
        halved = sheet.add("Mul", codes, -0.5)
        octave = sheet.add("Floor", halved)
        odd = sheet.add("Sub", halved, octave)
        factor = sheet.add("Add", sheet.add("Mul", odd, 2.0 * (math.sqrt(2.0) - 1.0)), 1.0)
        power = sheet.add("Mul", _power_of_two(sheet, octave), factor)
    else:
        power = _power_of_two(sheet, sheet.add("Neg", codes))
    if quantizer.scale != 1.0:
        power = sheet.add("Mul", power, quantizer.scale)
    return _within(sheet, rounded, power, levels)


def _power_of_two(sheet: _Sheet, exponent: ir.Value) -> ir.Value:
    power = sheet.add("Pow", sheet.constant(np.asarray(2.0, np.float32)), exponent)
    power.shape = exponent.shape
    return power


def _within(sheet: _Sheet, rounded: ir.Value, numbers: ir.Value, levels: float) -> ir.Value:
    """The numbers, or zero where the rounded logarithm is no code any more."""
    inside = sheet.add("Less", rounded, levels, dtype=ir.DataType.BOOL)
    return sheet.add("Where", inside, numbers, 0.0)


def _uniform(sheet: _Sheet, x: ir.Value, grid: QuantParams) -> ir.Value:
    """Q and DQ; the barrier in front keeps the runtime from joining the Q with what is there."""
    scale, zero_point = np.asarray(grid.scale, np.float32), np.asarray(grid.zero_point, grid.dtype)
    axis = None if grid.axis is None else len(x.shape or ()) - 1
    if grid.axis is None:
        scale, zero_point = scale.reshape(()), zero_point.reshape(())
    dtype = ir.DataType.from_numpy(grid.dtype)
    codes = sheet.add("QuantizeLinear", sheet.add(BARRIER, x), sheet.constant(scale), sheet.constant(zero_point), dtype=dtype, axis=axis)
    if grid.reduced_range:
        ends = [sheet.constant(np.asarray(q, grid.dtype)) for q in (grid.qmin, grid.qmax)]
        codes = sheet.add("Clip", codes, *ends, dtype=dtype)
    return sheet.add("DequantizeLinear", codes, sheet.constant(scale), sheet.constant(zero_point), axis=axis)


def _integer_softmax(sheet: _Sheet, scores: ir.Value, grid: QuantParams, bits: int) -> ir.Value:
    """Log-Int-Softmax: integer exponentials of the scores' codes, and 2^-round(log2(sum / exponential)) of them.

    FQ-ViT, arXiv 2111.13824, section 3.4, with the integer exponential of I-BERT, arXiv 2101.01321, algorithm 2. The integers
    are float32 numbers, as in the published code of FQ-ViT.
    """
    step = float(np.float32(grid.scale[0]))
    codes = sheet.add("Add", sheet.add("Round", sheet.add("Div", scores, step)), float(grid.zero_point[0]))
    codes = sheet.add("Clip", codes, float(grid.qmin), float(grid.qmax))
    last = sheet.constant(np.asarray([-1], np.int64))
    x = sheet.add("Sub", codes, sheet.add("ReduceMax", codes, last, keepdims=1))
    ln2 = float(math.floor(_MINUS_LN2 / step))
    x = sheet.add("Max", x, _OCTAVES * ln2)
    octave = sheet.add("Floor", sheet.add("Div", x, ln2))
    rest = sheet.add("Sub", x, sheet.add("Mul", octave, ln2))
    a, b, c = _POLYNOMIAL
    linear, offset = float(math.floor(b / a / step)), float(math.floor(c / a / step**2))
    polynomial = sheet.add("Add", sheet.add("Mul", sheet.add("Add", rest, linear), rest), offset)
    shift = sheet.add("Add", sheet.add("Neg", octave), float(_OCTAVES))
    exponential = sheet.add("Max", sheet.add("Floor", sheet.add("Mul", polynomial, _power_of_two(sheet, shift))), 0.0)
    total = sheet.add("ReduceSum", exponential, last, keepdims=1)
    ratio = sheet.add("Div", total, sheet.add("Max", exponential, 1.0))
    ratio.shape = scores.shape
    ratio = sheet.add("Min", sheet.add("Round", ratio), _LARGEST_SHARE)
    rounded = _rounded_logarithm(sheet, ratio)
    levels = float(2**bits)
    power = _power_of_two(sheet, sheet.add("Neg", sheet.add("Clip", rounded, 0.0, levels - 1.0)))
    return _within(sheet, rounded, power, levels)


def _rounded_logarithm(sheet: _Sheet, x: ir.Value) -> ir.Value:
    """floor(log2 x), and one more where x is at least one and a half times that power; right also if the Log is off a little."""
    floor = sheet.add("Floor", sheet.add("Mul", sheet.add("Log", x), 1.0 / _LN2))
    power = _power_of_two(sheet, floor)
    more = sheet.add("GreaterOrEqual", sheet.add("Sub", x, power), sheet.add("Mul", power, 0.5), dtype=ir.DataType.BOOL)
    return sheet.add("Add", floor, sheet.add("Where", more, 1.0, 0.0))


def _for_all_readers(builder: GraphBuilder, value: ir.Value, quantizer: NonuniformQuantizer) -> None:
    """What a normalization reads is what all others read: a residual connection goes on with the rounded numbers."""
    assert quantizer.params is not None
    uses = list(value.uses())
    first = min((node for node, _ in uses), key=list(builder.graph).index)
    rounded = _uniform(_Sheet(builder, first, str(value.name), quantizer.kind), value, quantizer.params)
    for node, index in uses:
        node.replace_input_with(index, rounded)


def _twin(sheet: _Sheet, x: ir.Value, readers: Sequence[tuple[ir.Node, int]], bound: float) -> None:
    below = sheet.add("Less", x, bound, dtype=ir.DataType.BOOL)
    low, high = sheet.add("Where", below, x, 0.0), sheet.add("Where", below, 0.0, x)
    for half, name in zip((low, high), halves(str(x.name)), strict=True):
        sheet.builder.rename(half, name)
        half.shape = x.shape
    for node, index in readers:
        _double(sheet.builder, node, index, low, high)


def _double(builder: GraphBuilder, node: ir.Node, index: int, low: ir.Value, high: ir.Value) -> None:
    """A copy of the operator without its bias reads ``low``, the operator ``high``, and their sum is what it wrote."""
    old, inputs = node.outputs[0], [low if i == index else value for i, value in enumerate(node.inputs[:2])]
    name = str(old.name)
    low_name, high_name = halves(name)
    copy = builder.add(node.op_type, inputs, node.attributes, name=low_copy(str(node.name)), output=low_name, like=old, before=node)
    node.replace_input_with(index, high)
    total = builder.add("Add", [copy, copy], name=f"{node.name}_twin_sum", like=old, after=node)
    if node.op_type != "Conv":  # whose integer kernel cannot write float numbers, so that its halves are rounded in any case
        mark_makers([total], NONUNIFORM, TWIN_SUM)
    ir.convenience.replace_all_uses_with(old, total, replace_graph_outputs=True)
    addition = total.producer()
    assert addition is not None
    addition.replace_input_with(1, old)
    builder.rename(old, high_name)
    builder.rename(total, name)
