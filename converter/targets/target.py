"""What is known about a machine class, as plain records: see :mod:`converter.targets` for those that there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

__all__ = ["FEATURES", "Cost", "Prices", "Target"]

FEATURES: Mapping[str, str] = MappingProxyType(
    {
        "node": "1: what every node costs, however small",
        "element": "elements written",
        "input": "elements read, constants left out",
        "row": "rows written: elements over the length of the last axis",
        "mac": "multiply-accumulates",
        "column": "elements of the matrix to which a convolution unfolds its input; none for 1x1 without stride, nor for depthwise 3x3",
        "strided_column": "the same where the convolution has a stride, so that float numbers are copied one by one",
        "column_row": "rows of the output in that matrix, one for each element of a kernel: what is copied at a time without a stride",
        "run": "codes in a row that an integer convolution reads: a row of the kernel at each place, of a depthwise one an element of it",
        "group": "groups of a convolution that has more than one; what an InstanceNormalization takes mean and variance of",
        "uneven8": "elements written by a convolution of which a group's outputs are no multiple of 8 channels; mac of a depthwise one",
        "uneven16": "the same with 16",
        "window": "elements that a pooling reads: those written times those of its window",
        "matrix": "matrices multiplied: the product of all axes but the last two",
        "operand": "elements of a computed right factor",
        "block": "pieces of memory that a Transpose moves one by one",
        "moved": "elements that a TransposeStep of one axis moves singly",
        "turned": "matrices of single elements that it turns",
        "rim": "elements of those outside of blocks of 4 x 4 floats or 8 x 8 codes",
        "moved_pair": "pieces of several elements and 2, 4 or 8 bytes that it moves",
        "moved_piece": "other pieces of several elements that it moves; they count as pieces too",
        "piece": "those, and pieces of several elements that any other TransposeStep moves",
        "single": "elements that any other TransposeStep moves singly",
    }
)
"""On what costs may depend, all counted at the calibrated shape."""

Prices = Mapping[str, float]
"""What a form of an operator costs: a price for each of the :data:`FEATURES` that count."""


@dataclass(frozen=True)
class Cost:
    """Cost of an operator in float, and in integer; None if there is no integer kernel."""

    float: Prices
    integer: Prices | None = None


@dataclass(frozen=True)
class Target:
    """One machine class.

    Attributes:
        name: as on the command line and in plans.
        description: for the report: the machines, and the types of activations and weights.
        unit: of all costs, such as ``instructions`` or ``picoseconds``.
        architectures: what Python's ``platform.machine`` says on such machines.
        signed_activations: int8 codes if true, uint8 otherwise.
        largest_pair: largest sum of two products that a dense kernel holds on its way to 32 bits; None where it has 32 all along.
        depthwise_weight_bits: widest weights that no depthwise kernel saturates on.
        quantize_element: cost of QuantizeLinear per element; no less than that of DequantizeLinear.
        dequantize_element: cost of DequantizeLinear per element.
        costs: by kind of operator, see :func:`converter.targets.costs.kind_of`.
        session_settings: runtime settings under which another machine runs the kernels of this one, by architecture.
        quantize_node: cost of a QuantizeLinear however few its elements; no less than that of DequantizeLinear.
        dequantize_node: the same of DequantizeLinear.
        call: cost of one inference without any operator.
        other: cost of a float operator without an entry of its own.
        margin: share of the float model's cost that integer operators must save all together; below it, all stays float.
        fit: where the costs come from, and how well they fit.
        onnxruntime: version of the runtime that was measured; empty if none was.
        second: the same machines with costs in another unit, which are told and decide nothing; None if there are none.
    """

    name: str
    description: str
    unit: str
    architectures: tuple[str, ...]
    signed_activations: bool
    largest_pair: int | None
    depthwise_weight_bits: int
    quantize_element: float
    dequantize_element: float
    costs: Mapping[str, Cost]
    session_settings: Mapping[str, Mapping[str, str]]
    quantize_node: float = 0.0
    dequantize_node: float = 0.0
    call: float = 0.0
    other: Prices = field(default_factory=dict)
    margin: float = 0.0
    fit: Mapping[str, Any] = field(default_factory=dict)
    onnxruntime: str = ""
    second: Target | None = None

    @property
    def machines(self) -> str:
        """The description without what it says of types."""
        return self.description.partition(f", {'int8' if self.signed_activations else 'uint8'} activations")[0]

    def dense_weight_bits(self, activation_bits: int) -> int:
        """Widest weights, 8 bits or fewer, that no dense kernel saturates on beside activations of that width.

        Weights are symmetric; activations have the lowest codes of their container where a pair is limited.
        """
        activation = 2**activation_bits - 1
        fits = (b for b in range(8, 1, -1) if self.largest_pair is None or 2 * activation * (2 ** (b - 1) - 1) <= self.largest_pair)
        return next(fits)

    def quantize(self, elements: int) -> float:
        """Cost of a QuantizeLinear on a tensor of that size."""
        return self.quantize_node + self.quantize_element * elements

    def dequantize(self, elements: int) -> float:
        """Cost of a DequantizeLinear on a tensor of that size."""
        return self.dequantize_node + self.dequantize_element * elements
