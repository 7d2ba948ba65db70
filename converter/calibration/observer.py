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
from converter.torch_backend.workers import in_order, worker_count

__all__ = [
    "CalibrationStatistics",
    "PartStatistics",
    "TensorStats",
    "collect_part",
    "collect_statistics",
    "merge_parts",
    "nearest_to_zero",
    "output_values",
    "values_of",
]

_VALUES_KEPT = 16384
_BYTES_AT_ONCE = 1 << 29
_BLOCK = 1 << 16
"""Numbers looked at together: few enough to stay in the cache."""


@dataclass(frozen=True)
class TensorStats:
    """What was seen of one float tensor.

    Attributes:
        minimum: over all samples.
        maximum: over all samples.
        sample: float32 [K], values drawn at random from all samples; about 16384 of them, at most twice as many.
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


@dataclass(frozen=True)
class PartStatistics:
    """What was seen of the model on some of the samples, in constant memory; see :func:`merge_parts`.

    Attributes:
        first: place of the first of these samples among all.
        samples: how many were run.
        total: how many there are in all.
        collected: by tensor name, graph inputs included.
        outputs: names of the model's outputs.
    """

    first: int
    samples: int
    total: int
    collected: dict[str, _Collector]
    outputs: tuple[str, ...]


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
    return merge_parts([collect_part(model, feeds, seed=seed, threads=threads, progress=progress)])


def collect_part(
    model: ir.Model,
    feeds: Sequence[Feed],
    *,
    first: int = 0,
    total: int | None = None,
    seed: int = 0,
    threads: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PartStatistics:
    """Run the canonical model on some of the samples, and collect statistics of every computed float tensor.

    Args:
        model: canonical float model.
        feeds: these samples.
        first: place of the first of them among all.
        total: how many there are in all; by default these are all.
        seed: of the random choice of values kept. What is drawn of a sample depends on its place only, not on the part it is in.
        threads: of the runtime; 0 leaves the choice to it.
        progress: called with (samples done, samples of this part).
    """
    total = len(feeds) if total is None else total
    fed = [str(v.name) for v in model.graph.inputs if is_float(v)]
    computed = _float_tensors(model)
    order = {name: i for i, name in enumerate(fed + computed)}
    room = sum(_kept(first + number, total) for number in range(len(feeds)))
    collected: dict[str, _Collector] = {}

    def collect(number: int, values: Mapping[str, npt.NDArray[Any]]) -> None:
        collected.update({name: _Collector(value.shape, room) for name, value in values.items() if name not in collected})

        def add(name: str) -> None:
            generator = np.random.default_rng((seed, order[name], first + number))
            collected[name].add(values[name], generator, _kept(first + number, total))

        for _ in in_order(add, values, worker_count(threads)):  # each tensor has its collector
            pass

    for number, feed in enumerate(feeds if fed else ()):
        collect(number, {name: feed[name] for name in fed})
    groups = _groups(model, computed, feeds[0])  # none where nothing is computed in float
    for place, group in enumerate(groups):
        # one session after the other: each keeps the memory of its largest run
        session = open_session(_expose(model, group), threads=threads)
        for number, feed in enumerate(feeds):
            collect(number, run_session(session, feed, group))
            progress((place * len(feeds) + number + 1) // len(groups), len(feeds))
    ordered = {name: collected[name] for name in order}
    return PartStatistics(first, len(feeds), total, ordered, tuple(str(v.name) for v in model.graph.outputs))


def merge_parts(parts: Sequence[PartStatistics]) -> CalibrationStatistics:
    """Put together what was seen on parts of the samples: to the bit what one run over all of them sees, however they were parted.

    Args:
        parts: of the same model, in any order; together all samples, each once.

    Raises:
        ValueError: samples are missing, or in two parts.
        CalibrationError: not one number of an output is finite.
    """
    ordered = sorted(parts, key=lambda part: part.first)
    total, reached = ordered[0].total, 0
    for part in ordered:
        if part.first != reached or part.total != total:
            raise ValueError(f"a part begins at sample {part.first} of {part.total}, the one before ends at {reached} of {total}")
        reached += part.samples
    if reached != total:
        raise ValueError(f"the parts hold {reached} of {total} samples")
    collected = {name: _joined([part.collected[name] for part in ordered]) for name in ordered[0].collected}
    for name in ordered[0].outputs:
        if name in collected and not collected[name].finite and not collected[name].any_finite:
            raise CalibrationError(
                f"output '{name}' is not finite in the float model, not one number of it",
                where=f"{total} calibration samples",
                hint="check --preprocess and the samples",
            )
    return CalibrationStatistics({name: collector.stats() for name, collector in collected.items()}, total)


def _kept(place: int, total: int) -> int:
    """How many values are kept of the sample at that place; of very many samples only one, of some of them."""
    if total <= _VALUES_KEPT:
        return -(-_VALUES_KEPT // total)
    return (place + 1) * _VALUES_KEPT // total - place * _VALUES_KEPT // total


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
    """Running range and sample of one tensor.

    Args:
        shape: of the tensor at the first sample.
        room: values that will be kept at most.
    """

    def __init__(self, shape: tuple[int, ...], room: int) -> None:
        self.shape = shape
        self.minimum, self.maximum, self.nearest = np.inf, -np.inf, np.inf
        self.values, self.filled = np.empty(room, np.float32), 0
        self.steady = self.finite = True
        self.any_finite = False

    def add(self, value: npt.NDArray[Any], generator: np.random.Generator, keep: int) -> None:
        """Take in what the tensor was on one sample, and keep so many of its values."""
        self.steady &= value.shape == self.shape
        flat = value.reshape(-1)
        if not flat.size:
            return
        reached = _extremes(flat)
        if not (math.isfinite(reached[0]) and math.isfinite(reached[1])):
            self.finite = False
            flat = flat[np.isfinite(flat)]
            if not flat.size:
                return
            reached = _extremes(flat)
        self.any_finite = True
        self._reach(*reached)
        self._keep(flat if flat.size <= keep else flat[generator.integers(0, flat.size, keep)])

    def add_later(self, other: _Collector) -> None:
        """Take in what another one has seen on later samples."""
        self.steady &= other.steady and other.shape == self.shape
        self.finite &= other.finite
        self.any_finite |= other.any_finite
        self._reach(other.minimum, other.maximum, other.nearest)
        self._keep(other.values[: other.filled])

    def _reach(self, minimum: float, maximum: float, nearest: float) -> None:
        self.minimum, self.maximum = min(self.minimum, minimum), max(self.maximum, maximum)
        self.nearest = min(self.nearest, nearest)

    def _keep(self, values: npt.NDArray[Any]) -> None:
        self.values[self.filled : self.filled + values.size] = values
        self.filled += values.size

    def stats(self) -> TensorStats:
        """What was seen so far."""
        low, high = (self.minimum, self.maximum) if self.any_finite else (0.0, 0.0)
        # of very many samples none may have been kept that had a finite number
        sample = self.values[: self.filled].copy() if self.filled else np.unique(np.asarray([low, high], np.float32))
        nearest = self.nearest if np.isfinite(self.nearest) else 0.0
        return TensorStats(low, high, sample, tuple(self.shape), self.steady, self._flaw(), nearest)

    def _flaw(self) -> str:
        if not self.finite:
            return "not all of its numbers are finite"
        return "" if self.any_finite else "it has no elements"


def _extremes(values: npt.NDArray[Any]) -> tuple[float, float, float]:
    """Least and greatest number, and the smallest magnitude that is not zero if all are finite; in blocks, each read from memory once."""
    blocks = [values[start : start + _BLOCK] for start in range(0, values.size, _BLOCK)]
    found = [(block.min(), block.max(), nearest_to_zero(block)) for block in blocks]
    low, high, nearest = (np.asarray(column) for column in zip(*found, strict=True))
    return float(low.min()), float(high.max()), float(nearest.min())


def nearest_to_zero(values: npt.NDArray[Any]) -> float:
    """The smallest magnitude of finite numbers that are not zero; infinity if all are."""
    if values.dtype != np.float32:
        sizes = np.abs(values)
        return float(sizes.min(where=sizes > 0, initial=np.inf))
    # without their sign, bits are in the order of magnitudes; one less, and zero comes last. A minimum with a mask takes five times as long
    bits = values.view(np.uint32) << np.uint32(1)
    bits -= np.uint32(1)
    least = int(bits.min()) + 1
    return float(np.uint32(least >> 1).view(np.float32)) if least <= np.iinfo(np.uint32).max else math.inf


def _joined(collectors: Sequence[_Collector]) -> _Collector:
    joined = _Collector(collectors[0].shape, sum(collector.filled for collector in collectors))
    for collector in collectors:
        joined.add_later(collector)
    return joined


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
