"""Observe: run the float model on calibration samples and keep what planning needs of each tensor, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from converter.errors import CalibrationError
from converter.graph.queries import constant, is_float, is_float_output
from converter.graph.shape_inference import infer_shapes
from converter.runtime.session import Feed, open_session, run_session

__all__ = ["CalibrationStatistics", "TensorStats", "collect_statistics", "output_values", "values_of"]

_VALUES_KEPT = 16384
_BYTES_AT_ONCE = 1 << 29


@dataclass(frozen=True)
class TensorStats:
    """What was seen of one float tensor.

    Attributes:
        minimum: over all samples.
        maximum: over all samples.
        sample: float32 [K], values drawn at random from all samples, at most 16384 of them.
        shape: at the first sample.
        steady: all samples had that shape.
        flaw: why no grid can stand for it, as a clause; empty if one can. Infinities and what is no number are legal in a float
            model, as masks and behind guards, and so is a tensor without elements; the other attributes leave them out.
        nearest: smallest magnitude over all samples of what is not zero; 0 if all is.
    """

    minimum: float
    maximum: float
    sample: npt.NDArray[np.float32]
    shape: tuple[int, ...]
    steady: bool = True
    flaw: str = ""
    nearest: float = 0.0


@dataclass(frozen=True)
class CalibrationStatistics:
    """What was seen of the model.

    Attributes:
        tensors: by tensor name, graph inputs included.
        samples: how many calibration samples were run.
    """

    tensors: dict[str, TensorStats]
    samples: int


def collect_statistics(
    model: ir.Model,
    feeds: Sequence[Feed],
    *,
    seed: int = 0,
    threads: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CalibrationStatistics:
    """Run the canonical model and collect statistics of every computed float tensor.

    Args:
        model: canonical float model.
        feeds: calibration samples.
        seed: of the random choice of values kept.
        threads: of the runtime; 0 leaves the choice to it.
        progress: called with (samples done, samples in all).

    Raises:
        CalibrationError: not one number of an output is finite.
    """
    fed = [str(v.name) for v in model.graph.inputs if is_float(v)]
    computed = _float_tensors(model)
    names = fed + computed
    order = {name: i for i, name in enumerate(names)}
    collected: dict[str, _Collector] = {}

    def collect(number: int, values: Mapping[str, npt.NDArray[Any]]) -> None:
        for name, value in values.items():
            if name not in collected:
                collected[name] = _Collector(value.shape)
            generator = np.random.default_rng((seed, order[name], number))
            collected[name].add(value, generator, -(-_VALUES_KEPT // len(feeds)))

    for number, feed in enumerate(feeds):
        collect(number, {name: feed[name] for name in fed})
    groups = _groups(model, computed, feeds[0])  # none where nothing is computed in float
    for place, group in enumerate(groups):
        # one session after the other: each keeps the memory of its largest run
        session = open_session(_expose(model, group), threads=threads)
        for number, feed in enumerate(feeds):
            collect(number, run_session(session, feed, group))
            progress((place * len(feeds) + number + 1) // len(groups), len(feeds))
    for name in (str(v.name) for v in model.graph.outputs):
        if name in collected and not collected[name].finite and not collected[name].parts:
            raise CalibrationError(
                f"output '{name}' is not finite in the float model, not one number of it",
                where=f"{len(feeds)} calibration samples",
                hint="check --preprocess and the samples",
            )
    return CalibrationStatistics({name: collected[name].stats() for name in names}, len(feeds))


def values_of(model: ir.Model, feeds: Sequence[Feed], names: Sequence[str], *, threads: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    """Whole tensors by name, from the runtime; float32 with the samples in front, so that memory grows with both."""
    given = {str(v.name) for v in model.graph.inputs}
    computed = [n for n in names if n not in given]
    parts: dict[str, list[npt.NDArray[np.float32]]] = {n: [feed[n] for feed in feeds] for n in names if n in given}
    if computed:  # asked for nothing, the runtime gives all outputs
        session = open_session(_expose(model, computed), threads=threads)
        for feed in feeds:
            for name, value in run_session(session, feed, computed).items():
                parts.setdefault(name, []).append(value)
    return {name: np.stack(values) for name, values in parts.items()}


def output_values(model: ir.Model, feeds: Sequence[Feed], *, threads: int = 0) -> dict[str, list[npt.NDArray[np.float32]]]:
    """What the float outputs are on each sample, by name."""
    names = [str(v.name) for v in model.graph.outputs if is_float_output(v)]
    session = open_session(ir.to_proto(model), threads=threads) if names else None
    runs = [run_session(session, feed, names) for feed in feeds] if names else []
    return {name: [values[name].astype(np.float32) for values in runs] for name in names}


class _Collector:
    """Running range and sample of one tensor."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.minimum, self.maximum, self.nearest = np.inf, -np.inf, np.inf
        self.parts: list[npt.NDArray[np.float32]] = []
        self.steady = self.finite = True

    def add(self, value: npt.NDArray[Any], generator: np.random.Generator, keep: int) -> None:
        self.steady &= value.shape == self.shape
        flat = value.reshape(-1)
        if flat.size and not (np.isfinite(flat.min()) and np.isfinite(flat.max())):
            self.finite = False
            flat = flat[np.isfinite(flat)]
        if not flat.size:
            return
        self.minimum, self.maximum = min(self.minimum, float(flat.min())), max(self.maximum, float(flat.max()))
        sizes = np.abs(flat)
        self.nearest = min(self.nearest, float(sizes.min(where=sizes > 0, initial=np.inf)))
        chosen = flat if flat.size <= keep else flat[generator.integers(0, flat.size, keep)]
        self.parts.append(chosen.astype(np.float32))

    def stats(self) -> TensorStats:
        sample = np.concatenate(self.parts) if self.parts else np.zeros(1, np.float32)
        low, high = (self.minimum, self.maximum) if self.parts else (0.0, 0.0)
        nearest = self.nearest if np.isfinite(self.nearest) else 0.0
        return TensorStats(low, high, sample, tuple(self.shape), self.steady, self._flaw(), nearest)

    def _flaw(self) -> str:
        if not self.finite:
            return "not all of its numbers are finite"
        return "" if self.parts else "it has no elements"


