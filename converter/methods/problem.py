"""What a method is asked; it answers with a :class:`converter.plan.choice.Choice`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from converter.methods.names import DEFAULT_OBSERVER
from converter.methods.search_parts import SearchParts
from converter.plan.choice import Choice, Constant
from converter.quantization.parameters import affine_params, symmetric_params
from converter.torch_backend.workers import in_order
from converter.transforms.equalization.site import EqualizationSite
from converter.transforms.nonuniform.quantizer import QuantizerSite
from converter.transforms.sigmoids.piecewise_linear import SigmoidSite
from converter.transforms.transform import Transform

if TYPE_CHECKING:
    from converter.calibration.observer import TensorStats
    from converter.sensitivity.context import AnalysisContext

__all__ = ["Problem", "choose_by_ranges"]


@dataclass(frozen=True)
class Problem:
    """Tensors and constants that need grids.

    Attributes:
        tensors: observations by tensor name.
        constants: by (operator name, input index).
        bits: of each tensor's grid, 4 to 8, by tensor name.
        signed: whether activations have signed codes.
        sites: where a per-channel scale, or shift, can be moved into the constants around a tensor, by that tensor's name.
        quantizer_sites: where a grid can stand that is not uniform, by the name of the tensor that is read.
        sigmoid_sites: sigmoids for which a piecewise-linear one could stand, by operator name.
        transforms: what has been done to the network already.
        first_choice: what the method answered before the last of them; None where it did not.
        context: the network as functions, for methods that look at layers; None for others, or where it cannot be had.
        parts: which parts of the method's search are wanted.
        observer: how a method that leaves the choice sees ranges, one of :data:`converter.methods.names.OBSERVERS`.
        progress: called with (steps done, steps in all), within a part of the search.
        begin: called with the name of a part as it begins.
    """

    tensors: dict[str, TensorStats]
    constants: dict[tuple[str, int], Constant]
    bits: dict[str, int]
    signed: bool
    sites: dict[str, EqualizationSite] = field(default_factory=dict)
    quantizer_sites: dict[str, QuantizerSite] = field(default_factory=dict)
    sigmoid_sites: dict[str, SigmoidSite] = field(default_factory=dict)
    transforms: tuple[Transform, ...] = ()
    first_choice: Choice | None = None
    context: AnalysisContext | None = None
    parts: SearchParts = field(default_factory=SearchParts)
    observer: str = DEFAULT_OBSERVER
    progress: Callable[[int, int], None] = lambda done, total: None
    begin: Callable[[str], None] = lambda name: None


def choose_by_ranges(
    problem: Problem,
    activation_range: Callable[[TensorStats, int], tuple[float, float]],
    magnitudes: Callable[[npt.NDArray[np.float32], int], npt.NDArray[np.float64]],
) -> Choice:
    """Answer a problem with one rule for activations and one for weights.

    Args:
        problem: what is asked.
        activation_range: (observations, bits) to the range an asymmetric per-tensor grid shall cover.
        magnitudes: (float32 [channels, values], bits) to what a symmetric grid shall reach, float64 [channels].
    """
    workers = 1 if problem.context is None else problem.context.workers
    ranges = in_order(lambda name: activation_range(problem.tensors[name], problem.bits[name]), problem.tensors, workers)
    tensors = {
        name: affine_params(*ends, bits=problem.bits[name], signed=problem.signed)
        for name, ends in zip(problem.tensors, ranges, strict=True)
    }
    constants = {}
    for key, constant in problem.constants.items():
        if constant.signed is not None:
            array = constant.array
            constants[key] = affine_params(float(array.min()), float(array.max()), bits=constant.bits, signed=constant.signed)
        else:
            constants[key] = symmetric_params(magnitudes(constant.rows(), constant.bits), bits=constant.bits, axis=constant.axis)
    return Choice(tensors, constants)
