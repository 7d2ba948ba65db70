"""How the emitter writes quantization: Q, DQ and their parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.graph.builder import GraphBuilder
from converter.quantization.parameters import QuantParams

__all__ = ["QuantizedGraph"]


class QuantizedGraph(GraphBuilder):
    """A graph with Q and DQ among its nodes."""

    def quantize(self, value: ir.Value, grid: QuantParams, name: str, limits: tuple[int, int]) -> ir.Value:
        """Append a Q, and an integer Clip where the codes shall not use their whole container."""
        dtype = ir.DataType.from_numpy(grid.dtype)
        inputs = [value, *self._parameters(grid, name)]
        codes = self.add("QuantizeLinear", inputs, _axis(grid), name=f"{name}_QuantizeLinear", dtype=dtype)
        return self.clip(codes, grid, name, limits)

    def clip(self, codes: ir.Value, grid: QuantParams, name: str, limits: tuple[int, int]) -> ir.Value:
        """Append an integer Clip, unless the limits are those of the container."""
        dtype, container = ir.DataType.from_numpy(grid.dtype), np.iinfo(grid.dtype)
        if limits[0] <= container.min and limits[1] >= container.max:
            return codes
        ends = [self.initializer(f"{name}_{end}", np.asarray(q, grid.dtype)) for end, q in zip(("lowest", "highest"), limits, strict=True)]
        return self.add("Clip", [codes, *ends], name=f"{name}_Clip", dtype=dtype)

    def reshape(self, codes: ir.Value, shape: Sequence[int], name: str) -> ir.Value:
        """Append a Reshape of codes."""
        return self.add("Reshape", [codes, self.initializer(f"{name}_shape", np.array(shape, np.int64))], name=name, dtype=_type(codes))

    def transpose(self, codes: ir.Value, perm: Sequence[int], name: str) -> ir.Value:
        """Append a Transpose of codes."""
        return self.add("Transpose", [codes], {"perm": list(perm)}, name=name, dtype=_type(codes))

    def pad(self, codes: ir.Value, widths: ir.Value, grid: QuantParams, name: str, attributes: Mapping[str, Any]) -> ir.Value:
        """Append a Pad of codes, whose border is the code of zero where it is constant."""
        copies = attributes.get("mode", "constant") != "constant"
        border = [] if copies else [self.initializer(f"{name}_zero", np.asarray(grid.zero_point[0], grid.dtype))]
        return self.add("Pad", [codes, widths, *border], attributes, name=name, dtype=ir.DataType.from_numpy(grid.dtype))

    def dequantize(self, codes: ir.Value, grid: QuantParams, name: str) -> ir.Value:
        """Append a DQ."""
        return self.add("DequantizeLinear", [codes, *self._parameters(grid, name)], _axis(grid), name=f"{name}_DequantizeLinear")

    def numbers(self, codes: npt.NDArray[np.int8 | np.uint8], grid: QuantParams, name: str) -> ir.Value:
        """Append codes without zero points and what makes numbers of them, which the runtime does once, when it loads the file.

        A DQ is no such thing: no version of the runtime folds it, and it would be computed at every inference.
        """
        scale, _ = grid.per_channel(codes.ndim)
        whole = self.add("Cast", [self.initializer(f"{name}_quantized", codes)], {"to": ir.DataType.FLOAT}, name=f"{name}_Cast")
        shape = ir.Shape(codes.shape)
        return self.add("Mul", [whole, self.initializer(f"{name}_scale", scale)], name=f"{name}_Mul", shape=shape)

    def bias(self, codes: npt.NDArray[np.int32], scale: npt.NDArray[np.float32], name: str) -> ir.Value:
        """Append the DQ of a bias, with one scale per channel or a single one."""
        scale = scale if scale.shape == codes.shape else scale.reshape(())
        inputs = [
            self.initializer(f"{name}_quantized", codes),
            self.initializer(f"{name}_scale", scale),
            self.initializer(f"{name}_zero_point", np.zeros(scale.shape, np.int32)),
        ]
        return self.add("DequantizeLinear", inputs, {"axis": 0} if scale.ndim else {}, name=f"{name}_DequantizeLinear")

    def _parameters(self, grid: QuantParams, name: str) -> list[ir.Value]:
        scale, zero_point = np.asarray(grid.scale, np.float32), np.asarray(grid.zero_point, grid.dtype)
        if grid.axis is None:
            scale, zero_point = scale.reshape(()), zero_point.reshape(())
        return [self.initializer(f"{name}_scale", scale), self.initializer(f"{name}_zero_point", zero_point)]


def _type(codes: ir.Value) -> ir.DataType:
    assert codes.dtype is not None
    return codes.dtype


def _axis(grid: QuantParams) -> dict[str, int]:
    return {} if grid.axis is None else {"axis": grid.axis}