def _float_tensors(model: ir.Model) -> list[str]:
    values = [o for n in model.graph for o in n.outputs]
    return [str(v.name) for v in values if v.name and is_float(v) and constant(v) is None and (v.uses() or v.is_graph_output())]


def _expose(model: ir.Model, names: Sequence[str]) -> onnx.ModelProto:
    proto: onnx.ModelProto = ir.to_proto(model)
    present = {o.name for o in proto.graph.output}
    for name in names:
        if name not in present:
            proto.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return proto


def _groups(model: ir.Model, names: Sequence[str], feed: Feed) -> list[list[str]]:
    """Tensor names in groups whose values fit the memory bound together; each group gets a session of its own.

    A tensor whose size is not known beforehand is taken to be as large as the largest that is.
    """
    sizes = _sizes(model, feed)
    largest = max(sizes.values(), default=_BYTES_AT_ONCE)
    groups: list[list[str]] = [[]]
    filled = 0
    for name in names:
        size = sizes.get(name, largest)
        if groups[-1] and filled + size > _BYTES_AT_ONCE:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    return [group for group in groups if group]


def _sizes(model: ir.Model, feed: Feed) -> dict[str, int]:
    """Bytes of each float tensor whose shape follows from the shapes of the inputs."""
    proto: onnx.ModelProto = ir.to_proto(model)
    for value in proto.graph.input:
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, feed[value.name].shape))
    del proto.graph.value_info[:]
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    inferred = infer_shapes(proto)
    values = (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
    return {name: 4 * math.prod(shape) for name, shape in shapes.items() if all(shape)}
