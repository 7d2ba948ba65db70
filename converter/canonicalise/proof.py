"""The proof of a rewrite: the outputs of two models on the same samples, compared.

The runtime rounds, and rounds differently when it fuses operators. How much that changes the outputs of the original is
its noise; an output that is small beside it (probabilities of classes that are nowhere in the picture) may differ by a
few times as much without any rewrite being wrong.

Calibration samples show no zero rows, so the outputs are also compared on edges: the first sample with its float inputs
set to zero, negated, and scaled up and down. An edge is far from what the model was made for: large inputs can make a
network chaotic, ties decide integers. There only gross differences count, beyond what rounding alone does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from converter.errors import ModelError
from converter.runtime.session import Feed, open_session, run_session

__all__ = ["EDGE_TOLERANCE", "TOLERANCE", "Difference", "Edge", "Reference", "difference", "measure_noise", "run_reference"]

Array = npt.NDArray[Any]

TOLERANCE = 1e-4
"""Largest difference to the original on a sample, relative to the largest output."""

EDGE_TOLERANCE = 1e-2
"""The same on an edge: a hundred times as much, since factors of a thousand bring out rounding; a lost guard gives far more."""

_NOISE_MARGIN = 4.0
_NUDGE = 2.0**-20
"""Relative change of an input, some eight float32 steps, that no output should be judged finer than."""

_EDGES: Mapping[str, Callable[[Array], Array]] = {
    "inputs of zero": np.zeros_like,
    "negated inputs": np.negative,
    "inputs a thousand times as large": lambda x: x * x.dtype.type(1e3),
    "inputs a million times smaller": lambda x: x * x.dtype.type(1e-6),
}


@dataclass(frozen=True)
class Edge:
    """One input made from a sample, and what the original computes on it.

    Attributes:
        name: what was done to the sample.
        feed: the inputs.
        outputs: by name.
        noise: by name: largest difference that the runtime's own fusions and a nudge of the inputs make; infinite where they
            turn numbers into none.
    """

    name: str
    feed: Feed
    outputs: dict[str, Array]
    noise: dict[str, float]


@dataclass(frozen=True)
class Reference:
    """What the original model computes.

    Attributes:
        model: the original.
        feeds: the samples.
        outputs: by name, for each sample.
        noise: by name, for each sample: largest difference that the runtime's own fusions make.
        edges: those on which the original runs.
    """

    model: onnx.ModelProto
    feeds: Sequence[Feed]
    outputs: tuple[dict[str, Array], ...]
    noise: tuple[dict[str, float], ...]
    edges: tuple[Edge, ...] = ()


@dataclass(frozen=True)
class Difference:
    """How far a model is from the original.

    Attributes:
        error: the largest over all outputs and samples, relative; infinite if the runtime does not even run the model.
        edge: the name of the edge with the largest difference; empty if there is none.
        edge_error: that difference.
    """

    error: float
    edge: str = ""
    edge_error: float = 0.0

    @property
    def small(self) -> bool:
        """True if it is none that matters."""
        return self.error <= TOLERANCE and self.edge_error <= EDGE_TOLERANCE

    @property
    def decisive(self) -> tuple[float, str]:
        """The error that says whether it is small, and the edge where it is; the edge is empty for samples."""
        return (self.edge_error, self.edge) if self.error <= TOLERANCE and not self.small else (self.error, "")


def run_reference(model: onnx.ModelProto, feeds: Sequence[Feed]) -> Reference:
    """Run the original; its noise counts as zero until it is measured.

    Raises:
        ModelError: the runtime does not run it on a sample.
    """
    session = open_session(model)
    outputs = tuple(run_session(session, feed) for feed in feeds)
    edges = tuple(_edges(session, feeds[0]))
    return Reference(model, feeds, outputs, tuple(dict.fromkeys(o, 0.0) for o in outputs), edges)


def measure_noise(reference: Reference) -> Reference:
    """Run the original without the runtime's fusions, on edges also with nudged inputs, and note what that changes."""
    plain, fused = open_session(reference.model, optimise=False), open_session(reference.model)
    pairs = zip((run_session(plain, feed) for feed in reference.feeds), reference.outputs, strict=True)
    noise = tuple({name: _largest_gap(a[name], b[name]) for name in b} for a, b in pairs)
    return replace(reference, noise=noise, edges=tuple(_measured(edge, plain, fused) for edge in reference.edges))


