"""A planned model as a file's contents: Q and DQ nodes, the source's inputs, outputs and metadata."""

from __future__ import annotations

import onnx

from converter.canonicalise.outputs import restore_outputs
from converter.emit.builder import emit
from converter.emit.interface import describe_interface, output_codes
from converter.emit.opset import write_in_opset
from converter.emit.proto import as_proto
from converter.emit.requirement import required_runtime
from converter.graph.weight_files import offload_constants, read_back
from converter.load.model import Source
from converter.planning.make import Planned
from converter.provenance import provenance
from converter.stages.calibrate import Calibrated

__all__ = ["emit_model", "emitted", "interface_sentence"]


def emit_model(at: Calibrated, planned: Planned) -> onnx.ModelProto:
    """Write the planned model as QuantizeLinear and DequantizeLinear nodes, with the source's inputs, outputs and metadata."""
    return read_back(emitted(at, planned))


def emitted(at: Calibrated, planned: Planned) -> onnx.ModelProto:
    """The same; what a large model has left of its float weights is still in files."""
    emitted = emit(planned.model, planned.plan, {})
    restore_outputs(emitted, at.source.model, at.canonical.constants)
    write_in_opset(emitted, at.options.opset)
    offload_constants(emitted)
    model = as_proto(emitted)
    metadata = provenance(
        at.source,
        planned.plan,
        at.samples,
        at.preprocess,
        at.options,
        required_runtime(model),
        output_codes(model, planned.model, planned.plan),
    )
    onnx.helper.set_model_props(model, metadata)  # after to_proto, which sorts them: the input file's order shall stay
    return model


def interface_sentence(given: Source, at: Calibrated, planned: Planned, model: onnx.ModelProto) -> str:
    """A sentence on pixels and codes; empty where inputs and outputs are as in the file that was given."""
    if planned.plan.io == "float":
        return ""
    pixels = [new.name for old, new in zip(given.inputs, at.source.inputs, strict=True) if old.dtype != new.dtype]
    return describe_interface(model, output_codes(model, planned.model, planned.plan), pixels)
