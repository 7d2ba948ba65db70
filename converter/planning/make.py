"""Plan: ask a method for equalizations, grids and refined constants, and turn the answer into a plan."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import onnx_ir as ir

from converter.calibration.observer import CalibrationStatistics, output_values
from converter.forms.form import SupportedForm, UnsupportedForm
from converter.methods.names import DEFAULT_OBSERVER
from converter.methods.problem import Problem
from converter.methods.ranges import minmax
from converter.options import Options
from converter.partition.assign import place, placer, write_assignment
from converter.partition.bit_widths import tensor_bits
from converter.partition.integer_forms import offer
from converter.partition.policy import FULL, Placement, Placer, parse_placement
from converter.partition.sigmoid_forms import find_sigmoid_sites, piecewise_linear_forms
from converter.plan.choice import Choice
from converter.plan.records import Plan
from converter.planning.average_weights import with_average_codes, with_average_scales
from converter.planning.registry import METHODS
from converter.planning.stored_weights import with_stored_weights
from converter.planning.validate import adopt_plan, apply_transforms, check_plan, with_forms
from converter.progress import SILENT, Progress
from converter.runtime.session import Feed
from converter.sensitivity.context import AnalysisContext, ReconstructionBlock, context_of, context_of_layers, quantized_edges_of
from converter.sensitivity.curvature import obstacle_to_gradients
from converter.sensitivity.output_loss import OutputLoss, describe_losses, output_losses
from converter.targets import Target
from converter.torch_backend.network import sized
from converter.torch_backend.workers import one_thread_each, worker_count
from converter.transforms.equalization.find import find_sites
from converter.transforms.equalization.site import EqualizationSite
from converter.transforms.nonuniform.find import find_quantizer_sites
from converter.transforms.normalization.plain import find_plain
from converter.transforms.normalization.transform import PlainNormalizations
from converter.transforms.sigmoids.transform import ConstantGates
from converter.transforms.transform import GraphFacts, Transform

__all__ = ["Planned", "Searched", "adopted", "find_losses", "float_plan", "make_plan", "placer_of", "plan_of", "search"]

Look = Callable[[ir.Model], CalibrationStatistics]
Offers = dict[str, SupportedForm | UnsupportedForm]

_FOR_LOSSES = 8
"""Samples that tell what the outputs are."""

_MOST_STUDIED = 64
"""Samples that methods run themselves; more give better ranges, which have been observed before, and hardly better gradients."""

_FEWEST_STUDIED = 8
_BYTES_STUDIED = 1 << 28


@dataclass(frozen=True)
class Planned:
    """A plan and what it is for.

    Attributes:
        model: the canonical model with the plan's transforms applied.
        plan: assigned for it.
        offers: what could run in integer there.
        loss: by which candidates were judged; empty where none was needed.
        tensor_sensitivity: what the rounding of tensors adds to the loss, by their names, where the method estimated it.
        operator_sensitivity: the same of the constants of operators, by the operators' names.
    """

    model: ir.Model
    plan: Plan
    offers: Offers
    loss: str = ""
    tensor_sensitivity: Mapping[str, float] = field(default_factory=dict)
    operator_sensitivity: Mapping[str, float] = field(default_factory=dict)


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


def make_plan(
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
) -> Planned:
    """Let the method of the options make a plan; arguments as for :func:`search`."""
    found = search(model, seen, look, feeds, reconstruction_blocks, target, options, excluded, losses=losses, progress=progress)
    found.problem.begin("placement")
    return plan_of(found, _placed(found.model, found.offers, found.choice, found.seen, target, options, _name(options), found.approximated))


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

    def asked(model: ir.Model, seen: CalibrationStatistics) -> tuple[Problem, Offers]:
        problem, offers = _problem(model, seen, feeds, reconstruction_blocks, target, options, excluded, known)
        observer = options.observer or DEFAULT_OBSERVER
        return replace(problem, parts=options.parts, observer=observer, progress=progress.step, begin=begin), offers

    def facts(seen: CalibrationStatistics) -> GraphFacts:
        return GraphFacts(_shapes(seen), excluded)

    begin("analysis")
    with one_thread_each():
        return _searched(asked, facts, model, seen, look, target, options)


def _announcer(shares: Mapping[str, float], progress: Progress) -> Callable[[str], None]:
    """What tells a watcher that a part of the method begins, if its share of the time is known."""
    behind = dict(zip(shares, itertools.accumulate(shares.values(), initial=0.0), strict=False))

    def begin(name: str) -> None:
        if name in shares:
            progress.part(name, behind[name], behind[name] + shares[name])

    return begin


def _searched(
    asked: Callable[[ir.Model, CalibrationStatistics], tuple[Problem, Offers]],
    facts: Callable[[CalibrationStatistics], GraphFacts],
    model: ir.Model,
    seen: CalibrationStatistics,
    look: Look,
    target: Target,
    options: Options,
) -> Searched:
    method, applied, source = METHODS[options.method], list[Transform](), model
    plain = () if method.keeps_normalizations else find_plain(model, facts(seen), target)
    if plain:
        applied.append(PlainNormalizations(plain))
        model = applied[-1].apply(model, facts(seen))
        seen = look(model)
    problem, offers = asked(model, seen)
    for propose in method.transforms:
        transform, first_choice = propose(problem)
        if transform is not None:
            applied.append(transform)
            model = transform.apply(model, facts(seen))
            seen = look(model)
            problem, offers = asked(model, seen)
        problem = replace(problem, transforms=tuple(applied), first_choice=first_choice)
    problem = replace(problem, transforms=tuple(applied))
    choice = with_average_scales(model, method.choose(problem))
    # lines buy speed with accuracy, which nobody asks for who wants everything in integer
    approximations = method.sigmoids(problem, choice) if method.sigmoids is not None and not _placement(options).everything else {}
    constant_gates = {name: approximation.shape.offset for name, approximation in approximations.items() if approximation.shape.is_constant}
    if constant_gates:
        applied.append(ConstantGates(constant_gates))
        model = applied[-1].apply(model, facts(seen))
        seen = look(model)
        problem, offers = asked(model, seen)
    choice = replace(
        choice,
        weight_sensitivity={**choice.weight_sensitivity, **{name: approximation.change for name, approximation in approximations.items()}},
    )
    approximated = piecewise_linear_forms(
        model, offers, {name: approximation.shape for name, approximation in approximations.items()}, _shapes(seen), target
    )
    return Searched(model, seen, offers, choice, approximated, problem, tuple(applied), target, options, source)


def placer_of(found: Searched) -> Placer:
    """What gives placements of what a method found, for any price of accuracy."""
    return placer(
        found.model,
        found.offers,
        found.choice,
        found.seen,
        found.target,
        method=_name(found.options),
        bits=found.options.widths,
        cheaper=found.approximated,
    )


def float_plan(found: Searched) -> Plan:
    """The placement of all operators in float."""
    empty = Plan(_name(found.options), found.options.widths, found.target.name, {}, {})
    return write_assignment(found.model, found.offers, found.choice, frozenset(), empty)


def plan_of(found: Searched, plan: Plan) -> Planned:
    """Complete a placement: transforms, and constants refined for what runs in integer.

    Args:
        found: what it is a placement of.
        plan: as placed.
    """
    offers = found.offers | {name: entry for name, entry in found.approximated.items() if plan.ops[name].coefficients}
    plan = replace(plan, transforms=found.transforms, io=found.options.io)
    refine, problem = METHODS[found.options.method].refine, found.problem
    if refine is not None and problem.context is not None:
        # now it is known which operators run in integer, and so who reads what through a grid
        context = replace(problem.context, quantized_edges=quantized_edges_of(found.model, plan))
        with one_thread_each():
            plan = refine(replace(problem, context=context), plan)
    plan = with_average_codes(found.model, plan)
    if found.options.prefer == "size":
        plan = with_stored_weights(found.model, plan)
    choice = found.choice
    return Planned(found.model, plan, offers, _judged_by(problem, choice), choice.activation_sensitivity, choice.weight_sensitivity)


def _judged_by(problem: Problem, choice: Choice) -> str:
    """By which loss, for the report."""
    if problem.context is None:
        return ""
    blind, judged = choice.blind
    said = [problem.context.loss] if problem.context.loss else []
    if blind and problem.context.values is None:
        said.append(f"{blind} of {judged} layers by the error of their own outputs, as no gradient reaches them")
    if choice.given_up:
        said.append("ranges of MSE, as those that gradients chose changed the outputs far more")
    return "; ".join(said)


def find_losses(model: ir.Model, feeds: Sequence[Feed], options: Options) -> dict[str, OutputLoss]:
    """By which loss each float output of a canonical model counts.

    Raises:
        converter.errors.UsageError: the options name an output that there is not.
    """
    return output_losses(model, output_values(model, feeds[:_FOR_LOSSES], threads=options.threads), options.losses)


def adopted(
    given: Plan,
    model: ir.Model,
    seen: CalibrationStatistics,
    look: Look,
    target: Target,
    options: Options,
    excluded: frozenset[str],
    where: Path,
) -> Planned:
    """Use a plan that was read from a file, `where`.

    Raises:
        converter.errors.UsageError: it does not fit the model or the target.
    """
    plan = adopt_plan(given, excluded)
    changed = apply_transforms(plan, model, GraphFacts(_shapes(seen), excluded), where)
    offers = _offers(changed, look(changed) if changed is not model else seen, target, options, excluded)
    plan = with_forms(plan, changed)
    check_plan(plan, changed, offers, target, where)
    return Planned(changed, plan, offers)


def _offers(model: ir.Model, seen: CalibrationStatistics, target: Target, options: Options, excluded: frozenset[str]) -> Offers:
    widths = options.widths
    return offer(model, seen, target, activation_bits=widths.activations, weight_bits=widths.weights, excluded=excluded)


def _problem(
    model: ir.Model,
    seen: CalibrationStatistics,
    feeds: Sequence[Feed],
    reconstruction_blocks: Sequence[ReconstructionBlock],
    target: Target,
    options: Options,
    excluded: frozenset[str],
    losses: Mapping[str, OutputLoss],
) -> tuple[Problem, Offers]:
    offers = _offers(model, seen, target, options, excluded)
    constants = {(n, i): c for n, o in offers.items() if isinstance(o, SupportedForm) for i, c in o.constants.items()}
    bits = tensor_bits(model, offers, options.widths.activations)
    sites, quantizer_sites = _exact_sites(model, seen, offers, options), find_quantizer_sites(model, excluded)
    sigmoid_sites = find_sigmoid_sites(model, offers, _shapes(seen), target)
    problem = Problem(seen.tensors, constants, bits, target.signed_activations, sites, quantizer_sites, sigmoid_sites)
    if not METHODS[options.method].needs_context:
        return problem, offers
    # studied as if integers were worth it; whether they are is decided when the grids are known
    skeleton = _placed(model, offers, minmax.choose(problem), seen, replace(target, margin=0.0), options, "")
    context = _context(model, skeleton, feeds[: _studied(feeds[0])], reconstruction_blocks, losses, seen, options.seed)
    return replace(problem, context=replace(context, workers=worker_count(options.threads))), offers


def _context(
    model: ir.Model,
    skeleton: Plan,
    feeds: Sequence[Feed],
    reconstruction_blocks: Sequence[ReconstructionBlock],
    losses: Mapping[str, OutputLoss],
    seen: CalibrationStatistics,
    seed: int,
) -> AnalysisContext:
    """The network as it can be run: all samples at once, or one by one, or else layer by layer."""
    unsteady = frozenset(name for name, stats in seen.tensors.items() if not stats.steady or 0 in stats.shape)
    whole = replace(
        context_of(model, skeleton, feeds, reconstruction_blocks, seed), loss=describe_losses(losses), losses=losses, unsteady=unsteady
    )
    whole = replace(whole, network=sized(whole.network, _shapes(seen)))
    obstacle = ""
    for context in (whole, replace(whole, network=replace(whole.network, one_by_one=True))):
        if context.network.one_by_one or not unsteady:
            obstacle = obstacle_to_gradients(context.network, context.feed, losses)
            if not obstacle:
                return context
    reason = f"output error of each layer, as the network cannot be differentiated: {obstacle}"
    return replace(context_of_layers(model, skeleton, feeds, seed, unsteady), loss=reason)


def _studied(feed: Feed) -> int:
    """Samples that methods run themselves: fewer of large ones, all of which are held at once."""
    return min(_MOST_STUDIED, max(_FEWEST_STUDIED, _BYTES_STUDIED // max(1, sum(value.nbytes for value in feed.values()))))


def _exact_sites(model: ir.Model, seen: CalibrationStatistics, offers: Offers, options: Options) -> dict[str, EqualizationSite]:
    """Equalization sites; where a multiplication has to be inserted, only those behind an operator that writes float in any case.

    The grid per channel is then that of a Q that is needed anyway. An integer operator would have to write float for it.
    """
    sites = find_sites(model, _shapes(seen))
    makers = {str(value.name): str(node.name) for node in model.graph for value in node.outputs}
    return {
        n: s for n, s in sites.items() if not s.inserted or not (options.full or isinstance(offers.get(makers.get(n, "")), SupportedForm))
    }


def _name(options: Options) -> str:
    """What a plan says of how it was made: the method, and its observer where that is not the usual one."""
    return options.method if options.observer in (None, DEFAULT_OBSERVER) else f"{options.method} {options.observer}"


def _placed(
    model: ir.Model,
    offers: Offers,
    choice: Choice,
    seen: CalibrationStatistics,
    target: Target,
    options: Options,
    method: str,
    cheaper: Mapping[str, SupportedForm] = MappingProxyType({}),
) -> Plan:
    best = _placement(options)
    return place(model, offers, choice, seen, target, method=method, bits=options.widths, placement=best, cheaper=cheaper)


def _placement(options: Options) -> Placement:
    return FULL if options.full else parse_placement(options.placement)


def _shapes(seen: CalibrationStatistics) -> Mapping[str, tuple[int, ...]]:
    return {name: stats.shape for name, stats in seen.tensors.items()}
