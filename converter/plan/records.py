"""The plan: which tensor gets which grid, which operator runs in integer. Plain data, saved and read as JSON.

A tensor's fate is one of five: ``measured`` (a method chose its grid from observations), ``fixed`` (the grid is known
in advance), ``shared`` (it uses the grid of another tensor), ``derived`` (another tensor's grid times a constant) and
``float`` (with a reason). An operator's is ``integer``, ``enclosed`` or ``float``. An integer operator writes either
codes or float numbers. An enclosed one is computed in float, but all that it reads and writes is quantized, as a
machine without float needs it.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from converter.errors import UsageError
from converter.quantization.gated_activations import Gate
from converter.quantization.parameters import Grid
from converter.transforms.equalization.site import Fold
from converter.transforms.equalization.transform import Equalization
from converter.transforms.nonuniform.quantizer import KINDS, Curve
from converter.transforms.nonuniform.transform import NonuniformQuantization
from converter.transforms.sigmoids.piecewise_linear import Ramp
from converter.transforms.sigmoids.transform import ConstantGates
from converter.transforms.transform import Transform

__all__ = ["EXCLUDED", "Fate", "OpPlan", "Plan", "TensorPlan", "gate_of", "plan_from_json", "plan_to_json", "ramp_of", "ramps_of"]

FORMAT = "bridgequant-plan"
VERSION = 1

EXCLUDED = "excluded by the user"
"""Reason of an operator that ``--exclude`` keeps in float."""

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
        runs: ``integer``, ``enclosed`` or ``float``; see the module's text.
        writes: ``codes`` (its output is quantized), ``float``, or ``inside`` (its output exists only within a fused group).
        constants: grid of each constant float operand that is stored as integers, by input index.
        reason: why it is computed in float, else an empty string.
        codes: of the weights (input 1), as :mod:`converter.plan.constants` writes them; empty to round to the nearest.
        bias: instead of the model's own, one number per output channel; empty to keep that.
        gate: of an integer Gelu: slope, height and base of a :class:`converter.quantization.gated_activations.Gate`;
            of an integer Sigmoid that is a ramp: slope, offset, low and high of a
            :class:`converter.transforms.sigmoids.piecewise_linear.Ramp`.
    """

    op_type: str
    runs: Literal["integer", "enclosed", "float"]
    writes: Literal["codes", "float", "inside"] = "float"
    constants: dict[int, Grid] = field(default_factory=dict)
    reason: str = ""
    codes: str = ""
    bias: tuple[float, ...] = ()
    gate: tuple[float, ...] = ()

    @property
    def reads_codes(self) -> bool:
        """True if a grid is in the way of what it reads."""
        return self.runs != "float"


@dataclass(frozen=True)
class Plan:
    """Everything the emitter needs to know.

    Attributes:
        method: name of the method that chose the grids.
        bits: for example ``W8A8``.
        target: name of the target it was placed for.
        tensors: fate of each float tensor, by name in the canonical graph.
        ops: fate of each operator, by node name in the canonical graph.
        transforms: applied to the canonical graph beforehand, in order; tensors and operators are those of the changed graph.
    """

    method: str
    bits: str
    target: str
    tensors: dict[str, TensorPlan]
    ops: dict[str, OpPlan]
    transforms: tuple[Transform, ...] = ()

    def with_ops(self, tensors: dict[str, TensorPlan], ops: dict[str, OpPlan]) -> Plan:
        """A copy with other tensors and operators."""
        return replace(self, tensors=tensors, ops=ops)


def gate_of(op: OpPlan) -> Gate:
    """The gate of an integer Gelu."""
    slope, height, base = op.gate
    return Gate(slope, height, int(base))


def ramp_of(op: OpPlan) -> Ramp:
    """The ramp of an integer Sigmoid."""
    return Ramp(*op.gate)


def ramps_of(plan: Plan) -> dict[str, Ramp]:
    """The ramps of all sigmoids that have become one, by operator name."""
    return {name: ramp_of(op) for name, op in plan.ops.items() if op.op_type == "Sigmoid" and op.gate}


def plan_to_json(plan: Plan) -> str:
    """The plan as indented JSON with a stable order; lists of numbers stand on one line."""

    def lean(record: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in record.items() if v not in ("", None, {}, (), []) or k == "op_type"}

    def grid(value: Grid | None) -> dict[str, Any] | None:
        if value is None:
            return None
        record = {k: v for k, v in asdict(value).items() if (v is not None and v is not False) or k == "signed"}
        return {**record, "scale": list(value.scale), "zero_point": list(value.zero_point)}

    tensors = {name: lean({**asdict(t), "grid": grid(t.grid)}) for name, t in plan.tensors.items()}
    ops = {
        name: lean(
            {**asdict(o), "bias": list(o.bias), "gate": list(o.gate), "constants": {str(i): grid(g) for i, g in o.constants.items()}}
        )
        for name, o in plan.ops.items()
    }
    record = {"format": FORMAT, "version": VERSION, "method": plan.method, "bits": plan.bits, "target": plan.target}

    def transform(value: Transform) -> dict[str, Any]:
        if isinstance(value, Equalization):
            return {name: {"scale": list(f.scale), **({"shift": list(f.shift)} if f.shift else {})} for name, f in value.folds.items()}
        if isinstance(value, NonuniformQuantization):
            return {name: lean({**asdict(c), "grid": grid(c.grid), "partner": grid(c.partner)}) for name, c in value.curves.items()}
        assert isinstance(value, ConstantGates)
        return dict(value.levels)

    text = json.dumps({**record, **{t.key: transform(t) for t in plan.transforms}, "tensors": tensors, "ops": ops}, indent=1)
    # a line break never stands inside a JSON string, so this finds lists only
    return re.sub(r"\[\n\s*([-+.eE\d,\s]*?)\s*\n\s*\]", lambda found: "[" + " ".join(found[1].split()) + "]", text) + "\n"


