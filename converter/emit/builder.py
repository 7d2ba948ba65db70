"""Emit: write a planned model as QuantizeLinear and DequantizeLinear nodes and integer constants.

The graph is built anew, node by node. One Q per tensor, one DQ per consumer. A grid narrower than its container, and
a clamp that was absorbed, become an integer ``Clip`` on the codes. Weights are stored as int8, biases as int32 with
scale float32(s_x) * float32(s_w); a constant that two operators read is stored once for each. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from converter.emit.fusion_barriers import add_barriers
from converter.emit.graph_builder import QuantizedGraph
from converter.graph.operator_sets import CANONICAL_OPSET, CLAMPS, LAYERS
from converter.graph.queries import constant, data_inputs, scalar
from converter.plan.constants import bias_of, weight_codes
from converter.plan.records import OpPlan, Plan, TensorPlan, gate_of, ramp_of
from converter.quantization.bias import integer_bias
from converter.quantization.gated_activations import HARD_SIGMOID_OFFSET, clamp_codes, gate_grid, offset_grid, sigmoid_grid
from converter.quantization.parameters import Grid, quantize
from converter.transforms.equalization.apply import channel_grid, inserted_factors
from converter.transforms.sigmoids.piecewise_linear import ramp_limits

__all__ = ["OUTPUT_IR_VERSION", "emit"]

OUTPUT_IR_VERSION = 9
"""The one that belongs to opset 20; ONNX Runtime 1.19 and newer read it."""


def emit(model: ir.Model, plan: Plan, metadata: Mapping[str, str]) -> ir.Model:
    """Build the quantized model; the canonical one is left as it is.

    Args:
        model: canonical float model.
        plan: settled for this model.
        metadata: ``metadata_props`` of the result.
    """
    graph = _Builder(model.graph, plan).build()
    result = ir.Model(graph, ir_version=OUTPUT_IR_VERSION, producer_name="bridgequant")
    result.metadata_props.update(metadata)
    return result


@dataclass(frozen=True)
class _Codes:
    """A tensor as integers, and how to read them."""

    value: ir.Value
    grid: Grid


class _Builder:
    """Appends nodes to a new graph, in the order of the old one.

    ``real`` holds what stands for a value of the old graph as float numbers, ``codes`` what stands for it as integers, and
    ``copies`` of which other value it is a copy to those who read float numbers.
    """

    def __init__(self, old: ir.Graph, plan: Plan) -> None:
        self.old = old
        self.plan = plan
        self.real: dict[ir.Value, ir.Value] = {}
        self.codes: dict[ir.Value, _Codes] = {}
        self.copies: dict[ir.Value, ir.Value] = {}
        # every name of the old graph is taken from the start: a new name must never shadow a later old one
        values = [*old.inputs, *old.initializers.values(), *(o for n in old for o in n.outputs)]
        graph = ir.Graph([], [], nodes=[], opset_imports={"": CANONICAL_OPSET}, name=old.name)
        self.new = QuantizedGraph(graph, [*(str(v.name) for v in values), *(str(n.name) for n in old)])

    def build(self) -> ir.Graph:
        graph = self.new.graph
        graph.inputs.extend([self._input(v) for v in self.old.inputs])
        for value in self.old.inputs:
            self._encode(value, None)
        for node in self.old:
            op = self._op(node)
            if op is not None and op.runs == "integer":
                self._integer_node(node, op)
            else:
                self._float_node(node)
        graph.outputs.extend([self._output(v) for v in self.old.outputs])
        add_barriers(self.new, [name for name, op in self.plan.ops.items() if op.runs != "integer"])
        return _pruned(graph)

    def _op(self, node: ir.Node | None) -> OpPlan | None:
        return self.plan.ops.get(str(node.name)) if node is not None else None

    def _fate(self, value: ir.Value) -> TensorPlan | None:
        return self.plan.tensors.get(str(value.name))

    # Reading

    def _input(self, value: ir.Value) -> ir.Value:
        self.real[value] = ir.Value(name=value.name, type=value.type, shape=value.shape)
        return self.real[value]

    def _float(self, value: ir.Value | None, reader: str) -> ir.Value | None:
        """What a float operator reads."""
        if value is None:
            return None
        value = self.copies.get(value, value)
        if value in self.real:
            return self.real[value]
        if value in self.codes:
            return self._decode(self.codes[value], f"{value.name}_{reader}")
        if value.const_value is None:
            raise AssertionError(f"tensor '{value.name}' is read before it is made")
        copy = ir.Value(name=value.name, type=value.type, shape=value.shape, const_value=value.const_value)
        self.new.graph.register_initializer(copy)
        self.real[value] = copy
        return copy

    def _decode(self, codes: _Codes, name: str) -> ir.Value:
        return self.new.dequantize(codes.value, codes.grid, name)

    def _output(self, value: ir.Value) -> ir.Value:
        if value in self.codes and value not in self.real:
            result = self._decode(self.codes[value], f"{value.name}_result")
            result.name = value.name
        else:
            found = self._float(value, "result")
            assert found is not None
            result = found
        result.shape = value.shape
        return result

    # Writing

    def _encode(self, value: ir.Value, op: OpPlan | None) -> None:
        """Give a finished tensor its codes, if the plan wants any."""
        fate = self._fate(value)
        if fate is None or fate.grid is None or value in self.codes:
            return
        if inserted_factors(value.producer()) is not None:
            self._encode_per_channel(value, fate.grid)
            return
        grid, container = fate.grid, np.iinfo(fate.grid.dtype)
        moved = fate.fate == "shared" and op is not None
        # codes that were only moved keep inside the limits of the grid they share
        limits = (int(container.min), int(container.max)) if moved else (grid.qmin, grid.qmax)
        source = self._float(value, f"{value.name}_source")
        assert source is not None
        self.codes[value] = _Codes(self.new.quantize(source, grid, str(value.name), limits), grid)
        if op is not None and op.writes == "codes":
            # the float number behind the codes is for nobody: it would keep the runtime from fusing
            self.real.pop(value, None)
            self.copies.pop(value, None)

    def _encode_per_channel(self, value: ir.Value, grid: Grid) -> None:
        """Let a Q with one scale per channel do the multiplication in front of it; who reads the codes sees one scale."""
        node = value.producer()
        assert node is not None
        source = self._float(node.inputs[0], f"{value.name}_source")
        assert source is not None
        codes = self.new.quantize(source, channel_grid(node, grid), str(value.name), (grid.qmin, grid.qmax))
        self.codes[value] = _Codes(codes, grid)

    def _copy_node(self, node: ir.Node, inputs: Sequence[ir.Value | None]) -> None:
        copy = ir.Node(
            node.domain, node.op_type, list(inputs), list(node.attributes.values()), num_outputs=len(node.outputs), name=node.name
        )
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            self._adopt(old, new)
        self.new.graph.append(copy)

    def _adopt(self, old: ir.Value, new: ir.Value) -> None:
        """Let ``new`` stand for ``old``, under its name unless a DQ will make the model output of that name."""
        op = self._op(old.producer())
        behind_codes = op is not None and op.writes == "codes" and old.is_graph_output()
        new.name = self.new.unique(f"{old.name}_before_codes") if behind_codes else old.name
        new.type, new.shape = old.type, old.shape
        self.real[old] = new

    # Operators

    def _float_node(self, node: ir.Node) -> None:
        if self._needs_no_node(node):
            self._alias(node, None)
            return
        op = self._op(node)
        enclosed = op is not None and op.runs == "enclosed"
        inputs = self._integer_inputs(node, op) if op is not None and enclosed else [self._float(v, str(node.name)) for v in node.inputs]
        self._copy_node(node, inputs)
        for output in node.outputs:
            self._encode(output, op if enclosed else None)

    def _integer_node(self, node: ir.Node, op: OpPlan) -> None:
        fate = self._fate(node.outputs[0])
        if fate is not None and fate.fate == "derived" and fate.grid is not None:
            ((_, x),) = data_inputs(node)
            self.codes[node.outputs[0]] = _Codes(self.codes[x].value, fate.grid)
            return
        if op.op_type in CLAMPS:
            self._absorbed(node)
            return
        if op.op_type == "Identity":
            self._alias(node, op)
            return
        if op.op_type == "HardSwish":
            self._hardswish(node)
        elif op.op_type == "Gelu":
            self._gelu(node, op)
        elif op.op_type == "Sigmoid" and op.gate:
            self._ramp(node, op)
            return
        else:
            self._copy_node(node, self._integer_inputs(node, op))
        for output in node.outputs:
            self._encode(output, op)

    def _needs_no_node(self, node: ir.Node) -> bool:
        """True for a float copy. One under 8-bit codes stays: without the Clip behind it, its DQ and Q would meet another pair."""
        if node.op_type != "Identity" or self._op(node) is None or node.outputs[0].is_graph_output():
            return False
        fate = self._fate(node.outputs[0])
        return fate is None or fate.grid is None or fate.grid.confined

    def _alias(self, node: ir.Node, op: OpPlan | None) -> None:
        """A copy is what its original is, on a grid of its own if it has one."""
        x, output = node.inputs[0], node.outputs[0]
        assert x is not None
        if op is not None:
            self.real[output] = self._decode(self.codes[x], f"{x.name}_{node.name}")
        else:
            self.copies[output] = self.copies.get(x, x)
        self._encode(output, op)

    def _integer_inputs(self, node: ir.Node, op: OpPlan) -> list[ir.Value | None]:
        grids = dict(op.constants)
        bias: ir.Value | None = None
        if op.op_type in LAYERS and 1 in grids:
            assert node.inputs[0] is not None
            bias, grids[1] = self._bias(node, op, self.codes[node.inputs[0]].grid, grids[1])
        inputs: list[ir.Value | None] = []
        for index, value in enumerate(node.inputs):
            if index == 2 and bias is not None:
                inputs.append(bias)
            elif index in grids:
                inputs.append(self._constant(node, op, index, grids[index]))
            elif value is not None and value in self.codes:
                inputs.append(self._decode(self.codes[value], f"{value.name}_{node.name}"))
            else:
                inputs.append(self._float(value, str(node.name)))
        return inputs

    def _constant(self, node: ir.Node, op: OpPlan, index: int, grid: Grid) -> ir.Value:
        value = node.inputs[index]
        array = constant(value)
        assert value is not None and array is not None
        name = f"{node.name}_{value.name}"
        return self.new.dequantize(self.new.initializer(f"{name}_quantized", weight_codes(op, index, array, grid)), grid, name)

    def _bias(self, node: ir.Node, op: OpPlan, x_grid: Grid, weights: Grid) -> tuple[ir.Value | None, Grid]:
        value = node.inputs[2] if len(node.inputs) > 2 else None
        array = bias_of(op, constant(value))
        if value is None or array is None:
            return None, weights
        weights, codes, scale = integer_bias(array, x_grid.scale[0], weights)
        return self.new.bias(codes, scale, f"{node.name}_{value.name}"), weights

    def _absorbed(self, node: ir.Node) -> None:
        """The clamp happens on the codes: Q(clamp(x)) = clip(Q(x)), since Q is monotone."""
        x, output = node.inputs[0], node.outputs[0]
        fate = self._fate(output)
        assert x is not None and fate is not None and fate.grid is not None
        source = self._float(x, str(node.name))
        assert source is not None
        limits = clamp_codes(node.op_type, [scalar(v) for v in node.inputs[1:]], fate.grid)
        self.codes[output] = _Codes(self.new.quantize(source, fate.grid, str(output.name), limits), fate.grid)

    def _hardswish(self, node: ir.Node) -> None:
        """Write x * relu6(x + 3) / 6: the division by six only renames the scale of relu6's codes."""
        x = node.inputs[0]
        assert x is not None
        new, codes, name = self.new, self.codes[x], str(node.name)
        shift, gate = offset_grid(signed=codes.grid.signed), gate_grid(signed=codes.grid.signed)
        three = new.initializer(f"{name}_offset_quantized", quantize(np.asarray(HARD_SIGMOID_OFFSET, np.float32), shift))
        left = self._decode(codes, f"{name}_gate_input")
        total = new.add("Add", [left, new.dequantize(three, shift, f"{name}_offset")], name=f"{name}_gate_Add")
        gated = new.quantize(total, gate, f"{name}_gate", (gate.qmin, gate.qmax))
        share = new.dequantize(gated, gate.rescaled(1.0 / 6.0), f"{name}_gate_share")
        self._product(node, self._decode(codes, f"{name}_input"), share)

    def _product(self, node: ir.Node, x: ir.Value, gate: ir.Value) -> None:
        product = ir.Node("", "Mul", [x, gate], name=self.new.unique(f"{node.name}_Mul"))
        self._adopt(node.outputs[0], product.outputs[0])
        self.new.graph.append(product)

    def _ramp(self, node: ir.Node, op: OpPlan) -> None:
        """Clamp the codes of what the sigmoid would read; the line is in the scale and zero point."""
        x, output = node.inputs[0], node.outputs[0]
        fate = self._fate(output)
        assert x is not None and fate is not None and fate.grid is not None
        codes = self.new.clip(self.codes[x].value, fate.grid, str(output.name), ramp_limits(fate.grid, ramp_of(op)))
        self.codes[output] = _Codes(codes, fate.grid)

    def _gelu(self, node: ir.Node, op: OpPlan) -> None:
        """Write x * gate(x): the gate's slope, height and base rename scales and a zero point."""
        x, gate = node.inputs[0], gate_of(op)
        assert x is not None
        new, codes, name = self.new, self.codes[x], str(node.name)
        signed = codes.grid.signed
        steep = new.dequantize(codes.value, codes.grid.rescaled(gate.slope), f"{name}_gate_input")
        opened = new.add("Sigmoid", [steep], name=f"{name}_gate_Sigmoid")
        grid = sigmoid_grid(signed=signed)
        gated = new.quantize(opened, grid, f"{name}_gate", (grid.qmin, grid.qmax))
        share = new.dequantize(gated, gate.read_grid(signed=signed), f"{name}_gate_share")
        self._product(node, self._decode(codes, f"{name}_input"), share)


def _pruned(graph: ir.Graph) -> ir.Graph:
    """Drop nodes that nothing reads, last first, and constants that nothing reads."""
    for node in reversed(list(graph)):
        if not any(o.uses() or o.is_graph_output() for o in node.outputs):
            graph.remove([node], safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
    return graph
