"""PTQ4ViT: twin uniform grids and scales guided by the second derivative.

Yuan, Xue, Chen, Wu, Sun: PTQ4ViT, arXiv 2111.12293. Grids are symmetric; scales are the best of a hundred between 0.01 and 1.2
times the one that covers the range, weights and activations in turn for three rounds, layer by layer, by the error of the layer's
output weighted with the squared gradient of the loss (section 3.3). Of the k bits of a twin grid (section 3.2) one
says which of two ranges a number is in. Behind a softmax the ranges are [0, 2^-m) and up to 1, the steps 2^-m and 1 over
2^(k-1) - 1, m from 0 to 19 searched. Behind a GELU they meet at zero: the step of the lower one is fixed so that it covers
the least value of a GELU, that of the upper one is searched.
The steps are those of the published code.

Each range is a tensor of its own here, read by a copy of the layer, so that both products run in integer. Their sum is rounded, or
in the case of a convolution both (:mod:`converter.transforms.nonuniform.apply`).
What differs: products have one scale for each operand, as the kernels know no other, and query, key and value of one layer share
one, where the published code has one for each head; weights have one scale for each output channel, as the published code
has it for convolutions only; the second derivative is taken at the float network (:mod:`converter.sensitivity.curvature`); a tensor that
several layers read has one grid.
Where the paper has no rule, the grid is an ordinary symmetric one: in front of convolutions, behind other activation
functions than GELU, where softmax weights are multiplied element by element. Normalizations stay float.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from converter.methods.judging.layer_readers import captured, layers_read, readers_by_owner
from converter.methods.judging.layer_search import best_weights, quantized_operand, ranked_activations
from converter.methods.judging.output_error import LayerReconstruction, on_grid, reconstruction_of, weight_errors
from converter.methods.judging.range_candidates import scale_candidates
from converter.methods.problem import Problem
from converter.methods.protocol import Proposal
from converter.methods.published.carry_over import completed
from converter.methods.published.symmetric import centred_grid, choose_centred
from converter.plan.choice import Choice
from converter.quantization.parameters import QuantParams
from converter.transforms.nonuniform.quantizer import NonuniformQuantizer, QuantizerSite, halves, low_copy
from converter.transforms.nonuniform.transform import NonuniformQuantization

__all__ = ["GELU_DEPTH", "Twin", "best_twin", "choose", "gelu_candidates", "on_twin", "quantizers", "softmax_candidates"]

Tensor = torch.Tensor

GELU_DEPTH = 0.16997124254703522
"""The least value of a GELU, with its sign changed."""

_ROUNDS = 3
_FACTORS = np.linspace(0.01, 1.2, 100)
"""Of the scale that just covers weights, as for activations."""
_SPLITS = 20


@dataclass(frozen=True)
class Twin:
    """Two grids about zero that share the codes of one: below ``bound`` the first, from it on the second."""

    low: QuantParams
    high: QuantParams
    bound: float


@dataclass
class _State:
    """Answers so far: grids by owner, twin grids by the tensor that is read, weights by layer."""

    tensors: dict[str, QuantParams]
    twins: dict[str, Twin]
    scales: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)


def quantizers(problem: Problem) -> Proposal:
    """The twin grids, and all others."""
    start = choose_centred(problem)
    context = problem.context
    if context is None:
        return Proposal(None, start)
    samples, _ = captured(context, layers_read(context))
    reconstructions = {name: reconstruction_of(sample) for name, sample in samples.items()}
    quantizer_sites = {
        n: s
        for n, s in problem.quantizer_sites.items()
        if s.kind in ("attention", "gelu") and all(r in reconstructions for r, _ in s.readers)
    }
    twinned = {reader: name for name, quantizer_site in quantizer_sites.items() for reader in quantizer_site.readers}
    state = _State(dict(start.tensors), {name: _candidates(problem, quantizer_site)[0] for name, quantizer_site in quantizer_sites.items()})
    readers = readers_by_owner(context, samples)
    users = {owner: [u for u in some if (u.name, u.operand) not in twinned] for owner, some in readers.items()}

    def operand(name: str, index: int) -> Tensor:
        """As the layer will read it."""
        if index == 1 and name in state.weights:
            return state.weights[name]
        reconstruction = reconstructions[name]
        if (name, index) in twinned:
            return on_twin(reconstruction.right if index else reconstruction.left, state.twins[twinned[name, index]])
        quantized_edge = context.quantized_edges.get((name, index))
        return quantized_operand(
            reconstruction,
            index,
            None if quantized_edge is None else state.tensors[quantized_edge.owner],
            quantized_edge.factor if quantized_edge else 1.0,
        )

    for number in range(_ROUNDS):
        for name in (n for n in context.weights if n in reconstructions):
            state.scales[name], state.weights[name] = best_weights(
                reconstructions[name], operand(name, 0), problem.constants[name, 1].bits, _FACTORS
            )
        for place, (owner, some) in enumerate(users.items()):
            problem.progress(number * len(users) + place, _ROUNDS * len(users))
            if some:
                others = {(u.name, 1 - u.operand): operand(u.name, 1 - u.operand) for u in some}
                stats, before = problem.tensors[owner], state.tensors[owner]
                state.tensors[owner] = ranked_activations(
                    some, reconstructions, others, before, stats.minimum, stats.maximum, asymmetric=False
                )[0]
        for name, quantizer_site in quantizer_sites.items():
            layers = [(reconstructions[r], i, operand(r, 1 - i)) for r, i in quantizer_site.readers]
            state.twins[name] = best_twin(layers, _candidates(problem, quantizer_site))
    found = {name: NonuniformQuantizer("twin", bound=twin.bound) for name, twin in state.twins.items()}
    return Proposal(NonuniformQuantization(found) if found else None, _choice(start, quantizer_sites, state))


def choose(problem: Problem) -> Choice:
    """Answer with the first choice, or with ranges where there is none."""
    return completed(problem, choose_centred(problem) if problem.first_choice is None else problem.first_choice)


def softmax_candidates(bits: int, signed: bool) -> list[Twin]:
    """Twin grids over [0, 2^-m) and up to 1, for all m (section 3.2; steps as in the published code)."""
    high = centred_grid(1.0, bits, signed)
    return [Twin(centred_grid(2.0**-m, bits, signed), high, 2.0**-m) for m in range(_SPLITS)]


def gelu_candidates(largest: float, bits: int, signed: bool) -> list[Twin]:
    """Twin grids that meet at zero: the lower one just covers what a GELU gives below zero, the upper one is one of a hundred."""
    top = 2 ** (bits - 1)
    low = centred_grid(GELU_DEPTH * (top - 1) / top, bits, signed)
    uppers = scale_candidates(0.0, max(largest, 1e-6), bits, signed, asymmetric=False)
    return [Twin(low, upper, 0.0) for upper in reversed(uppers)]


def on_twin(x: Tensor, twin: Twin) -> Tensor:
    """The numbers on a twin grid."""
    below = x < twin.bound
    return torch.where(below, on_grid(x, twin.low), on_grid(x, twin.high))


def _candidates(problem: Problem, quantizer_site: QuantizerSite) -> list[Twin]:
    bits = problem.bits[quantizer_site.tensor]
    if quantizer_site.kind == "attention":
        return softmax_candidates(bits, problem.signed)
    return gelu_candidates(problem.tensors[quantizer_site.tensor].maximum, bits, problem.signed)


def best_twin(layers: Sequence[tuple[LayerReconstruction, int, Tensor]], candidates: Sequence[Twin]) -> Twin:
    """The twin grid of least weighted error of all layers that read the tensor."""
    errors = torch.zeros(len(candidates), dtype=torch.float64)
    for reconstruction, index, other in layers:
        for number, twin in enumerate(candidates):
            x = on_twin(reconstruction.right if index else reconstruction.left, twin)
            left, right = (other, x) if index else (x, other)
            errors[number] += weight_errors(reconstruction, left, right).sum()
    return candidates[int(errors.argmin())]


def _choice(start: Choice, quantizer_sites: Mapping[str, QuantizerSite], state: _State) -> Choice:
    constants = dict(start.constants)
    for name, scales in state.scales.items():
        constants[name, 1] = replace(constants[name, 1], scale=tuple(float(s) for s in scales.reshape(-1)))
    tensors = dict(state.tensors)
    for name, twin in state.twins.items():
        tensors.update(zip(halves(name), (twin.low, twin.high), strict=True))
        for reader, _ in quantizer_sites[name].readers:
            if (reader, 1) in constants:
                constants[low_copy(reader), 1] = constants[reader, 1]
    return Choice(tensors, constants)
