"""Chains of Reshape and Transpose become the cheapest chain that moves the same elements to the same places.

The runtime copies a transposed tensor in blocks of what stays together at its end. A chain whose last axis moves is
copied element by element, at some fifty ARM64 instructions each: the unfolding of MobileViT (arXiv 2110.02178, section 3)
is exported that way, and the same order is reached through channels-last for a few instructions per element. What a step
costs is the target's to say.

A chain is read as a permutation of *atoms*, the finest axes that any of its shapes tells apart. The candidates are the
permutation as one Transpose, and in two or three steps of which the first and the last move one run of neighbours each. So
attention's heads are brought in front of its tokens by two steps that move single numbers, for which the runtime has fast loops, instead
of one that copies pieces as short as a head. The chain is replaced only if the cheapest costs less than it did, in float and on codes
together, as it is not known yet in which of the two it will run.

An open batch is followed through shapes as a large prime.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from converter.errors import ModelError
from converter.graph.builder import GraphBuilder
from converter.graph.operator_sets import VIEWS
from converter.graph.queries import attributes, is_float, merge_neighbours, moves_one_axis, sole_consumer
from converter.graph.shape_inference import infer_shapes
from converter.targets import Target
from converter.targets.costs import form_costs, is_view, step_costs

__all__ = ["rearrange"]

_GAIN = 0.4
"""A chain is exchanged for one that costs less than this share of it. The runtime merges a Transpose with its neighbours, which
the costs here do not see, so a small gain could be a loss: with 0.7, MobileViT and Swin at 128 pixels take more instructions
than before."""

_OPEN = 999_983
"""Stands for the size of an open batch: a prime that no other size is a multiple of."""

_OPEN_PRICED = 2
"""Its size for prices: at 1, moving it would look free."""

_LEAVE_BATCH = 0.05
"""By this share a step counts for more that brings an open batch from the front."""

_MOST_ATOMS = 8
"""Up to which ways of three steps are looked for."""

Order = tuple[int, ...]
Shape = tuple[int, ...]
Shapes = Callable[[ir.Value | None], Shape | None]
"""The shape of a tensor, :data:`_OPEN` standing for an open batch; None if a dimension is unknown or zero."""


@dataclass(frozen=True)
class _Chain:
    """A chain read as a permutation.

    Attributes:
        nodes: in order.
        sizes: of the atoms, in the order in which the source holds them; an open batch is :data:`_OPEN`.
        order: the atoms as the result holds them.
        source, result: the shapes, likewise.
        cost: of the chain as it is.
    """

    nodes: tuple[ir.Node, ...]
    sizes: tuple[int, ...]
    order: Order
    source: Shape
    result: Shape
    cost: float


def rearrange(model: ir.Model, target: Target) -> list[str]:
    """Replace chains that can be had for less; returns the names of the tensors concerned."""
    builder, changed = GraphBuilder(model.graph), []
    shapes = _shapes_of(model)
    for node in list(model.graph):
        if node.graph is None:
            continue
        chain = _read(node, shapes, target)
        best = _cheapest(chain, target) if chain is not None else None
        if chain is not None and best is not None:
            output = chain.nodes[-1].outputs[0]
            changed.append(str(output.name))
            builder.replace(output, _write(builder, chain, best), reversed(chain.nodes))
    return changed


def _shapes_of(model: ir.Model) -> Shapes:
    """The shapes in the model or, if the first dimension of inputs and no other is open, those that follow for a batch of :data:`_OPEN`."""
    dims = [list(v.shape) for v in model.graph.inputs if v.shape is not None]
    batched = [d for d in dims if d and not isinstance(d[0], int)]
    if not batched or any(not isinstance(n, int) for d in dims for n in d[1:]):
        return lambda value: None if value is None or value.shape is None else _known(value.shape)
    proto = ir.to_proto(model)
    del proto.graph.value_info[:]
    for declared in proto.graph.input:
        open_dims = declared.type.tensor_type.shape.dim[:1]
        for dim in open_dims:
            if not dim.HasField("dim_value"):
                dim.dim_value = _OPEN
    for declared in proto.graph.output:
        declared.type.tensor_type.ClearField("shape")
    try:
        inferred = infer_shapes(proto)
    except ModelError:  # the network has a batch of its own somewhere
        return lambda _: None
    infos = (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    # no shape is not the shape of a scalar
    found = {info.name: info.type.tensor_type.shape.dim for info in infos if info.type.tensor_type.HasField("shape")}
    return lambda value: _known(_sizes(found[str(value.name)])) if value is not None and str(value.name) in found else None


def _sizes(dims: Sequence[onnx.TensorShapeProto.Dimension]) -> list[int | None]:
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]


def _known(shape: Iterable[object]) -> Shape | None:
    """The shape, if every dimension is a known number above zero."""
    dims = list(shape)
    sizes = tuple(int(d) for d in dims if isinstance(d, int) and d > 0)
    return sizes if len(sizes) == len(dims) else None


def _in_chain(node: ir.Node | None, shapes: Shapes) -> bool:
    return (
        node is not None
        and node.domain in ("", "ai.onnx")
        and node.op_type in VIEWS | {"Transpose"}
        and is_float(node.inputs[0])
        and shapes(node.outputs[0]) is not None
    )


def _read(first: ir.Node, shapes: Shapes, target: Target) -> _Chain | None:
    """The longest chain that begins at a node and can be read; None if it begins earlier or moves nothing."""
    x = first.inputs[0] if first.inputs else None
    source = shapes(x)
    before = x.producer() if x is not None else None
    if source is None or x is None or not _in_chain(first, shapes) or (_in_chain(before, shapes) and sole_consumer(x) is first):
        return None
    if math.prod(source) % _OPEN**2 == 0:
        return None
    atoms, costs = _Atoms(source), list[float]()
    nodes: list[ir.Node] = []
    node: ir.Node | None = first
    while node is not None and _in_chain(node, shapes):
        if node.op_type == "Transpose":
            perm = attributes(node).get("perm", list(range(len(atoms.dims)))[::-1])
            costs.append(_transpose_cost([math.prod(atoms.sizes[a] for a in dim) for dim in atoms.dims], tuple(perm), target))
            atoms.dims = [atoms.dims[p] for p in perm]
        elif not atoms.reshape(shapes(node.outputs[0]) or ()):
            break
        nodes.append(node)
        node = sole_consumer(node.outputs[0])
    result = shapes(nodes[-1].outputs[0]) if nodes else None
    if result is None or not any(costs):
        return None
    order = atoms.source_order()
    place = {atom: i for i, atom in enumerate(order)}
    moved = tuple(place[a] for dim in atoms.dims for a in dim)
    cost = _with_views(costs, target)
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
    """Of one Transpose in float and, if the target tells, on codes, together in the target's unit; a view is free."""
    sizes = [n // _OPEN * _OPEN_PRICED if n % _OPEN == 0 else n for n in sizes]
    if is_view(sizes, perm):
        return 0.0
    floats, codes = step_costs(sizes, perm, target)
    return floats + (codes or 0.0)


def _with_views(costs: Sequence[float], target: Target) -> float:
    """The sum of Transposes' costs, with a Reshape between each two."""
    view = form_costs("Reshape", {"node": 1.0}, target)[0]
    return sum(costs) + view * (len(costs) - 1)


def _step_cost(sizes: Sequence[int], held: Order, step: Order, target: Target) -> float:
    """Of the Transpose from one order of atoms to another."""
    # neighbours that move together are written as one axis
    return _transpose_cost(*merge_neighbours([sizes[a] for a in held], [held.index(a) for a in step]), target)


def _one_move(order: Order) -> Iterator[Order]:
    """The orders that differ by one run of neighbours, moved past those behind it."""
    count = len(order)
    for first in range(count):
        for behind in range(first + 1, count):
            for end in range(behind + 1, count + 1):
                yield (*order[:first], *order[behind:end], *order[first:behind], *order[end:])


def _cheapest(chain: _Chain, target: Target) -> tuple[Order, ...] | None:
    """The steps of the best candidate; each says which atom stands at each place behind it. None if the chain is as good."""
    start, goal = tuple(range(len(chain.sizes))), chain.order
    if start == goal:
        return ()

    def cost(held: Order, step: Order) -> float:
        return _step_cost(chain.sizes, held, step, target)

    found: list[tuple[float, tuple[Order, ...]]] = [(cost(start, goal), (goal,))]
    firsts = {order: cost(start, order) for order in _one_move(start) if order != goal}
    lasts = {order: cost(order, goal) for order in _one_move(goal) if order != start}
    found += [(_with_views([each, cost(order, goal)], target), (order, goal)) for order, each in firsts.items()]
    found += [(_with_views([cost(start, order), each], target), (order, goal)) for order, each in lasts.items() if order not in firsts]
    # behind a convolution the runtime cancels what leaves a batch in front
    toll = _LEAVE_BATCH if chain.sizes[0] % _OPEN == 0 else 0.0

    def preference(candidate: tuple[float, tuple[Order, ...]]) -> float:
        return candidate[0] * (1 + toll * sum(step[0] != 0 for step in candidate[1]))

    best = min(found, key=preference)
    if len(start) <= _MOST_ATOMS:
        for first, before in firsts.items():
            for last, after in lasts.items():
                if first != last and _with_views([before, 0.0, after], target) < preference(best):
                    total = _with_views([before, cost(first, last), after], target)
                    best = min(best, (total, (first, last, goal)), key=preference)
    return best[1] if best[0] <= _GAIN * chain.cost else None


def _write(builder: GraphBuilder, chain: _Chain, steps: Sequence[Order]) -> ir.Value:
    """The new chain. Its first and last Transpose keep the shapes at the ends if they can, as a neighbour may then cancel them."""
    anchor, name = chain.nodes[-1], chain.nodes[-1].outputs[0].name
    value = chain.nodes[0].inputs[0]
    assert value is not None
    held, shape = tuple(range(len(chain.sizes))), chain.source

    def view(value: ir.Value, target: Shape) -> ir.Value:
        if target == shape and steps:  # without any step the node stands for the tensor whose name it takes over
            return value
        wanted = builder.initializer(f"{name}_shape", np.asarray([-1 if n % _OPEN == 0 else n for n in target], np.int64))
        return builder.add("Reshape", [value, wanted], name=f"{name}_Reshape", like=value, shape=_declared(target), before=anchor)

    for number, step in enumerate(steps):
        before = _grouped(shape, [chain.sizes[a] for a in held]) if number == 0 else None
        after = _grouped(chain.result, [chain.sizes[a] for a in step]) if number == len(steps) - 1 else None
        perm, layer_inputs = _permutation(chain, held, step, before, after, shape)
        value = view(value, layer_inputs)
        shape = tuple(layer_inputs[p] for p in perm)
        value = builder.add(
            "Transpose", [value], {"perm": perm}, name=f"{name}_Transpose", like=value, shape=_declared(shape), before=anchor
        )
        held = step
    return view(value, chain.result)


def _declared(shape: Shape) -> ir.Shape:
    return ir.Shape([None if n % _OPEN == 0 else n for n in shape])


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
    """A Transpose from one order of atoms to another: its ``perm``, and the shape it is given.

    The runtime does not see that axes move together: where one run of atoms moves, one axis has to.
    """
    merged, joined = merge_neighbours([chain.sizes[a] for a in held], tuple(held.index(a) for a in step))
    for counts, order, inverse in ((before, held, False), (after, step, True)):
        if counts is None:
            continue
        axes, index = [], 0
        for count in counts:
            axes.append(order[index : index + count])
            index += count
        other = step if not inverse else held
        moved = _order_of_axes(axes, other)
        if moved is None or moves_one_axis(moved) != moves_one_axis(joined):
            continue
        if not inverse:
            return moved, shape
        sizes = [math.prod(chain.sizes[a] for a in axis) for axis in axes]
        return [moved.index(i) for i in range(len(axes))], tuple(sizes[i] for i in moved)
    return list(joined), merged


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
