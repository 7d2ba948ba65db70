"""Chains of Reshape and Transpose become the cheapest chain that moves the same elements to the same places.

The runtime copies a transposed tensor in blocks of what stays together at its end. A chain whose last axis moves is
copied element by element, at some fifty ARM64 instructions each: the unfolding of MobileViT (arXiv 2110.02178, section 3)
is exported that way, and the same order is reached through channels-last for a few instructions per element. What a step
costs is the target's to say.

A chain is read as a permutation of *atoms*, the finest axes that any of its shapes tells apart. The candidates are the
permutation as one Transpose; the axis that ends up last moved there first; the axis that was last moved away at the end;
and both with the leading axis, channels as a rule, parked at the end meanwhile. The chain is replaced only if the
cheapest costs less than it did.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from converter.graph.builder import GraphBuilder
from converter.graph.operator_sets import VIEWS
from converter.graph.queries import attributes, is_float, merge_neighbours, sole_consumer
from converter.targets import Target
from converter.targets.costs import TRANSPOSE_STEP_KIND, form_costs, step_features

__all__ = ["rearrange"]

_GAIN = 0.4
"""A chain is exchanged for one that costs less than this share of it. The runtime merges a Transpose with its neighbours, which
the costs here do not see, so a small gain could be a loss."""

Order = tuple[int, ...]


@dataclass(frozen=True)
class _Chain:
    """A chain read as a permutation.

    Attributes:
        nodes: in order.
        sizes: of the atoms, in the order in which the source holds them.
        order: the atoms as the result holds them.
        source, result: the shapes.
        cost: of the chain as it is.
    """

    nodes: tuple[ir.Node, ...]
    sizes: tuple[int, ...]
    order: Order
    source: tuple[int, ...]
    result: tuple[int, ...]
    cost: float


def rearrange(model: ir.Model, target: Target) -> list[str]:
    """Replace chains that can be had for less; returns the names of the tensors concerned."""
    builder, changed = GraphBuilder(model.graph), []
    for node in list(model.graph):
        if node.graph is None:
            continue
        chain = _read(node, target)
        best = _cheapest(chain, target) if chain is not None else None
        if chain is not None and best is not None:
            output = chain.nodes[-1].outputs[0]
            changed.append(str(output.name))
            builder.replace(output, _write(builder, chain, best), reversed(chain.nodes))
    return changed


def _shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape, if every dimension is a known number above zero."""
    if value is None or value.shape is None or not all(isinstance(d, int) and d > 0 for d in value.shape):
        return None
    return tuple(int(d) for d in value.shape if isinstance(d, int))


def _in_chain(node: ir.Node | None) -> bool:
    return (
        node is not None
        and node.domain in ("", "ai.onnx")
        and node.op_type in VIEWS | {"Transpose"}
        and is_float(node.inputs[0])
        and _shape(node.outputs[0]) is not None
    )


def _read(first: ir.Node, target: Target) -> _Chain | None:
    """The longest chain that begins at a node and can be read; None if it begins earlier or moves nothing."""
    x = first.inputs[0] if first.inputs else None
    source = _shape(x)
    before = x.producer() if x is not None else None
    if source is None or x is None or not _in_chain(first) or (_in_chain(before) and sole_consumer(x) is first):
        return None
    atoms, cost = _Atoms(source), 0.0
    nodes: list[ir.Node] = []
    node: ir.Node | None = first
    while node is not None and _in_chain(node):
        if node.op_type == "Transpose":
            perm = attributes(node).get("perm", list(range(len(atoms.dims)))[::-1])
            cost += _transpose_cost([math.prod(atoms.sizes[a] for a in dim) for dim in atoms.dims], tuple(perm), target)
            atoms.dims = [atoms.dims[p] for p in perm]
        elif not atoms.reshape(_shape(node.outputs[0]) or ()):
            break
        nodes.append(node)
        node = sole_consumer(node.outputs[0])
    result = _shape(nodes[-1].outputs[0]) if nodes else None
    if result is None or cost == 0.0:
        return None
    order = atoms.source_order()
    place = {atom: i for i, atom in enumerate(order)}
    moved = tuple(place[a] for dim in atoms.dims for a in dim)
    return _Chain(tuple(nodes), *merge_neighbours([atoms.sizes[a] for a in order], moved), source, result, cost)


class _Atoms:
    """The axes of a tensor, each a list of atoms that reshaping splits as needed."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.sizes: dict[int, int] = {}
        self.children: dict[int, tuple[int, int]] = {}
        self.dims: list[list[int]] = [[self._new(d)] if d > 1 else [] for d in shape]
        self.roots = [a for dim in self.dims for a in dim]

    def _new(self, size: int) -> int:
        self.sizes[len(self.sizes)] = size
        return len(self.sizes) - 1

    def source_order(self) -> list[int]:
        """The atoms as the source holds them."""

        def leaves(atom: int) -> Iterator[int]:
            if atom in self.children:
                for child in self.children[atom]:
                    yield from leaves(child)
            else:
                yield atom

        return [leaf for root in self.roots for leaf in leaves(root)]

    def reshape(self, target: Sequence[int]) -> bool:
        """Regroup the atoms to a shape; False if an atom would have to be cut in a way that axes do not allow."""
        queue = [a for dim in self.dims for a in dim]
        dims: list[list[int]] = []
        for size in target:
            dim: list[int] = []
            while size > 1:
                if not queue:
                    return False
                atom = queue.pop(0)
                have = self.sizes[atom]
                if have > size:
                    if have % size:
                        return False
                    outer, inner = self._new(size), self._new(have // size)
                    self.children[atom] = (outer, inner)
                    queue.insert(0, inner)
                    atom, have = outer, size
                if size % have:
                    return False
                dim.append(atom)
                size //= have
            dims.append(dim)
        self.dims = dims
        return not queue


def _transpose_cost(sizes: Sequence[int], perm: Order, target: Target) -> float:
    """Of one Transpose in float, in the target's unit."""
    return form_costs(TRANSPOSE_STEP_KIND, step_features(sizes, perm), target)[0]


