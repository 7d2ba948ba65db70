"""Emit: write a planned model as QuantizeLinear and DequantizeLinear nodes and integer constants.

The graph is built anew, node by node. One Q per tensor, one DQ per consumer. A grid narrower than its container, and
a clamp that was absorbed, become an integer ``Clip`` on the codes. Weights are stored as int8, biases as int32 with
scale float32(s_x) * float32(s_w); a constant that two operators read is stored once for each. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from converter.emit.fusion_barriers import add_barriers
from converter.emit.graph_builder import QuantizedGraph
from converter.forms.registry import FORMS
from converter.graph.builder import remove_dead
from converter.graph.operator_sets import CANONICAL_OPSET
from converter.graph.queries import attributes, constant
from converter.plan.constants import weight_codes
from converter.plan.records import OpPlan, Plan, TensorPlan
from converter.quantization.parameters import QuantParams, quantize
from converter.transforms.equalization.apply import channel_grid, inserted_factors

__all__ = ["OUTPUT_IR_VERSION", "Codes", "Writer", "emit"]

OUTPUT_IR_VERSION = 9
"""The one that belongs to opset 20; :mod:`converter.emit.opset` lowers both."""


def emit(model: ir.Model, plan: Plan, metadata: Mapping[str, str]) -> ir.Model:
    """Build the quantized model; the canonical one is left as it is.

    Args:
        plan: assigned for this model.
        metadata: ``metadata_props`` of the result.
    """
    graph = Writer(model.graph, plan).build()
    result = ir.Model(graph, ir_version=OUTPUT_IR_VERSION, producer_name="bridgequant")
    result.metadata_props.update(metadata)
    remove_dead(result)
    return result


@dataclass(frozen=True)
class Codes:
    """A tensor as integers, and how to read them."""

    value: ir.Value
    params: QuantParams


class Writer:
    """Appends nodes to a new graph, in the order of the old one.

    ``real`` holds what stands for a value of the old graph as float numbers, ``codes`` what stands for it as integers, and
    ``copies`` of which other value it is a copy to those who read float numbers. ``moves`` holds what brings codes of a value in order
    whose float numbers are in another, as no one but a clamp behind them reads them.
    """

    def __init__(self, old: ir.Graph, plan: Plan) -> None:
        self.old = old
        self.plan = plan
        self.real: dict[ir.Value, ir.Value] = {}
        self.codes: dict[ir.Value, Codes] = {}
        self.copies: dict[ir.Value, ir.Value] = {}
        self.moves: dict[ir.Value, Callable[[ir.Value], ir.Value]] = {}
        # every name of the old graph is taken from the start: a new name must never shadow a later old one
        values = [*old.inputs, *old.initializers.values(), *(o for n in old for o in n.outputs)]
        graph = ir.Graph([], [], nodes=[], opset_imports={"": CANONICAL_OPSET}, name=old.name)
        self.new = QuantizedGraph(graph, [*(str(v.name) for v in values), *(str(n.name) for n in old)])

    def build(self) -> ir.Graph:
        """Write the whole graph."""
        graph = self.new.graph
        graph.inputs.extend([self._input(v) for v in self.old.inputs])
        for value in self.old.inputs:
            self._encode(value, None)
        for node in self.old:
            op = self._op(node)
            if op is not None and op.runs == "integer":
                FORMS[op.form].emit(self, node, op)
            else:
                self._float_node(node)
        graph.outputs.extend([self._output(v) for v in self.old.outputs])
        add_barriers(self.new, [name for name, op in self.plan.ops.items() if op.runs != "integer"])
        return graph

    def _op(self, node: ir.Node | None) -> OpPlan | None:
        return self.plan.ops.get(str(node.name)) if node is not None else None

    def _tensor_plan(self, value: ir.Value) -> TensorPlan | None:
        return self.plan.tensors.get(str(value.name))

    # Reading

    def _input(self, value: ir.Value) -> ir.Value:
        self.real[value] = ir.Value(name=value.name, type=value.type, shape=value.shape)
        return self.real[value]

    def float_value(self, value: ir.Value | None, reader: str) -> ir.Value | None:
        """What a float operator reads."""
        if value is None:
            return None
        value = self.copies.get(value, value)
        if value in self.real:
            return self.real[value]
        if value in self.codes:
            return self.decode(self.codes[value], f"{value.name}_{reader}")
        if value.const_value is None:
            raise AssertionError(f"tensor '{value.name}' is read before it is made")
        grid, array = self.plan.stored.get(str(value.name)), constant(value)
        if grid is not None and array is not None:
            self.real[value] = self.new.numbers(quantize(array, grid), grid, str(value.name))
            return self.real[value]
        copy = ir.Value(name=value.name, type=value.type, shape=value.shape, const_value=value.const_value)
        self.new.graph.register_initializer(copy)
        self.real[value] = copy
        return copy

    def decode(self, codes: Codes, name: str) -> ir.Value:
        """Append a DQ."""
        return self.new.dequantize(codes.value, codes.params, name)

    def _output(self, value: ir.Value) -> ir.Value:
        if value in self.codes and value not in self.real and self.plan.io != "float":
            return self._codes_output(value)
        if value in self.codes and value not in self.real:
            result = self.decode(self.codes[value], f"{value.name}_result")
            result.name = value.name
        else:
            found = self.float_value(value, "result")
            assert found is not None
            result = found
        result.shape = value.shape
        return result

    def _codes_output(self, value: ir.Value) -> ir.Value:
        """The codes themselves, under the output's name; those that have another name already are copied."""
        codes = self.codes[value]
        result = codes.value
        if result.is_graph_input() or any(result is self.codes[v].value for v in self.old.outputs if v is not value and v in self.codes):
            result = self.new.add("Identity", [result], name=f"{value.name}_copy", dtype=ir.DataType.from_numpy(codes.params.dtype))
        result.name = value.name
        result.shape = value.shape
        return result

    # Writing

    def _encode(self, value: ir.Value, op: OpPlan | None) -> None:
        """Give a finished tensor its codes, if the plan wants any."""
        tensor_plan = self._tensor_plan(value)
        if tensor_plan is None or tensor_plan.params is None or value in self.codes:
            return
        if inserted_factors(value.producer()) is not None:
            self._encode_per_channel(value, tensor_plan.params)
            return
        grid, container = tensor_plan.params, np.iinfo(tensor_plan.params.dtype)
        moved = tensor_plan.kind == "shared" and op is not None
        # codes that were only moved keep inside the limits of the grid they share
        limits = (int(container.min), int(container.max)) if moved else (grid.qmin, grid.qmax)
        source = self.float_value(value, f"{value.name}_source")
        assert source is not None
        self.codes[value] = Codes(self.new.quantize(source, grid, str(value.name), limits), grid)
        if op is not None and op.writes == "codes":
            # the float number behind the codes is for nobody: it would keep the runtime from fusing
            self.real.pop(value, None)
            self.copies.pop(value, None)

    def _encode_per_channel(self, value: ir.Value, grid: QuantParams) -> None:
        """Let a Q with one scale per channel do the multiplication in front of it; who reads the codes sees one scale."""
        node = value.producer()
        assert node is not None
        source = self.float_value(node.inputs[0], f"{value.name}_source")
        assert source is not None
        codes = self.new.quantize(source, channel_grid(node, grid), str(value.name), (grid.qmin, grid.qmax))
        self.codes[value] = Codes(codes, grid)

    def copy_node(self, node: ir.Node, inputs: Sequence[ir.Value | None]) -> None:
        """Append an operator as it is, with these inputs, and let its outputs stand for the old ones."""
        copy = ir.Node(
            node.domain, node.op_type, list(inputs), list(node.attributes.values()), num_outputs=len(node.outputs), name=node.name
        )
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            self._adopt(old, new)
        self.new.graph.append(copy)

    def stand_in(self, node: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any]) -> ir.Value:
        """Append an operator under the name of a node, as which it is known in profiles; returns its output."""
        other = ir.node(op_type, list(inputs), dict(attributes), name=node.name)
        (output,) = other.outputs
        output.name, output.type = self.new.unique(f"{node.name}_{op_type}_output"), node.outputs[0].type
        self.new.graph.append(other)
        return output

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
            self.requantize(node, None)
            return
        op = self._op(node)
        fake_quantized = op is not None and op.runs == "fake-quantized"
        inputs = (
            self.integer_inputs(node, op)
            if op is not None and fake_quantized
            else [self.float_value(v, str(node.name)) for v in node.inputs]
        )
        self.copy_node(node, inputs)
        for output in node.outputs:
            self._encode(output, op if fake_quantized else None)

    def encode_outputs(self, node: ir.Node, op: OpPlan | None) -> None:
        """Give what a node makes its codes, where the plan wants any."""
        for output in node.outputs:
            self._encode(output, op)

    def params_of(self, value: ir.Value) -> QuantParams:
        """The grid of a tensor that has codes."""
        tensor_plan = self._tensor_plan(value)
        assert tensor_plan is not None and tensor_plan.params is not None
        return tensor_plan.params

    def quantize(
        self, output: ir.Value, source: ir.Value, limits: tuple[int, int], move: Callable[[ir.Value], ir.Value] | None = None
    ) -> None:
        """Let the codes of a float number, brought in order and clipped, stand for an output.

        The Clip comes last, so that a Transpose in ``move`` stands beside the one that the runtime puts in, and both cancel.
        """
        grid, name = self.params_of(output), str(output.name)
        container = np.iinfo(grid.dtype)
        codes = self.new.quantize(source, grid, name, limits if move is None else (int(container.min), int(container.max)))
        self.codes[output] = Codes(codes if move is None else self.new.clip(move(codes), grid, name, limits), grid)

    def clip_codes(self, output: ir.Value, x: ir.Value, limits: tuple[int, int]) -> None:
        """Let the codes of another tensor, clipped, stand for an output."""
        grid = self.params_of(output)
        self.codes[output] = Codes(self.new.clip(self.codes[x].value, grid, str(output.name), limits), grid)

    def pad_codes(self, node: ir.Node, x: ir.Value, pads: ir.Value) -> None:
        """Let the codes of another tensor, with a border of their own or of zeros, stand for a node's output."""
        grid, widths = self.params_of(node.outputs[0]), self.float_value(pads, str(node.name))
        assert widths is not None
        self.codes[node.outputs[0]] = Codes(self.new.pad(self.codes[x].value, widths, grid, str(node.name), attributes(node)), grid)

    def give_codes(self, output: ir.Value, codes: ir.Value) -> None:
        """Let codes that are there already stand for an output."""
        self.codes[output] = Codes(codes, self.params_of(output))

    def share_codes(self, output: ir.Value, x: ir.Value) -> None:
        """Let the codes of another tensor stand for an output, read with its own grid."""
        self.codes[output] = Codes(self.codes[x].value, self.params_of(output))

    def multiply(self, node: ir.Node, codes: Codes, share: ir.Value) -> None:
        """Let the product of a node's input and another number stand for its output."""
        name = str(node.name)
        product = ir.Node("", "Mul", [self.decode(codes, f"{name}_input"), share], name=self.new.unique(f"{name}_Mul"))
        self._adopt(node.outputs[0], product.outputs[0])
        self.new.graph.append(product)

    def _needs_no_node(self, node: ir.Node) -> bool:
        """True for a float copy. One under 8-bit codes stays: without the Clip behind it, its DQ and Q would meet another pair."""
        if node.op_type != "Identity" or self._op(node) is None or node.outputs[0].is_graph_output():
            return False
        tensor_plan = self._tensor_plan(node.outputs[0])
        return tensor_plan is None or tensor_plan.params is None or tensor_plan.params.reduced_range

    def requantize(self, node: ir.Node, op: OpPlan | None) -> None:
        """A copy is what its original is, on a grid of its own if it has one; without ``op`` to those who read float numbers."""
        x, output = node.inputs[0], node.outputs[0]
        assert x is not None
        if op is not None:
            self.real[output] = self.decode(self.codes[x], f"{x.name}_{node.name}")
        else:
            self.copies[output] = self.copies.get(x, x)
        self._encode(output, op)

    def integer_inputs(
        self, node: ir.Node, op: OpPlan, constants: Mapping[int, QuantParams] | None = None, given: Mapping[int, ir.Value] | None = None
    ) -> list[ir.Value | None]:
        """What an operator between DQs reads.

        Args:
            constants: grids of constant operands by input index, if others than the plan's.
            given: inputs that are there already, by index.
        """
        grids, ready = op.constants if constants is None else constants, given or {}
        inputs: list[ir.Value | None] = []
        for index, value in enumerate(node.inputs):
            if index in ready:
                inputs.append(ready[index])
            elif index in grids:
                inputs.append(self._constant(node, op, index, grids[index]))
            elif value is not None and value in self.codes:
                inputs.append(self.decode(self.codes[value], f"{value.name}_{node.name}"))
            else:
                inputs.append(self.float_value(value, str(node.name)))
        return inputs

    def _constant(self, node: ir.Node, op: OpPlan, index: int, grid: QuantParams) -> ir.Value:
        value = node.inputs[index]
        array = constant(value)
        assert value is not None and array is not None
        name = f"{node.name}_{value.name}"
        return self.new.dequantize(self.new.initializer(f"{name}_quantized", weight_codes(op, index, array, grid)), grid, name)
