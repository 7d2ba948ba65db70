"""What a method is asked about a model: statistics, constants, sites, and the network to study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import onnx_ir as ir

from converter.calibration.observer import CalibrationStatistics
from converter.forms.form import SupportedForm, UnsupportedForm
from converter.methods.names import DEFAULT_OBSERVER
from converter.methods.problem import Problem
from converter.methods.ranges import minmax
from converter.options import Options
from converter.partition.assign import place
from converter.partition.bit_widths import tensor_bits
from converter.partition.integer_forms import offer
from converter.partition.policy import FULL, Placement, parse_placement
from converter.partition.sigmoid_forms import find_sigmoid_sites
from converter.plan.choice import Choice
from converter.plan.records import Plan
from converter.planning.registry import METHODS
from converter.runtime.session import Feed
from converter.sensitivity.context import AnalysisContext, ReconstructionBlock, context_of, context_of_layers
from converter.sensitivity.curvature import obstacle_to_gradients
from converter.sensitivity.output_loss import OutputLoss, describe_losses
from converter.targets import Target
from converter.torch_backend.network import sized
from converter.torch_backend.workers import worker_count
from converter.transforms.equalization.find import find_sites
from converter.transforms.equalization.site import EqualizationSite
from converter.transforms.nonuniform.find import find_quantizer_sites

__all__ = ["Offers", "method_name", "offers_of", "placed", "placement_of", "problem_of", "shapes_of"]

Offers = dict[str, SupportedForm | UnsupportedForm]

_MOST_STUDIED = 64
"""Samples that methods run themselves; more give better ranges, which have been observed before, and hardly better gradients."""

_FEWEST_STUDIED = 8
_BYTES_STUDIED = 1 << 28


def problem_of(
    model: ir.Model,
    seen: CalibrationStatistics,
    feeds: Sequence[Feed],
    reconstruction_blocks: Sequence[ReconstructionBlock],
    target: Target,
    options: Options,
    excluded: frozenset[str],
    losses: Mapping[str, OutputLoss],
    *,
    equalizable: bool = True,
) -> tuple[Problem, Offers]:
    """What a method is asked, and what could run in integer.

    Arguments as for :func:`converter.planning.search.search`; the transforms, parts and progress of a search are for the caller to add.
    Equalization sites are looked for only where it is `equalizable`, that is, if a transform may still be proposed.
    """
    offers = offers_of(model, seen, target, options, excluded)
    constants = {(n, i): c for n, o in offers.items() if isinstance(o, SupportedForm) for i, c in o.constants.items()}
    bits = tensor_bits(model, offers, options.widths.activations)
    sites = _exact_sites(model, seen, offers, options) if equalizable else {}
    quantizer_sites = find_quantizer_sites(model, excluded)
    sigmoid_sites = find_sigmoid_sites(model, offers, shapes_of(seen), target)
    problem = Problem(seen.tensors, constants, bits, target.signed_activations, sites, quantizer_sites, sigmoid_sites)
    if not METHODS[options.method].needs_context:
        return problem, offers
    # studied as if integers were worth it; whether they are is decided when the grids are known
    skeleton = placed(model, offers, minmax.choose(problem), seen, replace(target, margin=0.0), options, "")
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
    whole = replace(whole, network=sized(whole.network, shapes_of(seen)))
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


def offers_of(model: ir.Model, seen: CalibrationStatistics, target: Target, options: Options, excluded: frozenset[str]) -> Offers:
    """What could run in integer, at the bit widths of the options."""
    widths = options.widths
    return offer(model, seen, target, activation_bits=widths.activations, weight_bits=widths.weights, excluded=excluded)


def _exact_sites(model: ir.Model, seen: CalibrationStatistics, offers: Offers, options: Options) -> dict[str, EqualizationSite]:
    """Equalization sites; where a multiplication has to be inserted, only those behind an operator that writes float in any case.

    The grid per channel is then that of a Q that is needed anyway. An integer operator would have to write float for it.
    """
    sites = find_sites(model, shapes_of(seen))
    makers = {str(value.name): str(node.name) for node in model.graph for value in node.outputs}
    return {
        n: s for n, s in sites.items() if not s.inserted or not (options.full or isinstance(offers.get(makers.get(n, "")), SupportedForm))
    }


def placed(
    model: ir.Model,
    offers: Offers,
    choice: Choice,
    seen: CalibrationStatistics,
    target: Target,
    options: Options,
    method: str,
    cheaper: Mapping[str, SupportedForm] = MappingProxyType({}),
) -> Plan:
    """Assign operators as the options ask for; arguments as for :func:`converter.partition.assign.place`."""
    best = placement_of(options)
    return place(model, offers, choice, seen, target, method=method, bits=options.widths, placement=best, cheaper=cheaper)


def placement_of(options: Options) -> Placement:
    """What the options want a placement to be best at."""
    return FULL if options.full else parse_placement(options.placement)


def method_name(options: Options) -> str:
    """What a plan says of how it was made: the method, and its observer where that is not the usual one."""
    return options.method if options.observer in (None, DEFAULT_OBSERVER) else f"{options.method} {options.observer}"


def shapes_of(seen: CalibrationStatistics) -> Mapping[str, tuple[int, ...]]:
    """Of all tensors, as observed."""
    return {name: stats.shape for name, stats in seen.tensors.items()}
