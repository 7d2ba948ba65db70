"""Widths: how many bits each activation has when ``A`` in ``--bits`` is below 8.

The narrow tensors are those of Q-HyViT (arXiv 2303.12557, section 3), which quantizes the activation that enters each
weighted layer and each attention product: what enters a Conv, a Gemm, a MatMul with constant weights or a product of two
computed tensors. Averages, which are written as convolutions, are no such layers. A tensor that only enters other integer
operators, or only leaves an integer operator for a float one, keeps 8 bits, as its container has them anyway and no product is
made of it. Of what differences are taken, 7 bits are used at most: the differences have one more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import onnx_ir as ir

from converter.forms.exponential import SCORE_BITS
from converter.forms.form import SupportedForm, UnsupportedForm
from converter.forms.movement import passed_input
from converter.forms.registry import PASSING
from converter.graph.marks import AVERAGE
from converter.graph.operator_sets import LAYERS
from converter.graph.queries import constant, data_inputs, is_float
from converter.plan.records import Plan

__all__ = ["CONTAINER_BITS", "tensor_bits", "width_counts"]

CONTAINER_BITS = 8

_ENTERED = ("weighted", "product")


def tensor_bits(model: ir.Model, offers: Mapping[str, SupportedForm | UnsupportedForm], activation_bits: int) -> dict[str, int]:
    """Bits of the grid of each computed float tensor, by name: ``activation_bits`` or 8.

    Tensors that share codes, because one is the other moved or relabelled, have the same width: the narrower one if any
    of them enters a layer. What a ``requantize`` writes is narrow, since it is made for layers alone.

    Args:
        model: canonical float model.
        offers: the form in which each operator could run in integer; a refused layer asks for nothing.
        activation_bits: 4 to 8.
    """
    owner: dict[ir.Value, ir.Value] = {value: value for value in model.graph.inputs if is_float(value)}
    narrow: set[ir.Value] = set()
    scores: set[ir.Value] = set()
    for node in model.graph:
        entry = offers.get(str(node.name))
        form = entry.form if isinstance(entry, SupportedForm) else None
        sources = [owner[value] for _, value in data_inputs(node)]
        passed = owner[passed_input(node)] if form in PASSING else None
        made = [o for o in node.outputs if is_float(o) and constant(o) is None]
        owner.update((o, o if passed is None else passed) for o in made)
        if form in _ENTERED and AVERAGE not in node.metadata_props:
            narrow.update(sources)
        elif form == "requantize":
            narrow.update(made)
        elif form == "difference":
            scores.add(owner[passed_input(node)])

    def bits(source: ir.Value) -> int:
        return min(activation_bits if source in narrow else CONTAINER_BITS, SCORE_BITS if source in scores else CONTAINER_BITS)

    return {str(value.name): bits(source) for value, source in owner.items()}


def width_counts(plan: Plan) -> tuple[dict[int, int], dict[int, int]]:
    """How many quantized tensors, and how many integer layers with weights, a plan has of each width, narrowest first."""
    tensors = Counter(t.params.bits for t in plan.tensors.values() if t.params is not None)
    layers = [op for op in plan.ops.values() if op.op_type in LAYERS and op.runs == "integer" and op.form != "product"]
    weights = Counter(op.constants[1].bits for op in layers if 1 in op.constants)
    return dict(sorted(tensors.items())), dict(sorted(weights.items()))
