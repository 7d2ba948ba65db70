"""What an emitted model takes and gives where that is not float: pixels, and codes of outputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx
import onnx_ir as ir

from converter.plan.records import Plan
from converter.quantization.parameters import QuantParams

__all__ = ["describe_interface", "output_codes"]


def output_codes(emitted: onnx.ModelProto, planned: ir.Model, plan: Plan) -> dict[str, QuantParams]:
    """The quantization parameters of the outputs that an emitted model gives as codes, by name; none of a model with float outputs.

    Args:
        planned: the model that the plan is for.
    """
    if plan.io == "float":
        return {}
    grids = {str(v.name): plan.tensors[str(v.name)].params for v in planned.graph.outputs if str(v.name) in plan.tensors}
    kinds = {o.name: onnx.helper.tensor_dtype_to_np_dtype(o.type.tensor_type.elem_type) for o in emitted.graph.output}
    return {name: grid for name, grid in grids.items() if grid is not None and kinds.get(name) == grid.dtype}


def describe_interface(emitted: onnx.ModelProto, codes: Mapping[str, QuantParams], pixels: Collection[str]) -> str:
    """A sentence on what the model takes and gives.

    Args:
        codes: outputs that are given as codes.
        pixels: inputs that are pixels.
    """
    constants = {i.name for i in emitted.graph.initializer}
    others = [i.name for i in emitted.graph.input if i.name not in constants | set(pixels)]
    unchanged = [o.name for o in emitted.graph.output if o.name not in codes]
    taken = f"takes {_listed(pixels)} as uint8 pixels 0..255" + (f", and {_listed(others)} as before" if others else "")
    parts = []
    if codes:
        kinds = ", ".join(dict.fromkeys(str(grid.dtype) for grid in codes.values()))
        parts.append(f"{_listed(codes)} as {kinds} codes, whose scale and zero point its metadata hold")
    if unchanged:
        parts.append(f"{_listed(unchanged)} as before, since no integer operator writes {'it' if len(unchanged) == 1 else 'them'} as codes")
    return f"the model {taken}; it gives {' and '.join(parts)}"


def _listed(names: Collection[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
