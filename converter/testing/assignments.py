"""What an assignment of operators to integer and float costs, by the rules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import onnx_ir as ir

from converter.calibration.observer import CalibrationStatistics
from converter.forms.form import SupportedForm, UnsupportedForm
from converter.forms.registry import PASSING
from converter.targets import TARGETS, Target

Q, DQ = 3, 2

TARGET = replace(TARGETS["arm64"], quantize_node=0.0, quantize_element=float(Q), dequantize_node=0.0, dequantize_element=float(DQ))


def cost_of(
    integer: frozenset[str],
    model: ir.Model,
    offers: dict[str, SupportedForm | UnsupportedForm],
    seen: CalibrationStatistics,
    penalty: Mapping[str, float] = MappingProxyType({}),
    noise: Mapping[str, float] = MappingProxyType({}),
    target: Target = TARGET,
) -> float:
    """What an assignment costs; infinite if it is not allowed. Written from the rules, not from the code."""
    total = sum(penalty.get(name, 0.0) for name in integer)
    makers = {str(n.outputs[0].name): n for n in model.graph}
    for node in model.graph:
        entry = offers[str(node.name)]
        if isinstance(entry, SupportedForm):
            total += entry.integer_cost if node.name in integer else entry.float_cost
            maker = makers.get(str(node.inputs[0].name)) if node.inputs[0] is not None else None
            if entry.form == "absorbed" and node.name in integer and (maker is None or maker.name not in integer):
                return float("inf")
    for tensor, stats in seen.tensors.items():
        readers = [str(n.name) in integer for n in model.graph if any(v is not None and v.name == tensor for v in n.inputs)]
        readers += [False for o in model.graph.outputs if o.name == tensor]
        maker = makers.get(tensor)
        total += noise.get(tensor, 0.0) if has_codes(tensor, any(readers), maker, integer, model, offers) else 0.0
        if maker is None or maker.name not in integer:
            total += target.quantize(math.prod(stats.shape)) if any(readers) else 0
            continue
        entry = offers[str(maker.name)]
        free = isinstance(entry, SupportedForm) and entry.may_write_float and not any(readers)
        total += target.dequantize(math.prod(stats.shape)) if not all(readers) and not free else 0
    return total


def has_codes(
    tensor: str,
    read: bool,
    maker: ir.Node | None,
    integer: frozenset[str],
    model: ir.Model,
    offers: dict[str, SupportedForm | UnsupportedForm],
) -> bool:
    """Whether somebody rounds a tensor: not inside a fused group, nor who only moves codes."""
    readers = [str(n.name) for n in model.graph if any(v is not None and v.name == tensor for v in n.inputs)]
    if any(isinstance(e := offers[n], SupportedForm) and e.form == "absorbed" for n in readers):
        return False
    entry = None if maker is None else offers[str(maker.name)]
    if maker is None or not isinstance(entry, SupportedForm) or maker.name not in integer:
        return read
    return entry.form not in PASSING and (read or not entry.may_write_float)
