"""Let a method search: its transforms one after the other, its choice, and what it makes of sigmoids."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from converter.calibration.observer import CalibrationStatistics, output_values
from converter.forms.form import SupportedForm
from converter.methods.names import DEFAULT_OBSERVER
from converter.methods.problem import Problem
from converter.options import Options
from converter.partition.sigmoid_forms import piecewise_linear_forms
from converter.plan.choice import Choice
from converter.planning.average_weights import with_average_scales
from converter.planning.problem import Offers, placement_of, problem_of, shapes_of
from converter.planning.registry import METHODS
from converter.progress import SILENT, Progress
from converter.runtime.session import Feed
from converter.sensitivity.context import ReconstructionBlock
from converter.sensitivity.output_loss import OutputLoss, output_losses
from converter.system.freed_memory import release_freed_memory
from converter.targets import Target
from converter.torch_backend.workers import one_thread_each
from converter.transforms.normalization.plain import find_plain
from converter.transforms.normalization.transform import PlainNormalizations
from converter.transforms.sigmoids.transform import ConstantGates
from converter.transforms.softmax.late import find_late
from converter.transforms.softmax.transform import LateSoftmaxes
from converter.transforms.transform import GraphFacts, Transform

__all__ = ["Look", "Searched", "find_losses", "search"]

Look = Callable[[ir.Model], CalibrationStatistics]

_FOR_LOSSES = 8
"""Samples that tell what the outputs are."""


@dataclass(frozen=True)
class Searched:
    """What a method found for a model: all that a plan follows from but the choice of what runs in integer.

    Attributes:
        model: the canonical model with the transforms applied.
        seen: its observations.
        offers: what could run in integer there.
        choice: quantization parameters of all tensors and constants, and what they add to the loss.
        approximated: for some sigmoids, a second offer that costs less.
        problem: what the method was asked.
        transforms: that were applied.
        target: kernels and costs.
        options: as given.
        source: the canonical model without the transforms.
    """

    model: ir.Model
    seen: CalibrationStatistics
    offers: Offers
    choice: Choice
    approximated: Mapping[str, SupportedForm]
    problem: Problem
    transforms: tuple[Transform, ...]
    target: Target
    options: Options
    source: ir.Model


def search(
    model: ir.Model,
    seen: CalibrationStatistics,
    look: Look,
    feeds: Sequence[Feed],
    reconstruction_blocks: Sequence[ReconstructionBlock],
    target: Target,
    options: Options,
    excluded: frozenset[str],
    *,
    losses: Mapping[str, OutputLoss] | None = None,
    progress: Progress = SILENT,
) -> Searched:
    """Let the method of the options choose quantization parameters, of which plans for any number of placements follow.

    Args:
        model: canonical float model.
        seen: its observations.
        look: observes another model on the same samples.
        feeds: calibration samples.
        reconstruction_blocks: bridge blocks of the model.
        target: kernels and costs.
        options: method, widths, seed.
        excluded: names of nodes that stay float.
        losses: of the float outputs; found here if None.
        progress: who is watching.
    """
    begin = _announcer(METHODS[options.method].shares, progress)
    known = find_losses(model, feeds, options) if losses is None else losses

    def asked(model: ir.Model, seen: CalibrationStatistics, proposals: int) -> tuple[Problem, Offers]:
        problem, offers = problem_of(model, seen, feeds, reconstruction_blocks, target, options, excluded, known, equalizable=proposals > 0)
        observer = options.observer or DEFAULT_OBSERVER
        return replace(problem, parts=options.parts, observer=observer, progress=progress.step, begin=begin), offers

    def facts(seen: CalibrationStatistics) -> GraphFacts:
        return GraphFacts(shapes_of(seen), excluded)

    begin("analysis")
    with one_thread_each():
        return _searched(asked, facts, model, seen, look, target, options)


def find_losses(model: ir.Model, feeds: Sequence[Feed], options: Options) -> dict[str, OutputLoss]:
    """By which loss each float output of a canonical model counts.

    Raises:
        converter.errors.UsageError: the options name an output that there is not.
    """
    return output_losses(model, output_values(model, feeds[:_FOR_LOSSES], threads=options.threads), options.losses)


def _announcer(shares: Mapping[str, float], progress: Progress) -> Callable[[str], None]:
    """What tells a watcher that a part of the method begins, if its share of the time is known."""
    behind = dict(zip(shares, itertools.accumulate(shares.values(), initial=0.0), strict=False))

    def begin(name: str) -> None:
        if name in shares:
            progress.part(name, behind[name], behind[name] + shares[name])

    return begin


def _searched(
    asked: Callable[[ir.Model, CalibrationStatistics, int], tuple[Problem, Offers]],
    facts: Callable[[CalibrationStatistics], GraphFacts],
    model: ir.Model,
    seen: CalibrationStatistics,
    look: Look,
    target: Target,
    options: Options,
) -> Searched:
    method, applied, source = METHODS[options.method], list[Transform](), model

    def transformed(transform: Transform, model: ir.Model, seen: CalibrationStatistics) -> tuple[ir.Model, CalibrationStatistics]:
        applied.append(transform)
        changed = transform.apply(model, facts(seen))
        found = look(changed)
        release_freed_memory()
        return changed, found

    plain = () if method.keeps_normalizations else find_plain(model, facts(seen), target)
    if plain:
        model, seen = transformed(PlainNormalizations(plain), model, seen)
    ranges = {name: (stats.minimum, stats.maximum) for name, stats in seen.tensors.items()}
    late = () if method.keeps_softmaxes else find_late(model, facts(seen), ranges, target)
    if late:
        model, seen = transformed(LateSoftmaxes(late), model, seen)
    left = len(method.transforms)  # proposals
    problem, offers = asked(model, seen, left)
    for propose in method.transforms:
        transform, first_choice = propose(problem)
        left -= 1
        if transform is not None:
            model, seen = transformed(transform, model, seen)
            problem, offers = asked(model, seen, left)
        problem = replace(problem, transforms=tuple(applied), first_choice=first_choice)
    problem = replace(problem, transforms=tuple(applied))
    choice = with_average_scales(model, method.choose(problem))
    release_freed_memory()  # that of the samples which the choice was made by
    # lines buy speed with accuracy, which nobody asks for who wants everything in integer
    found = method.sigmoids(problem, choice) if method.sigmoids is not None and not placement_of(options).everything else {}
    constant_gates = {name: approximation.shape.offset for name, approximation in found.items() if approximation.shape.is_constant}
    if constant_gates:
        model, seen = transformed(ConstantGates(constant_gates), model, seen)
        problem, offers = asked(model, seen, 0)
    changes = {name: approximation.change for name, approximation in found.items()}
    choice = replace(choice, weight_sensitivity={**choice.weight_sensitivity, **changes})
    shapes = {name: approximation.shape for name, approximation in found.items()}
    approximated = piecewise_linear_forms(model, offers, shapes, shapes_of(seen), target)
    return Searched(model, seen, offers, choice, approximated, problem, tuple(applied), target, options, source)
