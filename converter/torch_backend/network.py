"""The canonical model as torch functions of its tensors: differentiable, batched, with every reading open to a hook.

A model is taken apart into steps, one an operator, that refer to each other by tensor names only; methods can replay
all of them or a section, with other constants, and put a grid on anything that an operator reads.

What has no torch function, the runtime computes, and no gradient passes through it. That, and whatever else cannot be mapped over
many samples at once, takes them one by one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from converter.graph.queries import attributes, constant, narrows_output
from converter.torch_backend import ops as torch_ops
from converter.torch_backend.runtime_kernels import runtime_operator
from converter.torch_backend.workers import in_order

__all__ = ["Hook", "Network", "Step", "network_of", "run", "run_samples", "sized", "stacked", "subnetwork"]

Tensor = torch.Tensor

_CHUNK = 2

_NUMBERS_AT_ONCE = 1 << 24
"""In all tensors of the samples that run at once, unless one sample has more: larger tensors only leave the caches."""

Hook = Callable[["Step", int, Tensor], Tensor]
"""Given a step, the index of one of its inputs and the value there, the value that the step shall read instead."""


@dataclass(frozen=True)
class Step:
    """One operator.

    Attributes:
        name: of the operator, unique.
        op_type: a key of the table of torch functions.
        inputs: tensor names; an empty string where an optional input is absent.
        outputs: tensor names; an empty string where an output is not named.
        attributes: plain Python values.
    """

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Network:
    """Steps in an order in which they can run.

    Attributes:
        steps: the operators.
        constants: by tensor name.
        inputs: names of the tensors that must be given.
        outputs: names of the tensors that a run returns unless others are asked for.
        one_by_one: samples run one after the other.
        numbers: in all float tensors of one sample; 0 if that is not known.
        live: of these, in the tensors that are still needed, at most.
        sessions: of the runtime, for the steps that it computes; grows as it is used.
    """

    steps: tuple[Step, ...]
    constants: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    one_by_one: bool = False
    numbers: int = 0
    live: int = 0
    sessions: dict[object, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def chunk(self) -> int:
        """Samples that are worth running at once, where memory counts."""
        return 1 if self.one_by_one else min(_CHUNK, self.most_at_once)

    @property
    def most_at_once(self) -> int:
        """Samples that are worth running at once, where nothing is kept."""
        return max(1, _NUMBERS_AT_ONCE // max(1, self.numbers))


def network_of(model: ir.Model, only: Collection[str] | None = None) -> Network:
    """Take a canonical model apart.

    Args:
        only: operators to take, which then cannot be run one after the other; all if None.

    Returns:
        all in float32: outputs in float16 are taken as they are before they are narrowed, so that gradients do not vanish there.
    """
    steps = []
    constants: dict[str, Tensor] = {}
    for node in model.graph:
        if node.op_type == "Constant" or (only is not None and node.op_type not in only):
            continue
        for value in node.inputs:
            array = constant(value)
            if value is not None and array is not None:
                on_file = isinstance(value.const_value, ir.ExternalTensor)
                constants[str(value.name)] = _on_file(array) if on_file else torch.from_numpy(np.array(array))
        inputs = tuple("" if v is None else str(v.name) for v in node.inputs)
        op_type, attrs = ("Identity", {}) if narrows_output(node) else (node.op_type, attributes(node))
        steps.append(Step(str(node.name), op_type, inputs, tuple(str(v.name or "") for v in node.outputs), attrs))
    names = tuple(str(v.name) for v in model.graph.inputs)
    known = all(torch_ops.known(step.op_type) for step in steps)
    return Network(tuple(steps), constants, names, tuple(str(v.name) for v in model.graph.outputs), one_by_one=not known)


def _on_file(array: npt.NDArray[Any]) -> Tensor:
    """A tensor on a file that is mapped into memory, not a copy; it must not be written to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # says just that
        return torch.from_numpy(array)


