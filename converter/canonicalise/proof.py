"""The proof of a rewrite: the outputs of two models on the same samples, compared.

The runtime rounds, and rounds differently when it fuses operators. How much that changes the outputs of the original is
its noise; an output that is small beside it (probabilities of classes that are nowhere in the picture) may differ by a
few times as much without any rewrite being wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from converter.errors import ModelError
from converter.runtime import Feed, open_session, run_session

__all__ = ["Reference", "difference", "measure_noise", "run_reference"]

Array = npt.NDArray[Any]

_NOISE_MARGIN = 4.0


@dataclass(frozen=True)
class Reference:
    """What the original model computes.

    Attributes:
        model: the original.
        feeds: the samples.
        outputs: by name, for each sample.
        noise: by name, for each sample: largest difference that the runtime's own fusions make.
    """

    model: onnx.ModelProto
    feeds: Sequence[Feed]
    outputs: tuple[dict[str, Array], ...]
    noise: tuple[dict[str, float], ...]


def run_reference(model: onnx.ModelProto, feeds: Sequence[Feed]) -> Reference:
    """Run the original; its noise counts as zero until it is measured.

    Raises:
        ModelError: the runtime does not run it.
    """
    outputs = _run(model, feeds)
    return Reference(model, feeds, outputs, tuple(dict.fromkeys(o, 0.0) for o in outputs))


def measure_noise(reference: Reference) -> Reference:
    """Run the original without the runtime's fusions, and note what that changes."""
    plain = _run(reference.model, reference.feeds, optimise=False)
    pairs = zip(plain, reference.outputs, strict=True)
    return replace(reference, noise=tuple({name: _largest_gap(a[name], b[name]) for name in b} for a, b in pairs))


def difference(model: onnx.ModelProto, reference: Reference) -> float:
    """Largest difference over all outputs and samples; infinite if the runtime does not even run the model.

    Floats: relative to the largest number of the output, beyond a few times the noise. Integers: the share that differs.
    """
    try:
        got = _run(model, reference.feeds)
    except ModelError:
        return float("inf")
    worst = 0.0
    for values, expected, noise in zip(got, reference.outputs, reference.noise, strict=True):
        for name, right in expected.items():
            worst = max(worst, _relative(values.get(name), right, noise[name]))
    return worst


def _run(model: onnx.ModelProto, feeds: Sequence[Feed], *, optimise: bool = True) -> tuple[dict[str, Array], ...]:
    session = open_session(model, optimise=optimise)
    return tuple(run_session(session, feed) for feed in feeds)


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
