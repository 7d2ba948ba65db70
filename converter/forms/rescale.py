"""Multiplication by a positive constant, or a whole number added to pixels: no node at all, the same codes with other parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from converter.forms.form import Form
from converter.graph.queries import data_inputs, relabel_factor, relabel_offset
from converter.plan.records import OpPlan
from converter.quantization.parameters import QuantParams

if TYPE_CHECKING:
    from converter.emit.builder import Writer

__all__ = ["RESCALE", "relabelled"]


def relabelled(node: ir.Node, grid: QuantParams) -> QuantParams:
    """The grid of what a relabelling node gives, by that of what it reads.

    Raises:
        ValueError: it is none, or a scale or zero point would be out of range.
    """
    factor, offset = relabel_factor(node), relabel_offset(node)
    if factor is not None:
        return grid.rescaled(factor)
    if offset is None or grid.scale != (1.0,):
        raise ValueError("the node multiplies by no positive constant, and adds no whole number to pixels")
    return grid.shifted(offset)


def _emit(writer: Writer, node: ir.Node, op: OpPlan) -> None:
    ((_, x),) = data_inputs(node)
    writer.share_codes(node.outputs[0], x)


RESCALE = Form("relabel", _emit, passes_codes=True, cost=lambda *_: 0.0)
"""Only renames the scale, or the zero point."""