def sized(network: Network, shapes: Mapping[str, Sequence[int]]) -> Network:
    """The network with how many numbers a sample has in it, given the shapes of its float tensors."""
    left, live, most = _quantized_edges(network, network.outputs), dict[str, int](), 0
    for step in network.steps:
        live |= {name: math.prod(shapes[name]) for name in step.outputs if name in shapes}
        most = max(most, sum(live.values()))
        for name in step.inputs:
            left[name] -= 1
            if not left[name]:
                live.pop(name, None)
    return replace(network, numbers=sum(map(math.prod, shapes.values())), live=most)


def subnetwork(network: Network, outputs: Sequence[str], given: Collection[str]) -> Network:
    """The steps that lead from some tensors to others.

    Args:
        outputs: tensors to compute.
        given: tensors that are known; nothing before them runs.

    Returns:
        a network whose inputs are those of the given tensors and of the model's inputs that are needed.
    """
    needed = set(outputs) - set(given)
    kept: list[Step] = []
    for step in reversed(network.steps):
        if needed.intersection(step.outputs):
            kept.append(step)
            needed.update(n for n in step.inputs if n and n not in network.constants and n not in given)
    made = {n for step in kept for n in step.outputs}
    read = {n for step in kept for n in step.inputs if n} | set(outputs)
    order = [*network.inputs, *(n for step in network.steps for n in step.outputs)]
    inputs = tuple(n for n in order if n in read and (n in given or n not in made))
    return replace(network, steps=tuple(reversed(kept)), inputs=inputs, outputs=tuple(outputs))


def run(
    network: Network,
    feed: Mapping[str, Tensor],
    *,
    wanted: Sequence[str] | None = None,
    hook: Hook | None = None,
    constants: Mapping[str, Tensor] | None = None,
    cut: bool = False,
) -> dict[str, Tensor]:
    """Run on one sample.

    Args:
        feed: inputs by name.
        wanted: tensors to return; the outputs if None.
        hook: sees, and may replace, every value that is read.
        constants: to use instead of the network's own, by name.
        cut: let gradients begin anew where none comes from the inputs: behind integers, and behind what torch cannot differentiate.

    Returns:
        the wanted tensors by name.

    Raises:
        torch_ops.UnknownOperatorError: an operator or an attribute without a torch function, of a network that is not run one by one.
        RuntimeError: torch refuses the operands of one.
    """
    names = network.outputs if wanted is None else wanted
    values: dict[str, Tensor] = {**network.constants, **(constants or {}), **feed}
    left = _quantized_edges(network, names)
    for step in network.steps:
        inputs: list[Tensor | None] = []
        for index, name in enumerate(step.inputs):
            value = values[name] if name else None
            inputs.append(value if value is None or hook is None else hook(step, index, value))
        made = _apply(network, step, inputs)
        if cut:
            made = [_beginning(m) for m in made]
        values.update(zip(step.outputs, made, strict=False))
        for name in step.inputs:
            left[name] -= 1
            if not left[name]:
                values.pop(name, None)  # read for the last time: the memory is worth more
    return {name: values[name] for name in names}


def run_samples(
    network: Network,
    feed: Mapping[str, Tensor],
    *,
    wanted: Sequence[str] | None = None,
    hook: Hook | None = None,
    constants: Mapping[str, Tensor] | None = None,
    workers: int = 1,
) -> dict[str, Tensor]:
    """Run on many samples: every input and every result has one axis more, the samples, in front.

    The graph itself may be fixed to one batch size: the samples are mapped over it. Integers that are the same for all samples,
    shapes above all, are read as plain numbers. Tensors that have not the same shape for all samples are left
    out of the result, and so are sequences. Of a large network only few samples run at once, in each of the workers.
    """
    names = tuple(network.outputs if wanted is None else wanted)
    count = next(iter(feed.values())).shape[0]
    if count <= network.most_at_once:
        return _mapped(network, feed, names, hook, constants)

    def some(start: int) -> dict[str, Tensor]:
        few = {name: value[start : start + network.most_at_once] for name, value in feed.items()}
        return _mapped(network, few, names, hook, constants)

    starts = range(0, count, network.most_at_once)
    return _joined(starts, in_order(some, starts, workers), count)