def _measured(edge: Edge, plain: Any, fused: Any) -> Edge:
    try:
        runs = (run_session(plain, edge.feed), run_session(fused, _nudged(edge.feed)))
    except ModelError:
        return replace(edge, noise=dict.fromkeys(edge.outputs, float("inf")))
    return replace(edge, noise={n: max(_finite_gap(run[n], right) for run in runs) for n, right in edge.outputs.items()})


def difference(model: onnx.ModelProto, reference: Reference) -> Difference:
    """How far a model is from the original.

    On samples, floats count relative to the largest number of the output, beyond a few times the noise; of integers the
    share that differs counts. On edges only floats count, and only where the original is finite.
    """
    try:
        session = open_session(model)
        got = [run_session(session, feed) for feed in reference.feeds]
    except ModelError:
        return Difference(float("inf"))
    worst = 0.0
    for values, expected, noise in zip(got, reference.outputs, reference.noise, strict=True):
        for name, right in expected.items():
            worst = max(worst, _relative(values.get(name), right, noise[name]))
    errors = {edge.name: _edge_error(session, edge) for edge in reference.edges}
    edge = max(errors, key=lambda name: errors[name], default="")
    return Difference(worst, edge, errors[edge]) if edge and errors[edge] else Difference(worst)


def _edges(session: Any, sample: Feed) -> list[Edge]:
    edges = []
    for name, change in _EDGES.items():
        feed = {n: _changed(x, change) if np.issubdtype(x.dtype, np.floating) else x for n, x in sample.items()}
        try:
            outputs = run_session(session, feed)
        except ModelError:
            continue  # what the original does not run on says nothing about a rewrite
        edges.append(Edge(name, feed, outputs, dict.fromkeys(outputs, 0.0)))
    return edges


def _changed(x: Array, change: Callable[[Array], Array]) -> Array:
    """A changed input; infinities, as masks have them, stay."""
    with np.errstate(over="ignore", invalid="ignore"):
        result: Array = np.where(np.isfinite(x), change(x), x)
    return result


def _nudged(feed: Feed) -> Feed:
    """Every float up or down by the smallest amount that matters, in turn."""

    def nudge(x: Array) -> Array:
        signs = np.where(np.arange(x.size) % 2, 1.0, -1.0).reshape(x.shape)
        return (x * (1 + _NUDGE * signs)).astype(x.dtype)

    return {n: _changed(x, nudge) if np.issubdtype(x.dtype, np.floating) else x for n, x in feed.items()}


def _edge_error(session: Any, edge: Edge) -> float:
    try:
        got = run_session(session, edge.feed)
    except ModelError:
        return float("inf")
    worst = 0.0
    for name, right in edge.outputs.items():
        gap, noise = _finite_gap(got.get(name), right), edge.noise[name]
        largest = float(np.abs(right[np.isfinite(right)]).max(initial=0.0)) if np.issubdtype(right.dtype, np.floating) else 0.0
        if np.isfinite(noise):
            worst = max(worst, max(0.0, gap - _NOISE_MARGIN * noise) / max(largest, 1e-30))
    return worst


def _finite_gap(value: Array | None, expected: Array) -> float:
    """Largest difference of floats where the original is finite; infinite if a number is none any more.

    Zero for integers, and for shapes that depend on the data: ties decide both.
    """
    if not np.issubdtype(expected.dtype, np.floating) or value is None or value.shape != expected.shape:
        return 0.0
    finite = np.isfinite(expected)
    with np.errstate(over="ignore", invalid="ignore"):
        gap = float(np.abs(value[finite].astype(np.float64) - expected[finite]).max(initial=0.0))
    return gap if np.isfinite(gap) else float("inf")


def _relative(value: Array | None, expected: Array, noise: float) -> float:
    if value is None or value.shape != expected.shape or value.dtype != expected.dtype:
        return float("inf")
    if not np.issubdtype(value.dtype, np.floating):
        return float(np.mean(value != expected)) if value.size else 0.0
    largest = float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0))
    gap = max(0.0, _largest_gap(value, expected) - _NOISE_MARGIN * noise)
    return gap / max(largest, 1e-30)


def _largest_gap(value: Array, expected: Array) -> float:
    """Largest difference; infinite if numbers and others (infinities, NaN) do not lie at the same places."""
    if not np.issubdtype(expected.dtype, np.floating):
        return 0.0
    finite = np.isfinite(expected)
    if not np.array_equal(value[~finite], expected[~finite], equal_nan=True):
        return float("inf")
    gap = float(np.abs(value[finite] - expected[finite]).max(initial=0.0))
    return gap if np.isfinite(gap) else float("inf")