def plan_from_json(text: str, where: Path) -> Plan:
    """Read a plan back.

    Raises:
        UsageError: not a plan of this format, or a field is missing or wrong.
    """
    hint = "write one with --plan-out and edit that"
    try:
        record = json.loads(text)
        if not isinstance(record, dict) or record.get("format") != FORMAT or record.get("version") != VERSION:
            raise UsageError(f"not a plan of format {FORMAT} version {VERSION}", where=f"--plan-in {where}", hint=hint)
        tensors = {name: _tensor(t) for name, t in _dict(record, "tensors").items()}
        ops = {name: _op(o) for name, o in _dict(record, "ops").items()}
        return Plan(_text(record, "method"), _text(record, "bits"), _text(record, "target"), tensors, ops, _transforms(record))
    except json.JSONDecodeError as error:
        raise UsageError(f"the plan is not JSON: {error}", where=f"--plan-in {where}", hint=hint) from None
    except RecursionError:
        raise UsageError("the plan is nested too deeply", where=f"--plan-in {where}", hint=hint) from None
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"the plan is damaged: {type(error).__name__} {error}", where=f"--plan-in {where}", hint=hint) from None


def _transforms(record: dict[str, Any]) -> tuple[Transform, ...]:
    folds = {name: _fold(f) for name, f in _dict(record, "folds").items()}
    curves = {name: _curve(c) for name, c in _dict(record, "curves").items()}
    levels = {name: float(_number(n, int, float)) for name, n in _object(record, "levels").items()}
    every = ((folds, Equalization(folds)), (curves, NonuniformQuantization(curves)), (levels, ConstantGates(levels)))
    return tuple(transform for entries, transform in every if entries)


def _text(record: dict[str, Any], key: str, default: str | None = None) -> str:
    value = record[key] if default is None else record.get(key, default)
    if not isinstance(value, str):
        raise TypeError(f"'{key}' is {value!r}, not a text")
    return value


def _object(record: dict[str, Any], key: str) -> dict[str, Any]:
    value = record[key] if key in ("tensors", "ops") else record.get(key, {})
    if not isinstance(value, dict):
        raise TypeError(f"'{key}' is not an object")
    return value


def _dict(record: dict[str, Any], key: str) -> dict[str, Any]:
    value = _object(record, key)
    if not all(isinstance(v, dict) for v in value.values()):
        raise TypeError(f"'{key}' is not an object of objects")
    return value


def _number(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:  # a bool is an int to isinstance
        raise TypeError(f"{value!r} where a number belongs")
    return value


def _grid(record: Any) -> Grid:
    unknown = set(record) - {f.name for f in fields(Grid)}
    if unknown:
        raise ValueError(f"a grid has no '{min(unknown)}'")
    if not isinstance(record["scale"], list) or not isinstance(record["zero_point"], list):
        raise TypeError("scale and zero_point are lists")
    scale = tuple(float(_number(s, int, float)) for s in record["scale"])
    zero_point = tuple(int(_number(z, int)) for z in record["zero_point"])
    axis = record.get("axis")
    signed, narrow = record["signed"], record.get("narrow", False)
    if not isinstance(signed, bool) or not isinstance(narrow, bool):
        raise TypeError("signed and narrow are true or false")
    return Grid(scale, zero_point, _number(record["bits"], int), signed, None if axis is None else _number(axis, int), narrow)


def _fold(record: dict[str, Any]) -> Fold:
    scale, shift = record["scale"], record.get("shift", [])
    if not isinstance(scale, list) or not isinstance(shift, list):
        raise TypeError("scale and shift are lists")
    return Fold(tuple(float(_number(s, int, float)) for s in scale), tuple(float(_number(m, int, float)) for m in shift))


def _curve(record: dict[str, Any]) -> Curve:
    kind = record["kind"]
    if not any(kind in kinds for kinds in KINDS.values()):
        raise ValueError(f"kind '{kind}'")
    grids = (None if record.get(part) is None else _grid(record[part]) for part in ("grid", "partner"))
    scale, bound = (float(_number(record.get(part, default), int, float)) for part, default in (("scale", 1.0), ("bound", 0.0)))
    return Curve(kind, _number(record["bits"], int), scale, bound, *grids)


def _tensor(record: dict[str, Any]) -> TensorPlan:
    fate = record["fate"]
    if fate not in _FATES or (fate == "float") != (record.get("grid") is None):
        raise ValueError(f"fate '{fate}' with grid {record.get('grid')}")
    grid = None if fate == "float" else _grid(record["grid"])
    return TensorPlan(fate, grid, _text(record, "source", ""), _text(record, "reason", ""))


def _op(record: dict[str, Any]) -> OpPlan:
    runs, writes = record["runs"], record.get("writes", "float")
    if runs not in ("integer", "enclosed", "float") or writes not in ("codes", "float", "inside"):
        raise ValueError(f"runs '{runs}', writes '{writes}'")
    constants = {int(i): _grid(g) for i, g in _dict(record, "constants").items()}
    bias, gate = (_numbers(record, key) for key in ("bias", "gate"))
    return OpPlan(_text(record, "op_type"), runs, writes, constants, _text(record, "reason", ""), _text(record, "codes", ""), bias, gate)


def _numbers(record: dict[str, Any], key: str) -> tuple[float, ...]:
    values = record.get(key, [])
    if not isinstance(values, list):
        raise TypeError(f"{key} is a list")
    return tuple(float(_number(v, int, float)) for v in values)
