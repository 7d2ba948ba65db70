"""Emit: write a planned model as QuantizeLinear and DequantizeLinear nodes and integer constants.

The graph is built anew, node by node. One Q per tensor, one DQ per consumer. A grid narrower than its container, and
a clamp that was absorbed, become an integer ``Clip`` on the codes. Weights are stored as int8, biases as int32 with
scale float32(s_x) * float32(s_w). Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.canonicalise.standard import CANONICAL_OPSET
from converter.graph import constant, scalar
from converter.grids import Grid, quantize
from converter.integer_bias import integer_bias
from converter.integer_forms import HARD_SIGMOID_OFFSET, clamp_codes, gate_grid, offset_grid
from converter.plan import OpPlan, Plan, TensorPlan

__all__ = ["OUTPUT_IR_VERSION", "emit"]

OUTPUT_IR_VERSION = 9
"""The one that belongs to opset 20; ONNX Runtime 1.19 and newer read it."""


def emit(model: ir.Model, plan: Plan, metadata: Mapping[str, str]) -> ir.Model:
    """Build the quantized model; the canonical one is left as it is.

    Args:
        model: canonical float model.
        plan: settled for this model.
        metadata: ``metadata_props`` of the result, in order.
    """
    builder = _Builder(model.graph, plan)
    graph = builder.build()
    result = ir.Model(graph, ir_version=OUTPUT_IR_VERSION, producer_name="bridgequant")
    result.metadata_props.update(metadata)
    return result


@dataclass(frozen=True)
class _Codes:
    """A tensor as integers, and how to read them."""

    value: ir.Value
    grid: Grid


class _Builder:
    """Appends nodes to a new graph, in the order of the old one."""

    def __init__(self, old: ir.Graph, plan: Plan) -> None:
        self.old = old
        self.plan = plan
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []
        self.real: dict[ir.Value, ir.Value] = {}
        self.codes: dict[ir.Value, _Codes] = {}
        # every name of the old graph is taken from the start: a new name must never shadow a later old one
        self.taken = {str(v.name) for v in [*old.inputs, *old.initializers.values(), *(o for n in old for o in n.outputs)]}
        self.taken |= {str(n.name) for n in old}

    def build(self) -> ir.Graph:
        inputs = [self._input(v) for v in self.old.inputs]
        for value in self.old.inputs:
            self._encode(value, None, None)
        for node in self.old:
            op = self.plan.ops.get(str(node.name))
            if op is not None and op.runs == "integer":
                self._integer_node(node, op)
            else:
                self._float_node(node)
        outputs = [self._output(v) for v in self.old.outputs]
        graph = ir.Graph(
            inputs, outputs, nodes=self.nodes, initializers=self.initializers, opset_imports={"": CANONICAL_OPSET}, name=self.old.name
        )
        return _pruned(graph)

    # Names and nodes

    def _name(self, wish: str) -> str:
        name, number = wish, 1
        while name in self.taken:
            number += 1
            name = f"{wish}_{number}"
        self.taken.add(name)
        return name

    def _add(
        self, op_type: str, inputs: Sequence[ir.Value | None], name: str, dtype: ir.DataType, attributes: Mapping[str, Any] | None = None
    ) -> ir.Value:
        node = ir.node(op_type, list(inputs), dict(attributes or {}), name=self._name(f"{name}_{op_type}"))
        self.nodes.append(node)
        (output,) = node.outputs
        output.name, output.type = self._name(f"{name}_{op_type}_output"), ir.TensorType(dtype)
        return output

    def _initializer(self, wish: str, array: npt.NDArray[Any]) -> ir.Value:
        name = self._name(wish)
        tensor = ir.tensor(np.array(array, order="C"), name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.initializers.append(value)
        return value

    def _input(self, value: ir.Value) -> ir.Value:
        self.real[value] = ir.Value(name=value.name, type=value.type, shape=value.shape)
        return self.real[value]

    # Reading

    def _float(self, value: ir.Value | None, reader: str) -> ir.Value | None:
        """What a float operator reads."""
        if value is None:
            return None
        if value in self.real:
            return self.real[value]
        if value in self.codes:
            return self._decode(self.codes[value], f"{value.name}_{reader}")
        if value.const_value is None:
            raise AssertionError(f"tensor '{value.name}' is read before it is made")
        copy = ir.Value(name=value.name, type=value.type, shape=value.shape, const_value=value.const_value)
        self.initializers.append(copy)
        self.real[value] = copy
        return copy

    def _decode(self, codes: _Codes, name: str) -> ir.Value:
        return self._dequantize(codes.value, codes.grid, name)

    def _dequantize(self, codes: ir.Value, grid: Grid, name: str) -> ir.Value:
        attributes = {} if grid.axis is None else {"axis": grid.axis}
        return self._add("DequantizeLinear", [codes, *self._parameters(grid, name)], name, ir.DataType.FLOAT, attributes)

    def _parameters(self, grid: Grid, name: str) -> list[ir.Value]:
        scale, zero_point = np.asarray(grid.scale, np.float32), np.asarray(grid.zero_point, grid.dtype)
        if grid.axis is None:
            scale, zero_point = scale.reshape(()), zero_point.reshape(())
        return [self._initializer(f"{name}_scale", scale), self._initializer(f"{name}_zero_point", zero_point)]

    # Writing

    def _quantize(self, value: ir.Value, grid: Grid, name: str, limits: tuple[int, int]) -> ir.Value:
        dtype = ir.DataType.from_numpy(grid.dtype)
        attributes = {} if grid.axis is None else {"axis": grid.axis}
        codes = self._add("QuantizeLinear", [value, *self._parameters(grid, name)], name, dtype, attributes)
        container = np.iinfo(grid.dtype)
        if limits[0] <= container.min and limits[1] >= container.max:
            return codes
        ends = [self._initializer(f"{name}_{end}", np.asarray(q, grid.dtype)) for end, q in zip(("lowest", "highest"), limits, strict=True)]
        return self._add("Clip", [codes, *ends], name, dtype)

    def _fate(self, value: ir.Value) -> TensorPlan | None:
        return self.plan.tensors.get(str(value.name))

    def _encode(self, value: ir.Value, node: ir.Node | None, op: OpPlan | None) -> None:
        """Give a finished tensor its codes, if the plan wants any."""
        fate = self._fate(value)
        if fate is None or fate.grid is None or value in self.codes:
            return
        limits = (fate.grid.qmin, fate.grid.qmax)
        self.codes[value] = _Codes(self._quantize(self.real[value], fate.grid, str(value.name), limits), fate.grid)
        if op is not None and op.writes == "codes":
            # the float number behind the codes is for nobody: it would keep the runtime from fusing
            del self.real[value]

    def _copy_node(self, node: ir.Node, inputs: Sequence[ir.Value | None]) -> None:
        copy = ir.Node(node.domain, node.op_type, list(inputs), list(node.attributes.values()), num_outputs=len(node.outputs), name=node.name)
        self.nodes.append(copy)
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            self._adopt(old, new)

    def _adopt(self, old: ir.Value, new: ir.Value) -> None:
        """Let ``new`` stand for ``old``, under its name unless a DQ will make the model output of that name."""
        node = old.producer()
        op = self.plan.ops.get(str(node.name)) if node is not None else None
        behind_codes = op is not None and op.writes == "codes" and old.is_graph_output()
        new.name = self._name(f"{old.name}_before_codes") if behind_codes else old.name
        new.type, new.shape = old.type, old.shape
        self.real[old] = new

    def _output(self, value: ir.Value) -> ir.Value:
        if value in self.real:
            result = self.real[value]
        else:
            result = self._decode(self.codes[value], f"{value.name}_result")
            result.name = value.name
        result.shape = value.shape
        return result

    # Operators

    def _float_node(self, node: ir.Node) -> None:
        self._copy_node(node, [self._float(v, str(node.name)) for v in node.inputs])
        for output in node.outputs:
            self._encode(output, node, None)

    def _integer_node(self, node: ir.Node, op: OpPlan) -> None:
        fate = self._fate(node.outputs[0])
        if fate is not None and fate.fate == "derived" and fate.grid is not None:
            (x,) = [v for v in node.inputs if v is not None and constant(v) is None]
            self.codes[node.outputs[0]] = _Codes(self.codes[x].value, fate.grid)
            return
        if op.op_type in ("Relu", "Clip"):
            self._absorbed(node)
            return
        if op.op_type == "HardSwish":
            self._hardswish(node)
        else:
            self._copy_node(node, self._integer_inputs(node, op))
        for output in node.outputs:
            self._encode(output, node, op)

    def _integer_inputs(self, node: ir.Node, op: OpPlan) -> list[ir.Value | None]:
        grids = dict(op.constants)
        bias: ir.Value | None = None
        if op.op_type in ("Conv", "Gemm", "MatMul") and 1 in grids:
            assert node.inputs[0] is not None
            bias, grids[1] = self._bias(node, self.codes[node.inputs[0]].grid, grids[1])
        inputs: list[ir.Value | None] = []
        for index, value in enumerate(node.inputs):
            if index == 2 and bias is not None:
                inputs.append(bias)
            elif index in grids:
                inputs.append(self._constant(node, index, grids[index]))
            elif value is not None and value in self.codes:
                inputs.append(self._decode(self.codes[value], f"{value.name}_{node.name}"))
            else:
                inputs.append(self._float(value, str(node.name)))
        return inputs

    def _constant(self, node: ir.Node, index: int, grid: Grid) -> ir.Value:
        value = node.inputs[index]
        array = constant(value)
        assert value is not None and array is not None
        name = f"{node.name}_{value.name}"
        return self._dequantize(self._initializer(f"{name}_quantized", quantize(array, grid)), grid, name)

    def _bias(self, node: ir.Node, x_grid: Grid, weights: Grid) -> tuple[ir.Value | None, Grid]:
        value = node.inputs[2] if len(node.inputs) > 2 else None
        array = constant(value)
        if value is None or array is None:
            return None, weights
        weights, codes, scale = integer_bias(array, x_grid.scale[0], weights)
        name = f"{node.name}_{value.name}"
        inputs = [
            self._initializer(f"{name}_quantized", codes),
            self._initializer(f"{name}_scale", scale),
            self._initializer(f"{name}_zero_point", np.zeros(scale.shape, np.int32)),
        ]
        return self._add("DequantizeLinear", inputs, name, ir.DataType.FLOAT, {"axis": 0}), weights

    def _absorbed(self, node: ir.Node) -> None:
        """The clamp happens on the codes: Q(clamp(x)) = clip(Q(x)), since Q is monotone."""
        x, output = node.inputs[0], node.outputs[0]
        fate = self._fate(output)
        assert x is not None and fate is not None and fate.grid is not None
        source = self._float(x, str(node.name))
        assert source is not None
        limits = clamp_codes(node.op_type, [scalar(v) for v in node.inputs[1:]], fate.grid)
        self.codes[output] = _Codes(self._quantize(source, fate.grid, str(output.name), limits), fate.grid)

    def _hardswish(self, node: ir.Node) -> None:
        """x * relu6(x + 3) / 6: the division by six only renames the scale of relu6's codes."""
        x = node.inputs[0]
        assert x is not None
        codes, name = self.codes[x], str(node.name)
        shift, gate = offset_grid(codes.grid), gate_grid(codes.grid)
        three = self._initializer(f"{name}_offset_quantized", quantize(np.asarray(HARD_SIGMOID_OFFSET, np.float32), shift))
        left = self._decode(codes, f"{name}_gate_input")
        total = self._add("Add", [left, self._dequantize(three, shift, f"{name}_offset")], f"{name}_gate", ir.DataType.FLOAT)
        gated = self._quantize(total, gate, f"{name}_gate", (gate.qmin, gate.qmax))
        share = self._dequantize(gated, gate.rescaled(1.0 / 6.0), f"{name}_gate_share")
        product = ir.Node("", "Mul", [self._decode(codes, f"{name}_input"), share], name=self._name(f"{name}_Mul"))
        self.nodes.append(product)
        self._adopt(node.outputs[0], product.outputs[0])


def _pruned(graph: ir.Graph) -> ir.Graph:
    """Drop nodes that nothing reads, last first, and constants that nothing reads."""
    for node in reversed(list(graph)):
        if not any(o.uses() or o.is_graph_output() for o in node.outputs):
            graph.remove([node], safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
    return graph

