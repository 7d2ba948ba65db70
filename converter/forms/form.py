"""What every integer form has in common, and what it is told."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx_ir as ir

from converter.calibration.observer import CalibrationStatistics
from converter.plan.choice import Constant
from converter.plan.records import OpPlan
from converter.quantization.gated_activations import QuickGelu
from converter.targets import Target
from converter.targets.costs import Shapes, features, form_costs, operator_costs
from converter.transforms.sigmoids.piecewise_linear import PiecewiseLinear

if TYPE_CHECKING:
    from converter.emit.builder import Writer
    from converter.planning.validate import Check
    from converter.verify.simulation import Run

__all__ = ["CONTAINER_BITS", "Context", "Earlier", "Form", "Rule", "SupportedForm", "UnsupportedForm", "cost_as"]

CONTAINER_BITS = 8
"""Of what is multiplied by no weight, such as the constants of Add and Mul: narrower codes would gain nothing."""


@dataclass(frozen=True)
class SupportedForm:
    """An operator that could run in integer.

    Attributes:
        form: name of its form, see :mod:`converter.forms.registry`.
        constants: constant operands to be stored as integers, by input index.
        may_write_float: the integer kernel can write float numbers directly.
        float_cost: of its float form, in the target's unit.
        integer_cost: of its integer form.
        macs: multiply-accumulates at the calibrated shape.
        coefficients: of the forms that stand for a function by numbers of their own.
        code_form: name of a form that gives the same codes for less, but cannot write float numbers; empty if there is none.
        code_cost: of that form.
    """

    form: str
    constants: dict[int, Constant] = field(default_factory=dict)
    may_write_float: bool = False
    float_cost: float = 0.0
    integer_cost: float = 0.0
    macs: int = 0
    coefficients: QuickGelu | PiecewiseLinear | None = None
    code_form: str = ""
    code_cost: float = math.inf

    def writing(self, what: str) -> tuple[str, float]:
        """Name and cost of the form in which the operator writes ``codes``, ``float`` numbers or, ``fused``, has its clamp write."""
        return (self.code_form, self.code_cost) if what != "float" and self.code_form else (self.form, self.integer_cost)


@dataclass(frozen=True)
class UnsupportedForm:
    """An operator that stays float.

    Attributes:
        reason: why.
        macs: multiply-accumulates at the calibrated shape.
        final: what it reads and writes cannot be quantized either.
    """

    reason: str
    macs: int = 0
    final: bool = False


@dataclass(frozen=True)
class Context:
    """What an operator's form depends on besides the operator.

    Attributes:
        seen: for ranges and shapes.
        target: for types and costs.
        activation_bits: of what enters layers.
        weight_bits: a target may allow fewer.
        shapes: of tensors, by name.
    """

    seen: CalibrationStatistics
    target: Target
    activation_bits: int
    weight_bits: int
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def dense_weight_bits(self) -> int:
        """Most bits of a weight that is summed over with many others."""
        return self.target.dense_weight_bits(self.activation_bits)

    def cost(self, node: ir.Node, form: Form | None = None) -> tuple[float, float]:
        """Cost of a node in float and in an integer form, by default that of its kind; infinite if the target has none."""
        return operator_costs(node, self.shapes, self.target)[0], (_kind_cost if form is None else form.cost)(
            node, self.shapes, self.target
        )


Earlier = Mapping[str, SupportedForm | UnsupportedForm]
"""What the operators before could be, by name."""

Rule = Callable[[ir.Node, Context, Earlier], SupportedForm | UnsupportedForm]
"""Whether an operator could have a form, and at what cost."""


def _kind_cost(node: ir.Node, shapes: Shapes, target: Target) -> float:
    cost = operator_costs(node, shapes, target)[1]
    return math.inf if cost is None else cost


def cost_as(kind: str) -> Callable[[ir.Node, Shapes, Target], float]:
    """The cost of an integer form that a target has among its costs under another name than the node's kind."""

    def cost(node: ir.Node, shapes: Shapes, target: Target) -> float:
        found = form_costs(kind, features(node, shapes), target)[1]
        return math.inf if found is None else found

    return cost


def _copied(writer: Writer, node: ir.Node, op: OpPlan) -> None:
    writer.copy_node(node, writer.integer_inputs(node, op))
    writer.encode_outputs(node, op)


def _applied(run: Run, node: ir.Node, op: OpPlan) -> None:
    run.store(node, run.apply(node, run.integer_inputs(node, op)[0]), op)


def _no_gate(check: Check, node: ir.Node, op: OpPlan) -> None:
    if op.coefficients:
        raise check.refuse(f"operator '{node.name}' has no gate")


@dataclass(frozen=True)
class Form:
    """One way to run an operator in integer.

    Attributes:
        name: in a plan.
        emit: writes its nodes and gives its outputs their codes; by default the operator between DQs and Qs.
        simulate: computes and stores what it gives; by default the operator in float on numbers of the grids.
        check: refuses the numbers that a plan has for it; by default there must be none.
        passes_codes: its output holds the codes of its one computed input; with others, see :func:`converter.forms.movement.passed_input`.
        reads_codes: it reads the codes of its inputs; not so where it is the end of a group, whose inside has none.
        needs: indices of inputs whose producers must run in integer where it does.
        cost: of a node in this form, in the target's unit; infinite if the target has none.
    """

    name: str
    emit: Callable[[Writer, ir.Node, OpPlan], None] = _copied
    simulate: Callable[[Run, ir.Node, OpPlan], None] = _applied
    check: Callable[[Check, ir.Node, OpPlan], None] = _no_gate
    passes_codes: bool = False
    reads_codes: bool = True
    needs: tuple[int, ...] = ()
    cost: Callable[[ir.Node, Shapes, Target], float] = _kind_cost