def _candidates(count: int, order: Order) -> Iterator[tuple[Order, ...]]:
    """Ways to reach an order in a few steps; each step says which atom stands at each place behind it."""
    start = tuple(range(count))
    yield (order,)
    if count > 2:
        yield _with_last(start, order[-1]), order
        yield _with_last(order, start[-1]), order
        yield _with_last(start, 0), _with_last(order, 0), order


def _with_last(order: Order, atom: int) -> Order:
    return (*(a for a in order if a != atom), atom)


def _steps_cost(sizes: Sequence[int], steps: Sequence[Order], target: Target) -> float:
    total, held = 0.0, tuple(range(len(sizes)))
    for step in steps:
        # neighbours that move together are written as one axis
        total += _transpose_cost(*merge_neighbours([sizes[a] for a in held], [held.index(a) for a in step]), target)
        held = step
    return total


def _cheapest(chain: _Chain, target: Target) -> tuple[Order, ...] | None:
    """The steps of the best candidate, those that do nothing left out; None if the chain is as good."""
    priced = [(_steps_cost(chain.sizes, steps, target), steps) for steps in _candidates(len(chain.sizes), chain.order)]
    cost, found = min(priced, key=lambda each: each[0])
    if cost > _GAIN * chain.cost:
        return None
    held, steps = tuple(range(len(chain.sizes))), []
    for step in found:
        if step != held:
            steps.append(step)
        held = step
    return tuple(steps)


def _write(builder: GraphBuilder, chain: _Chain, steps: Sequence[Order]) -> ir.Value:
    """The new chain. Its first and last Transpose keep the shapes at the ends if they can, as a neighbour may then cancel them."""
    anchor, name = chain.nodes[-1], chain.nodes[-1].outputs[0].name
    value = chain.nodes[0].inputs[0]
    assert value is not None
    held, shape = tuple(range(len(chain.sizes))), chain.source

    def view(value: ir.Value, target: tuple[int, ...]) -> ir.Value:
        if target == shape and steps:  # without any step the node stands for the tensor whose name it takes over
            return value
        wanted = builder.initializer(f"{name}_shape", np.asarray(target, np.int64))
        return builder.add("Reshape", [value, wanted], name=f"{name}_Reshape", like=value, shape=ir.Shape(target), before=anchor)

    for number, step in enumerate(steps):
        before = _grouped(shape, [chain.sizes[a] for a in held]) if number == 0 else None
        after = _grouped(chain.result, [chain.sizes[a] for a in step]) if number == len(steps) - 1 else None
        perm, layer_inputs = _permutation(chain, held, step, before, after, shape)
        value = view(value, layer_inputs)
        shape = tuple(layer_inputs[p] for p in perm)
        value = builder.add(
            "Transpose", [value], {"perm": perm}, name=f"{name}_Transpose", like=value, shape=ir.Shape(shape), before=anchor
        )
        held = step
    return view(value, chain.result)


def _grouped(shape: Sequence[int], sizes: Sequence[int]) -> list[int] | None:
    """For each axis of a shape, how many of the atoms it holds; None if they do not line up."""
    counts, index = [], 0
    for size in shape:
        count = 0
        while size > 1 and index < len(sizes) and size % sizes[index] == 0:
            size //= sizes[index]
            index, count = index + 1, count + 1
        if size != 1:
            return None
        counts.append(count)
    return counts


def _permutation(
    chain: _Chain, held: Order, step: Order, before: list[int] | None, after: list[int] | None, shape: tuple[int, ...]
) -> tuple[list[int], tuple[int, ...]]:
    """A Transpose from one order of atoms to another: its ``perm``, and the shape it is given."""
    for counts, order, inverse in ((before, held, False), (after, step, True)):
        if counts is None:
            continue
        axes, index = [], 0
        for count in counts:
            axes.append(order[index : index + count])
            index += count
        other = step if not inverse else held
        moved = _order_of_axes(axes, other)
        if moved is None:
            continue
        if not inverse:
            return moved, shape
        sizes = [math.prod(chain.sizes[a] for a in axis) for axis in axes]
        return [moved.index(i) for i in range(len(axes))], tuple(sizes[i] for i in moved)
    merged, order = merge_neighbours([chain.sizes[a] for a in held], tuple(held.index(a) for a in step))
    return list(order), merged


def _order_of_axes(axes: Sequence[Order], atoms: Order) -> list[int] | None:
    """The axes in the order in which their atoms appear, each whole; axes of size one go in front."""
    order = [i for i, axis in enumerate(axes) if not axis]
    index = 0
    starts = {axis[0]: i for i, axis in enumerate(axes) if axis}
    while index < len(atoms):
        found = starts.get(atoms[index])
        if found is None or atoms[index : index + len(axes[found])] != axes[found]:
            return None
        order.append(found)
        index += len(axes[found])
    return order
