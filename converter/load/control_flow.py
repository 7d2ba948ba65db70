"""Control flow: graphs inside nodes. What is decided before the model runs may stay, everything else is refused."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import AttributeProto, NodeProto

from converter.errors import ModelError
from converter.graph.simplification import simplify
from converter.load.vetting import place_of
from converter.runtime.session import open_session

__all__ = ["CUT_OFF", "holds_control_flow", "refuse_lasting_control_flow"]

CUT_OFF = "export with fixed input sizes, traced instead of scripted; cut post-processing (non-maximum suppression) off before"
"""What to do about control flow."""


def holds_control_flow(model: onnx.ModelProto) -> NodeProto | None:
    """The first node of the main graph that holds a graph of its own, if there is one."""
    kinds = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
    return next((n for n in model.graph.node if any(a.type in kinds for a in n.attribute)), None)


def refuse_lasting_control_flow(path: Path, model: onnx.ModelProto) -> None:
    """Refuse control flow that constants and fixed shapes do not decide; the model is left as it is.

    Raises:
        ModelError: names the node; or ONNX Runtime does not accept the model.
    """
    if holds_control_flow(model) is None:
        return
    open_session(model, optimise=False)  # onnxsim trusts what it is given: inner graphs that do not fit would end the process
    lasting = holds_control_flow(simplify(model))
    if lasting is not None:
        raise ModelError(
            f"operator '{lasting.op_type}' holds a graph of its own, and what it does is decided by data or open sizes",
            where=place_of(path, lasting),
            hint=CUT_OFF,
        )
