"""The plan: which tensor gets which grid, which operator runs in integer. Plain data, saved and read as JSON.

A tensor's fate is one of five: ``measured`` (a method chose its grid from observations), ``fixed`` (the grid is known
in advance), ``shared`` (it uses the grid of another tensor), ``derived`` (another tensor's grid times a constant) and
``float`` (with a reason). An operator's is ``integer`` or ``float``, and an integer operator writes either codes or
float numbers.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from converter.errors import UsageError
from converter.grids import Grid

__all__ = ["Fate", "OpPlan", "Plan", "TensorPlan", "plan_from_json", "plan_to_json"]

FORMAT = "bridgequant-plan"
VERSION = 1

Fate = Literal["measured", "fixed", "shared", "derived", "float"]
_FATES = ("measured", "fixed", "shared", "derived", "float")


@dataclass(frozen=True)
class TensorPlan:
    """What becomes of one float tensor.

    Attributes:
        fate: see the module's text.
        grid: None exactly when the fate is ``float``.
        source: the tensor whose grid is shared or derived from, else an empty string.
        reason: why it stays float, else an empty string.
    """

    fate: Fate
    grid: Grid | None = None
    source: str = ""
    reason: str = ""


@dataclass(frozen=True)
class OpPlan:
    """What becomes of one operator.

    Attributes:
        op_type: ONNX operator.
        runs: ``integer`` or ``float``.
        writes: ``codes`` (its output is quantized), ``float``, or ``inside`` (its output exists only within a fused group).
        constants: grid of each constant float operand that is stored as integers, by input index.
        reason: why it runs in float, else an empty string.
    """

    op_type: str
    runs: Literal["integer", "float"]
    writes: Literal["codes", "float", "inside"] = "float"
    constants: dict[int, Grid] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class Plan:
    """Everything the emitter needs to know.

    Attributes:
        method: name of the method that chose the grids.
        bits: for example ``W8A8``.
        target: name of the target it was placed for.
        tensors: fate of each float tensor, by name in the canonical graph.
        ops: fate of each operator, by node name in the canonical graph.
    """

    method: str
    bits: str
    target: str
    tensors: dict[str, TensorPlan]
    ops: dict[str, OpPlan]

    def with_ops(self, tensors: dict[str, TensorPlan], ops: dict[str, OpPlan]) -> Plan:
        """A copy with other tensors and operators."""
        return replace(self, tensors=tensors, ops=ops)


def plan_to_json(plan: Plan) -> str:
    """The plan as indented JSON with a stable order."""

    def lean(record: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in record.items() if v not in ("", None, {})}

    def grid(value: Grid | None) -> dict[str, Any] | None:
        if value is None:
            return None
        record = {k: v for k, v in asdict(value).items() if v is not None and v is not False or k == "signed"}
        return {**record, "scale": list(value.scale), "zero_point": list(value.zero_point)}

    tensors = {name: lean({**asdict(t), "grid": grid(t.grid)}) for name, t in plan.tensors.items()}
    ops = {
        name: lean({**asdict(o), "constants": {str(i): grid(g) for i, g in o.constants.items()}}) for name, o in plan.ops.items()
    }
    record = {"format": FORMAT, "version": VERSION, "method": plan.method, "bits": plan.bits, "target": plan.target}
    return json.dumps({**record, "tensors": tensors, "ops": ops}, indent=1) + "\n"


def plan_from_json(text: str, where: Path) -> Plan:
    """Read a plan back.

    Raises:
        UsageError: not a plan of this format, or a field is missing or wrong.
    """
    hint = "write one with --plan-out and edit that"
    try:
        record = json.loads(text)
        if record.get("format") != FORMAT or record.get("version") != VERSION:
            raise UsageError(f"not a plan of format {FORMAT} version {VERSION}", where=f"--plan-in {where}", hint=hint)
        tensors = {name: _tensor(t) for name, t in record["tensors"].items()}
        ops = {name: _op(o) for name, o in record["ops"].items()}
        return Plan(record["method"], record["bits"], record["target"], tensors, ops)
    except json.JSONDecodeError as error:
        raise UsageError(f"the plan is not JSON: {error}", where=f"--plan-in {where}", hint=hint) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"the plan is damaged: {type(error).__name__} {error}", where=f"--plan-in {where}", hint=hint) from None


def _grid(record: dict[str, Any] | None) -> Grid | None:
    if record is None:
        return None
    scale, zero_point = tuple(map(float, record["scale"])), tuple(map(int, record["zero_point"]))
    return Grid(scale, zero_point, record["bits"], record["signed"], record.get("axis"), record.get("narrow", False))


def _tensor(record: dict[str, Any]) -> TensorPlan:
    if record["fate"] not in _FATES or (record["fate"] == "float") != (record.get("grid") is None):
        raise ValueError(f"fate '{record['fate']}' with grid {record.get('grid')}")
    return TensorPlan(record["fate"], _grid(record.get("grid")), record.get("source", ""), record.get("reason", ""))


def _op(record: dict[str, Any]) -> OpPlan:
    if record["runs"] not in ("integer", "float") or record.get("writes", "float") not in ("codes", "float", "inside"):
        raise ValueError(f"runs '{record['runs']}', writes '{record.get('writes')}'")
    constants = {int(i): g for i, g in ((i, _grid(g)) for i, g in record.get("constants", {}).items()) if g is not None}
    return OpPlan(record["op_type"], record["runs"], record.get("writes", "float"), constants, record.get("reason", ""))
