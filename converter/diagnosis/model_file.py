"""Diagnose an int8 model of which there is no plan, such as another tool's: its file says where it quantizes, the runtime what it gives."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from converter.calibration.observer import TensorStats
from converter.diagnosis.accumulate import Accumulator
from converter.diagnosis.advice import advise
from converter.diagnosis.chain import chain_of
from converter.diagnosis.channel_factors import ChannelFactors
from converter.diagnosis.diagnose import MOST_SAMPLES, computed_tensors, new_accumulator
from converter.diagnosis.records import Diagnosis, TensorFigures
from converter.graph.queries import data_inputs, is_float
from converter.quantization.parameters import QuantParams, fake_quantize
from converter.runtime.session import Feed, open_session, run_session
from converter.sensitivity.bridge_blocks import find_structure
from converter.targets import Target
from converter.targets.costs import operator_costs

__all__ = ["diagnose_file", "is_quantized"]

_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")
_BYTES_AT_ONCE = 1 << 28
_BITS = {np.dtype(np.int8): (8, True), np.dtype(np.uint8): (8, False)}
_BINS = 48


def is_quantized(model: onnx.ModelProto) -> bool:
    """True if an operator of it reads or makes quantized numbers."""
    return any(node.op_type in _QUANTIZED or node.domain == "com.microsoft" for node in model.graph.node)


@dataclass(frozen=True)
class _Quantizer:
    """Where a file quantizes a tensor: the grid, None where it is none of 8 bits, and the tensor that readers get."""

    params: QuantParams | None
    read: str


def diagnose_file(
    model: onnx.ModelProto, floats: ir.Model, seen: Mapping[str, TensorStats], feeds: Sequence[Feed], target: Target, *, threads: int = 0
) -> Diagnosis:
    """Measure the tensors that a file has in common, by name and shape, with the float model.

    Args:
        model: int8 model; it runs without the runtime's fusions, so that its tensors can be read.
        floats: canonical float model.
        seen: its calibration statistics.
        feeds: samples to measure on; the first 8 count.
        target: for the costs.
        threads: of the runtime; 0 leaves the choice to it.

    Raises:
        ModelError: the runtime does not accept the model.
    """
    shapes = {name: stats.shape for name, stats in seen.items()}
    segments = chain_of(floats, find_structure(floats, shapes).blocks, shapes)
    quantizers = _quantizers(model)
    known = {*(i.name for i in model.graph.input), *(o for node in model.graph.node for o in node.output)}
    common = [str(v.name) for v in computed_tensors(floats) if str(v.name) in known and str(v.name) in seen]
    found = {n: new_accumulator(quantizers[n].params if n in quantizers else None, seen[n], _BINS) for n in common}
    factors = {name: ChannelFactors(found[name].params) for name in common}
    # behind the Q a DQ may have another scale, which stands for a factor that follows: so known grids are applied here
    read = {name: quantizers[name].read if name in quantizers and quantizers[name].params is None else name for name in common}
    for exact, other in _both(model, floats, shapes, feeds[:MOST_SAMPLES], read, threads):
        for name in exact:
            params = quantizers[name].params if name in quantizers else None
            got = other[read[name]]
            rounded = got if params is None else fake_quantize(got, params)
            found[name].add(exact[name], rounded)
            factors[name].add(exact[name], got, rounded)
    places = {name: number for number, segment in enumerate(segments) for name in segment.operators}
    runs = _runs(model)
    tensors = [_figures(value, found.get(str(value.name)), seen, shapes, places, runs, target) for value in computed_tensors(floats)]
    tensors = [_undone(t, factors[t.name]) if t.name in factors else t for t in tensors]
    note = _note(len(tensors), len(tensors) - len(common), sum(f.undone_db is not None for f in factors.values()))
    worst, ranking = advise(tensors, target.unit)
    return Diagnosis(tuple(tensors), segments, worst, ranking, len(feeds[:MOST_SAMPLES]), note)


def _note(tensors: int, lacking: int, undone: int) -> str:
    parts = []
    if lacking:
        parts.append(f"{lacking} of {tensors} tensors of the float model have no counterpart in the file, by name")
    if undone:
        have = "1 tensor has" if undone == 1 else f"{undone} tensors have"
        parts.append(f"{have} another factor in each channel than in the float model, which was undone to compare them")
    return "; ".join(parts)


def _undone(figures: TensorFigures, factors: ChannelFactors) -> TensorFigures:
    """The same, with the factors of its channels undone if it has any."""
    ratio, own = factors.undone_db, factors.own
    if ratio is None:
        return figures
    if own is None:
        return replace(figures, accumulated_db=ratio, equalization="applied")
    return replace(
        figures,
        accumulated_db=ratio,
        local_db=own.local_db,
        clipped=own.clipped,
        histogram=own.histogram,
        spread=own.spread,
        low=factors.low,
        high=factors.high,
        equalization="applied",
    )


def _quantizers(model: onnx.ModelProto) -> dict[str, _Quantizer]:
    stored = {i.name: i for i in model.graph.initializer}
    stored |= {n.output[0]: n.attribute[0].t for n in model.graph.node if n.op_type == "Constant" and n.attribute[0].name == "value"}
    decoded = {n.input[0]: n.output[0] for n in reversed(model.graph.node) if n.op_type == "DequantizeLinear"}
    found: dict[str, _Quantizer] = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.output[0] in decoded:
            found.setdefault(node.input[0], _Quantizer(_params(node, stored), decoded[node.output[0]]))
    return found


def _params(node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto]) -> QuantParams | None:
    """The grid of a QuantizeLinear with one constant scale; None for any other."""
    if node.input[1] not in stored or (len(node.input) > 2 and node.input[2] not in stored):
        return None
    scale = numpy_helper.to_array(stored[node.input[1]])
    zero_point = numpy_helper.to_array(stored[node.input[2]]) if len(node.input) > 2 else np.zeros(scale.shape, np.uint8)
    if scale.size != 1 or zero_point.dtype not in _BITS:
        return None
    bits, signed = _BITS[zero_point.dtype]
    try:
        return QuantParams((float(scale.reshape(())),), (int(zero_point.reshape(())),), bits, signed)
    except ValueError:  # a scale so small that it stands for zero
        return None


def _runs(model: onnx.ModelProto) -> dict[str, str]:
    """By tensor, how the operator runs that computes it: ``integer`` if it stands behind DequantizeLinear on all computed inputs."""
    decoded = {o for n in model.graph.node if n.op_type == "DequantizeLinear" for o in n.output}
    fixed = {i.name for i in model.graph.initializer} | {o for n in model.graph.node if n.op_type == "Constant" for o in n.output}
    found = {}
    for node in model.graph.node:
        read = [name for name in node.input if name and name not in fixed]
        for output in node.output:
            found[output] = "integer" if read and all(name in decoded for name in read) else "float"
    return found


def _both(
    model: onnx.ModelProto,
    floats: ir.Model,
    shapes: Mapping[str, Sequence[int]],
    feeds: Sequence[Feed],
    read: Mapping[str, str],
    threads: int,
) -> Iterator[tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]]:
    """Values of both models by name, a group of tensors and a sample at a time."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name in read:
        size = 4 * math.prod(shapes[name])
        if groups[-1] and filled + size > _BYTES_AT_ONCE:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    for group in groups if groups[0] else ():
        sides = [(ir.to_proto(floats), {n: n for n in group}), (model, {read[n]: n for n in group})]
        sessions = []
        for proto, wanted in sides:
            given = {i.name for i in proto.graph.input}
            computed = [name for name in wanted if name not in given]
            sessions.append((open_session(_exposed(proto, computed), threads=threads, optimise=False), computed, given & wanted.keys()))
        for feed in feeds:
            values = [
                {**{n: feed[n] for n in given}, **(run_session(session, feed, computed) if computed else {})}
                for session, computed, given in sessions
            ]
            yield values[0], values[1]


