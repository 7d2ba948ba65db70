"""The sheet the emitter writes on: nodes and constants under names of their own, Q and DQ among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.quantization.parameters import Grid

__all__ = ["QuantizedGraph"]


class QuantizedGraph:
    """Nodes and initializers of a graph that is being written.

    Args:
        taken: names that new nodes, values and initializers must not have.
    """

    def __init__(self, taken: Iterable[str]) -> None:
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []
        self._taken = set(taken)

    def unique(self, wish: str) -> str:
        """``wish``, or ``wish_2``, ``wish_3``...: a name that is free, and taken from now on."""
        name, number = wish, 1
        while name in self._taken:
            number += 1
            name = f"{wish}_{number}"
        self._taken.add(name)
        return name

    def add(
        self, op_type: str, inputs: Sequence[ir.Value | None], name: str, dtype: ir.DataType, attributes: Mapping[str, Any] | None = None
    ) -> ir.Value:
        """Append a node with one output."""
        node = ir.node(op_type, list(inputs), dict(attributes or {}), name=self.unique(f"{name}_{op_type}"))
        self.nodes.append(node)
        (output,) = node.outputs
        output.name, output.type = self.unique(f"{name}_{op_type}_output"), ir.TensorType(dtype)
        return output

    def initializer(self, wish: str, array: npt.NDArray[Any]) -> ir.Value:
        """Add a constant."""
        name = self.unique(wish)
        tensor = ir.tensor(np.array(array, order="C"), name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.initializers.append(value)
        return value

    def quantize(self, value: ir.Value, grid: Grid, name: str, limits: tuple[int, int]) -> ir.Value:
        """Append a Q, and an integer Clip where the codes shall not use their whole container."""
        dtype = ir.DataType.from_numpy(grid.dtype)
        codes = self.add("QuantizeLinear", [value, *self._parameters(grid, name)], name, dtype, _axis(grid))
        return self.clip(codes, grid, name, limits)

    def clip(self, codes: ir.Value, grid: Grid, name: str, limits: tuple[int, int]) -> ir.Value:
        """Append an integer Clip, unless the limits are those of the container."""
        dtype, container = ir.DataType.from_numpy(grid.dtype), np.iinfo(grid.dtype)
        if limits[0] <= container.min and limits[1] >= container.max:
            return codes
        ends = [self.initializer(f"{name}_{end}", np.asarray(q, grid.dtype)) for end, q in zip(("lowest", "highest"), limits, strict=True)]
        return self.add("Clip", [codes, *ends], name, dtype)

    def dequantize(self, codes: ir.Value, grid: Grid, name: str) -> ir.Value:
        """Append a DQ."""
        return self.add("DequantizeLinear", [codes, *self._parameters(grid, name)], name, ir.DataType.FLOAT, _axis(grid))

    def bias(self, codes: npt.NDArray[np.int32], scale: npt.NDArray[np.float32], name: str) -> ir.Value:
        """Append the DQ of a bias, with one scale per channel or a single one."""
        scale = scale if scale.shape == codes.shape else scale.reshape(())
        inputs = [
            self.initializer(f"{name}_quantized", codes),
            self.initializer(f"{name}_scale", scale),
            self.initializer(f"{name}_zero_point", np.zeros(scale.shape, np.int32)),
        ]
        return self.add("DequantizeLinear", inputs, name, ir.DataType.FLOAT, {"axis": 0} if scale.ndim else {})

    def _parameters(self, grid: Grid, name: str) -> list[ir.Value]:
        scale, zero_point = np.asarray(grid.scale, np.float32), np.asarray(grid.zero_point, grid.dtype)
        if grid.axis is None:
            scale, zero_point = scale.reshape(()), zero_point.reshape(())
        return [self.initializer(f"{name}_scale", scale), self.initializer(f"{name}_zero_point", zero_point)]


def _axis(grid: Grid) -> dict[str, int]:
    return {} if grid.axis is None else {"axis": grid.axis}
