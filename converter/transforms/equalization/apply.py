"""Apply equalizations: rescale and shift the constants of a model so that its tensors have other ranges and its outputs do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.graph.builder import GraphBuilder
from converter.graph.marks import INSERTED
from converter.graph.queries import constant
from converter.graph.weight_files import offload_constants
from converter.quantization.parameters import QuantParams
from converter.transforms.equalization.site import BiasAbsorption, Equalization, EqualizationSite, Scaling, Shifting, check_equalization

__all__ = ["Equalization", "apply_equalizations", "channel_grid", "inserted_factors", "scaled_name"]

Array = npt.NDArray[np.float64]


def scaled_name(tensor: str) -> str:
    """Name of the tensor behind the multiplication that is inserted behind another."""
    return f"{tensor}_scaled"


def inserted_factors(node: ir.Node | None) -> npt.NDArray[np.float32] | None:
    """The factors of a multiplication that an equalization inserted, float32 [channels]; None for any other node."""
    if node is None or INSERTED not in node.metadata_props:
        return None
    factors = constant(node.inputs[1])
    assert factors is not None
    return factors.reshape(-1).astype(np.float32)


def channel_grid(node: ir.Node, grid: QuantParams) -> QuantParams:
    """The grid per channel, on axis 1, of what an inserted multiplication reads; ``grid`` is that of what it makes.

    Raises:
        ValueError: a scale is too small or too large for a grid.
    """
    factors = inserted_factors(node)
    assert factors is not None
    scales = np.float64(grid.scale[0]) / factors.astype(np.float64)
    return replace(grid, scale=tuple(float(np.float32(s)) for s in scales), zero_point=grid.zero_point * len(scales), axis=1)


def apply_equalizations(model: ir.Model, sites: Mapping[str, EqualizationSite], equalizations: Mapping[str, Equalization]) -> ir.Model:
    """A copy of a model with equalizations applied; it computes the same.

    The names of nodes and tensors stay. An inserted site adds the node ``<tensor>_scaled_Mul``, which makes the tensor
    ``<tensor>_scaled``. Constants are computed in float64 and rounded once.

    Args:
        model: canonical float model; left as it is.
        sites: of this model.
        equalizations: by key tensor.

    Raises:
        ValueError: an equalization has no site or does not fit it, or a constant would leave the range of float32.
    """
    for name, equalization in equalizations.items():
        if name not in sites:
            raise ValueError(f"tensor '{name}' has no site to equalize")
        check_equalization(equalization, sites[name])
    result: ir.Model = ir.from_proto(ir.to_proto(model))
    constants = _Constants({str(node.name): node for node in result.graph})
    # shifts are in units of the tensors as they were, so whatever rescales a weight besides comes last
    for name in sorted(equalizations, key=lambda n: sites[n].inserted):
        site, scale = sites[name], np.asarray(equalizations[name].scale, np.float64)
        if equalizations[name].shift:
            shift = np.asarray(equalizations[name].shift, np.float64)
            for absorption in site.absorptions:
                constants.take_up(absorption, shift)
            for shifting in site.shiftings:
                constants.subtract(shifting, shift)
        for scaling in site.scalings:
            constants.rescale(scaling, scale)
    builder = GraphBuilder(result.graph)
    constants.write(builder, result)
    for name, equalization in equalizations.items():
        if sites[name].inserted:
            _insert(builder, sites[name], equalization)
    return result


class _Constants:
    """Changes of constant operands, by node name and input index; they are carried out in float64, one constant after the other."""

    def __init__(self, nodes: Mapping[str, ir.Node]) -> None:
        self.nodes = nodes
        self.changes: dict[tuple[str, int], list[Callable[[Array | None], Array]]] = {}

    def get(self, node: str, index: int) -> Array | None:
        inputs = self.nodes[node].inputs
        stored = constant(inputs[index]) if len(inputs) > index else None
        array = None if stored is None else stored.astype(np.float64)
        for change in self.changes.get((node, index), []):
            array = change(array)
        return array

    def change(self, node: str, index: int, change: Callable[[Array | None], Array]) -> None:
        self.changes.setdefault((node, index), []).append(change)

    def add(self, node: str, index: int, numbers: Array) -> None:
        self.change(node, index, lambda old: numbers if old is None else old + numbers)

    def rescale(self, scaling: Scaling, scale: Array) -> None:
        inputs = self.nodes[scaling.node].inputs
        given = len(inputs) > scaling.index and constant(inputs[scaling.index]) is not None
        if not given and (scaling.node, scaling.index) not in self.changes:
            return  # a layer without a bias
        # the powers are 1 and -1; numbers that belong to no channel of the site keep their value
        factors = np.where(scaling.channels >= 0, scale[scaling.channels] ** scaling.powers.astype(np.float64), 1.0)
        self.change(scaling.node, scaling.index, lambda old: np.asarray(old) * factors)

    def subtract(self, shifting: Shifting, shift: Array) -> None:
        self.add(shifting.node, shifting.index, -np.where(shifting.channels >= 0, shift[shifting.channels], 0.0))

    def take_up(self, absorption: BiasAbsorption, shift: Array) -> None:
        weight = self.get(absorption.node, 1)
        assert weight is not None
        products = weight * np.where(absorption.channels >= 0, shift[absorption.channels], 0.0)
        self.add(
            absorption.bias_node, absorption.bias_index, products.sum(axis=tuple(i for i in range(weight.ndim) if i != absorption.axis))
        )

    def write(self, builder: GraphBuilder, model: ir.Model) -> None:
        for name, index in self.changes:
            array = self.get(name, index)
            assert array is not None
            with np.errstate(over="ignore"):
                numbers = array.astype(np.float32)
            if not np.isfinite(numbers).all():
                raise ValueError(f"constant input {index} of operator '{name}' would leave the range of numbers")
            del array
            _replace_constant(builder, self.nodes[name], index, numbers)
            offload_constants(model)  # before the next one


def _replace_constant(builder: GraphBuilder, node: ir.Node, index: int, numbers: npt.NDArray[Any]) -> None:
    """Give a node a constant of its own; one that no other node reads keeps its name."""
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    old = node.inputs[index]
    if old is not None and len(old.uses()) == 1 and old.name in builder.graph.initializers:
        old.const_value = ir.tensor(np.array(numbers, order="C"), name=old.name)
        return
    wish = f"{node.name}_{'bias' if old is None else old.name}"
    node.replace_input_with(index, builder.initializer(wish, numbers))


def _insert(builder: GraphBuilder, site: EqualizationSite, equalization: Equalization) -> None:
    graph = builder.graph
    nodes = {str(node.name): node for node in graph}
    readers = [(nodes[name], index) for name, index in site.insertion.readers]
    value = readers[0][0].inputs[readers[0][1]]
    assert value is not None
    factors = (1.0 / np.asarray(equalization.scale, np.float64)).astype(np.float32)
    name = scaled_name(site.tensor)
    operand = builder.initializer(f"{name}_factors", factors.reshape(1, -1, 1, 1))
    node = ir.node("Mul", [value, operand], name=f"{name}_Mul")
    node.metadata_props[INSERTED] = "true"
    (output,) = node.outputs
    output.name, output.type, output.shape = name, value.type, value.shape
    graph.insert_before(min((n for n, _ in readers), key=list(graph).index), [node])
    for reader, index in readers:
        reader.replace_input_with(index, output)