def _exposed(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    result = onnx.ModelProto.FromString(model.SerializeToString())
    present = {o.name for o in result.graph.output}
    for name in names:
        if name not in present:
            result.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return result


def _figures(
    value: ir.Value,
    found: Accumulator | None,
    seen: Mapping[str, TensorStats],
    shapes: Mapping[str, tuple[int, ...]],
    places: Mapping[str, int],
    runs: Mapping[str, str],
    target: Target,
) -> TensorFigures:
    name, node = str(value.name), value.producer()
    stats = seen[name]
    first = node is not None and value is next(o for o in node.outputs if is_float(o))
    costs = operator_costs(node, shapes, target) if node is not None and first else (None, None)
    how = "" if node is None else runs.get(name, "")
    return TensorFigures(
        name=name,
        operator="" if node is None else str(node.name),
        op_type="Input" if node is None else node.op_type,
        segment=None if node is None else places.get(str(node.name)),
        kind="float" if found is None or found.params is None else "measured",
        params=None if found is None else found.params,
        shape=tuple(stats.shape),
        low=stats.minimum,
        high=stats.maximum,
        local_db=None if found is None else found.local_db,
        accumulated_db=None if found is None else found.accumulated_db,
        clipped=None if found is None else found.clipped,
        sensitivity=None,
        runs=how,
        float_cost=costs[0],
        integer_cost=costs[1],
        reason="" if found is not None else "the file has no tensor of this name",
        reads=() if node is None else tuple(dict.fromkeys(str(v.name) for _, v in data_inputs(node))),
        histogram=None if found is None else found.histogram,
        spread=None if found is None else found.spread,
        equalization="",
    )
