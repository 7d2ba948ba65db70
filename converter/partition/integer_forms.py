"""Which operators the runtime could run in integer, in which form, and why the others cannot. Decides nothing."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

import onnx_ir as ir

from converter.calibration.observer import CalibrationStatistics
from converter.forms.float_only import flaws_of
from converter.forms.form import Context, SupportedForm, UnsupportedForm
from converter.forms.movement import moves_codes
from converter.forms.registry import offer_node
from converter.graph.macs import macs_of
from converter.graph.marks import TWIN_SUM
from converter.graph.queries import constant, data_inputs, gives_pixels, is_float, relabel_factor, relabel_offset
from converter.plan.records import EXCLUDED
from converter.targets import Target
from converter.transforms.nonuniform.marks import layer_inputs, quantizer_of, reads_nonuniform

__all__ = ["offer", "passes_codes"]

_NONUNIFORM = {
    "log2": "it is part of a logarithmic grid, whose steps are not equal",
    "log-sqrt2": "it is part of a logarithmic grid, whose steps are not equal",
    "log-int-softmax": "it is part of a softmax by integer exponentials, of which the runtime has no kernel",
    "partner": "it rounds what is multiplied with numbers on a logarithmic grid",
    "power-of-two": "it is a grid with one scale per channel in front of an operator that has no integer kernel",
    "twin": "it splits a tensor in two with a grid each",
    TWIN_SUM: "it adds what the two halves of a tensor give, and only the sum is rounded",
}

_SEPARATE = ("pointwise", "hardswish", "gelu")
"""Forms of operators without weights, which lose nothing but time in float."""

_ROUNDED_LATER = UnsupportedForm("its result is rounded on a grid that is not uniform, and on no other before", final=True)
_LATER = ("power-of-two", "twin")


def offer(
    model: ir.Model, seen: CalibrationStatistics, target: Target, *, activation_bits: int, weight_bits: int, excluded: Collection[str] = ()
) -> dict[str, SupportedForm | UnsupportedForm]:
    """The integer form of each operator that works on float tensors, by node name, in graph order.

    Args:
        model: canonical float model.
        seen: for the shapes.
        target: for its types and costs.
        activation_bits: 4 to 8, of what enters layers.
        weight_bits: 4 to 8; a target may allow fewer beside activations of that width.
        excluded: names of canonical nodes that the user keeps float.
    """
    shapes = {name: stats.shape for name, stats in seen.tensors.items()}
    context = Context(seen, target, activation_bits, weight_bits, shapes)
    result: dict[str, SupportedForm | UnsupportedForm] = {}
    flaws = flaws_of(model, seen)
    rounded_later, curved = layer_inputs(model, _LATER), layer_inputs(model, (*_LATER, "log2", "log-sqrt2"))
    for node in model.graph:
        if not any(is_float(o) for o in node.outputs) or constant(node.outputs[0]) is not None:
            continue
        name = str(node.name)
        if name in excluded:
            result[name] = UnsupportedForm(EXCLUDED, macs_of(node, shapes), final=True)
        elif quantizer_of(node):
            result[name] = UnsupportedForm(_NONUNIFORM[quantizer_of(node)], final=True)
        elif not list(data_inputs(node)) and not gives_pixels(node):
            result[name] = UnsupportedForm("none of its float inputs is computed", final=True)
        elif flaw := next((flaws[n] for n in _tensors(node) if n in flaws), ""):
            result[name] = UnsupportedForm(flaw, macs_of(node, shapes), final=True)
        else:
            entry = _on_target(offer_node(node, context, result), node)
            if isinstance(entry, SupportedForm):
                result[name] = _ROUNDED_LATER if name in rounded_later and entry.form in _SEPARATE else entry
            else:  # what it reads or writes is on a grid of its own, which one around the operator would undo
                result[name] = replace(entry, final=entry.final or name in curved or reads_nonuniform(node))
    return result


def _tensors(node: ir.Node) -> list[str]:
    """Names of the computed float tensors that a node reads and writes."""
    return [str(v.name) for _, v in data_inputs(node)] + [str(o.name) for o in node.outputs if is_float(o)]


def _on_target(entry: SupportedForm | UnsupportedForm, node: ir.Node) -> SupportedForm | UnsupportedForm:
    if isinstance(entry, SupportedForm) and math.isinf(entry.integer_cost):
        return UnsupportedForm(f"the target has no integer kernel for {node.op_type}", entry.macs)
    return entry


def passes_codes(node: ir.Node) -> bool:
    """True if the output of a node's integer form would hold the codes of its input."""
    return moves_codes(node) or relabel_factor(node) is not None or relabel_offset(node) is not None
