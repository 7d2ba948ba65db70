"""Multiplication by a positive constant: no node at all, the same codes with another scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from converter.forms.form import Form
from converter.graph.queries import data_inputs
from converter.plan.records import OpPlan

if TYPE_CHECKING:
    from converter.emit.builder import Writer

__all__ = ["RESCALE"]


def _emit(writer: Writer, node: ir.Node, op: OpPlan) -> None:
    ((_, x),) = data_inputs(node)
    writer.share_codes(node.outputs[0], x)


RESCALE = Form("relabel", _emit, passes_codes=True)
"""Only renames the scale."""
