"""The plan: quantization parameters of each tensor, and which operators run in integer. Plain data; :mod:`.serialization` saves it.

A tensor's parameters are of one of five kinds: ``measured`` (a method chose them from observations), ``fixed`` (known in
advance), ``shared`` (those of another tensor), ``derived`` (another tensor's with the scale times a constant) and
``float`` (none, with a reason). An operator runs in ``integer``, ``fake-quantized`` or in ``float``. An integer operator writes
either codes or float numbers. A fake-quantized one is computed in float, but all that it reads and writes is quantized, as
a machine without float needs it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from converter.plan.io_forms import IoForm
from converter.quantization.bit_widths import BitWidths
from converter.quantization.gated_activations import QuickGelu
from converter.quantization.parameters import QuantParams
from converter.transforms.sigmoids.piecewise_linear import PiecewiseLinear
from converter.transforms.transform import Transform

__all__ = [
    "EXCLUDED",
    "Kind",
    "OpPlan",
    "Plan",
    "TensorPlan",
    "approximation_of",
    "approximations_of",
    "quick_gelu_of",
]

EXCLUDED = "excluded by the user"
"""Reason of an operator that ``--exclude`` keeps in float."""

Kind = Literal["measured", "fixed", "shared", "derived", "float"]


@dataclass(frozen=True)
class TensorPlan:
    """What becomes of one float tensor.

    Attributes:
        kind: see the module's text.
        params: None exactly when the kind is ``float``.
        source: the tensor whose parameters are shared or derived from, else an empty string.
        reason: why it stays float, else an empty string.
    """

    kind: Kind
    params: QuantParams | None = None
    source: str = ""
    reason: str = ""


@dataclass(frozen=True)
class OpPlan:
    """What becomes of one operator.

    Attributes:
        op_type: ONNX operator.
        runs: ``integer``, ``fake-quantized`` or ``float``; see the module's text.
        writes: ``codes`` (its output is quantized), ``float``, or ``fused`` (its output exists only within a fused group).
        constants: grid of each constant float operand that is stored as integers, by input index.
        form: name of its integer form, see :mod:`converter.forms`; empty if it is computed in float.
        reason: why it is computed in float, else an empty string.
        codes: of the weights (input 1), as :mod:`converter.plan.constants` writes them; empty to round to the nearest.
        bias: instead of the model's own, one number per output channel; empty to keep that.
        coefficients: of an integer Gelu: slope, height and base of a :class:`converter.quantization.gated_activations.QuickGelu`;
            of an integer Sigmoid that is a piecewise-linear sigmoid: slope, offset, low and high of a
            :class:`converter.transforms.sigmoids.piecewise_linear.PiecewiseLinear`.
    """

    op_type: str
    runs: Literal["integer", "fake-quantized", "float"]
    writes: Literal["codes", "float", "fused"] = "float"
    constants: dict[int, QuantParams] = field(default_factory=dict)
    reason: str = ""
    codes: str = ""
    bias: tuple[float, ...] = ()
    coefficients: tuple[float, ...] = ()
    form: str = ""

    @property
    def reads_codes(self) -> bool:
        """True if a grid is in the way of what it reads."""
        return self.runs != "float"


@dataclass(frozen=True)
class Plan:
    """Everything the emitter needs to know.

    Attributes:
        method: name of the method that chose the grids.
        bits: of weights and of what enters layers.
        target: name of the target it was placed for.
        tensors: what becomes of each float tensor, by name in the canonical graph.
        ops: what becomes of each operator, by node name in the canonical graph.
        transforms: applied to the canonical graph beforehand, in order; tensors and operators are those of the changed graph.
        io: what the model takes and gives.
        stored: constants that operators in float read, but that are stored as codes, by name in the changed graph.
        source: sha256 of the float model that it was made for, hexadecimal; empty in plans that do not say it.
    """

    method: str
    bits: BitWidths
    target: str
    tensors: dict[str, TensorPlan]
    ops: dict[str, OpPlan]
    transforms: tuple[Transform, ...] = ()
    io: IoForm = "float"
    stored: dict[str, QuantParams] = field(default_factory=dict)
    source: str = ""

    def with_ops(self, tensors: dict[str, TensorPlan], ops: dict[str, OpPlan]) -> Plan:
        """A copy with other tensors and operators."""
        return replace(self, tensors=tensors, ops=ops)


def quick_gelu_of(op: OpPlan) -> QuickGelu:
    """The gate of an integer Gelu."""
    slope, height, base = op.coefficients
    return QuickGelu(slope, height, int(base))


def approximation_of(op: OpPlan) -> PiecewiseLinear:
    """The piecewise-linear sigmoid of an integer Sigmoid."""
    return PiecewiseLinear(*op.coefficients)


def approximations_of(plan: Plan) -> dict[str, PiecewiseLinear]:
    """The piecewise-linear sigmoids of all sigmoids that have become one, by operator name."""
    return {name: approximation_of(op) for name, op in plan.ops.items() if op.form == "piecewise_linear"}