def _joined(starts: Iterable[int], parts: Iterable[Mapping[str, Tensor]], count: int) -> dict[str, Tensor]:
    """Results of some samples after those of others, laid out as ``torch.cat`` does it; without those whose shape is not that of the first.

    Args:
        starts: of the parts among all samples, from 0 on.
        parts: each goes into the whole as soon as it is there, so that no two copies of all are held.
        count: samples in all.
    """
    shapes: dict[str, torch.Size] = {}
    whole: dict[str, Tensor] = {}
    pieces: dict[str, list[Tensor]] = {}
    for start, part in zip(starts, parts, strict=True):
        if start == 0:
            shapes = {name: first.shape[1:] for name, first in part.items()}
            # others may be laid out with the channels last: then torch decides by all of them how the whole is
            plain = {name: first for name, first in part.items() if first.is_contiguous() and not first.requires_grad}
            whole = {name: first.new_empty((count, *first.shape[1:])) for name, first in plain.items()}
        shapes = {name: shape for name, shape in shapes.items() if name in part and part[name].shape[1:] == shape}
        for name in shapes:
            if name in whole:
                whole[name][start : start + part[name].shape[0]] = part[name]
            else:
                pieces.setdefault(name, []).append(part[name])
    return {name: whole[name] if name in whole else torch.cat(pieces[name]) for name in shapes}


def _mapped(
    network: Network, feed: Mapping[str, Tensor], names: Sequence[str], hook: Hook | None, constants: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """Run on some samples at once."""
    if network.one_by_one:
        count = next(iter(feed.values())).shape[0]
        samples = ({name: value[i] for name, value in feed.items()} for i in range(count))
        return stacked([run(network, sample, wanted=names, hook=hook, constants=constants) for sample in samples])

    def one(sample: dict[str, Tensor]) -> dict[str, Tensor]:
        return run(network, sample, wanted=names, hook=hook, constants=constants)

    common = {name for name, value in feed.items() if not value.is_floating_point() and bool((value == value[:1]).all())}
    if len(common) == len(feed):
        count = next(iter(feed.values())).shape[0]
        return {n: v.expand(count, *v.shape) for n, v in one({name: value[0] for name, value in feed.items()}).items()}
    mapped = {name: value[0] if name in common else value for name, value in feed.items()}
    axes = {name: None if name in common else 0 for name in feed}
    result: dict[str, Tensor] = torch.func.vmap(one, in_dims=(axes,), out_dims=0)(mapped)
    return result


def _apply(network: Network, step: Step, inputs: Sequence[Tensor | None]) -> list[Tensor]:
    try:
        return torch_ops.apply(step.op_type, inputs, step.attributes)
    except torch_ops.UnknownOperatorError:
        if not network.one_by_one:
            raise
        fixed = [i for i, name in enumerate(step.inputs) if name in network.constants]
        return runtime_operator(step.op_type, inputs, step.attributes, len(step.outputs), constants=fixed, sessions=network.sessions)
    except (ValueError, TypeError, IndexError) as error:  # in all these ways, too, torch refuses operands
        raise RuntimeError(f"operator '{step.op_type}': {error}") from error


def _beginning(made: Tensor) -> Tensor:
    """The same numbers, from which gradients can be taken; a sequence of tensors as it is."""
    open_to_gradients = not isinstance(made, torch.Tensor) or not made.is_floating_point() or made.requires_grad
    return made if open_to_gradients else made.detach().requires_grad_()


def stacked(results: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """What several runs gave, the sample axis in front; without what has not the same shape in all of them, and sequences."""
    tensors = {n: first for n, first in results[0].items() if isinstance(first, torch.Tensor)}  # and no sequences of them
    steady = [n for n, first in tensors.items() if all(r[n].shape == first.shape for r in results)]
    return {name: torch.stack([result[name] for result in results]) for name in steady}


def _quantized_edges(network: Network, wanted: Sequence[str]) -> dict[str, int]:
    """How often each tensor is read; wanted ones once more."""
    count: dict[str, int] = dict.fromkeys(wanted, 1)
    for step in network.steps:
        for name in step.inputs:
            count[name] = count.get(name, 0) + 1
    return count
