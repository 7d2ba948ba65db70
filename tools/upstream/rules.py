"""Which nodes of a model each proposal is about, and how few instructions these could take."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tools.upstream import bounds
from tools.upstream.kernels import Kernel

__all__ = ["RULES", "Gain", "table_groups"]

_FEW = 12
"""Channels of an image at most: three, four, or four columns of three side by side."""

_OF_CODES = frozenset({"QLinearSigmoid", "QLinearLeakyRelu", "QLinearMul", "QLinearAdd", "Clip", "Max", "Min", "Add", "Sub", "Mul", "Relu"})
"""Operators whose output at a place depends on their inputs at that place."""

_PRODUCTS = ("MatMulIntegerToFloat", "QLinearMatMul", "MatMulInteger")
_LINEAR = ("QGemm", *_PRODUCTS)
_NORMS = ("LayerNormalization", "SkipLayerNormalization", "InstanceNormalization")


@dataclass(frozen=True)
class Gain:
    """What a proposal would win in a model.

    Attributes:
        nodes: it is about.
        today: instructions that they take.
        bound: those that they could take; never more than today, node by node.
    """

    nodes: int
    today: float
    bound: float


def _sum(pairs: Iterable[tuple[float, float]]) -> Gain:
    """Of what is taken today and could be; where the bound is above what is taken, nothing is won."""
    found = [(today, min(today, bound)) for today, bound in pairs]
    return Gain(len(found), sum(today for today, _ in found), sum(bound for _, bound in found))


def _convolutions(kernels: Sequence[Kernel]) -> list[Kernel]:
    """Those that multiply matrices."""
    return [k for k in kernels if k.op_type == "QLinearConv" and k.attributes.get("group", 1) == 1]


def _channels(kernel: Kernel) -> int:
    return kernel.shapes[kernel.reads[3]][1]


def _convolution(kernel: Kernel) -> float:
    return bounds.product(kernel.elements * math.prod(kernel.shapes[kernel.reads[3]][1:]), kernel.elements)


def _requantization(kernels: Sequence[Kernel]) -> Gain:
    return _sum((k.instructions, _convolution(k)) for k in _convolutions(kernels) if _channels(k) > _FEW)


def _stem(kernels: Sequence[Kernel]) -> Gain:
    return _sum((k.instructions, _convolution(k) + _unfolded(k)) for k in _convolutions(kernels) if _channels(k) <= _FEW)


def _unfolded(kernel: Kernel) -> float:
    outer, inner, rows, *columns = kernel.shapes[kernel.reads[3]]
    return bounds.unfolded(kernel.elements / outer, rows, inner * math.prod(columns)) if rows * math.prod(columns) > 1 else 0.0


def _matrix_product(kernel: Kernel) -> float:
    depth = kernel.shapes[kernel.reads[0]][-1]
    return bounds.product(kernel.elements * depth, kernel.elements, in_float=kernel.writes[0] not in kernel.codes)


def _weights_are_constant(kernel: Kernel) -> bool:
    return len([name for name in kernel.computed if len(kernel.shapes[name]) > 1]) < 2


def _scores(kernels: Sequence[Kernel]) -> Gain:
    found = [k for k in kernels if k.op_type in _PRODUCTS and not _weights_are_constant(k)]
    return _sum((k.instructions, _matrix_product(k)) for k in found)


def _linear(kernels: Sequence[Kernel]) -> Gain:
    found = [k for k in kernels if k.op_type in _LINEAR and _weights_are_constant(k)]
    return _sum((k.instructions, _matrix_product(k)) for k in found)


def _per_element(bound: float, *op_types: str) -> Callable[[Sequence[Kernel]], Gain]:
    return lambda kernels: _sum((k.instructions, bound * k.elements) for k in kernels if k.op_type in op_types)


def table_groups(kernels: Sequence[Kernel]) -> list[tuple[list[Kernel], list[Kernel]]]:
    """Operators that together make functions of the codes of one tensor.

    Returns:
        For each tensor that such functions are of: the operators, and those of them whose output something else reads.
    """
    roots: dict[str, str] = {}
    members: dict[str, list[Kernel]] = {}
    for kernel in kernels:
        root = _root(kernel, roots)
        if root:
            roots[kernel.writes[0]] = root
            members.setdefault(root, []).append(kernel)
    inside = {id(kernel) for group in members.values() for kernel in group}
    read_outside: dict[str, int] = {}
    for kernel in kernels:
        if id(kernel) not in inside:
            read_outside |= dict.fromkeys(kernel.reads, 1)
    read_inside = {name for group in members.values() for kernel in group for name in kernel.reads}
    return [(group, [k for k in group if k.writes[0] in read_outside or k.writes[0] not in read_inside]) for group in members.values()]


def _root(kernel: Kernel, roots: Mapping[str, str]) -> str:
    """The tensor of whose codes the output is a function, place by place; empty if there is none."""
    if kernel.op_type not in _OF_CODES or kernel.writes[0] not in kernel.codes:
        return ""
    if any(math.prod(kernel.shapes[name]) > 1 for name in kernel.constants):
        return ""
    found = {roots.get(name, name) for name in kernel.computed}
    same = {kernel.shapes[name] for name in kernel.computed} == {kernel.shapes[kernel.writes[0]]}
    return found.pop() if len(found) == 1 and same and set(kernel.computed) <= kernel.codes else ""


def _table(kernels: Sequence[Kernel]) -> Gain:
    groups = [(sum(k.instructions for k in group), sum(bounds.TABLE * k.elements for k in ends)) for group, ends in table_groups(kernels)]
    return _sum(pair for pair in groups if pair[0] > pair[1])


RULES: Mapping[str, Callable[[Sequence[Kernel]], Gain]] = {
    "requantization": _requantization,
    "table": _table,
    "stem": _stem,
    "scores": _scores,
    "linear": _linear,
    "quantize": _per_element(bounds.QUANTIZED, "QuantizeLinear"),
    "softmax": _per_element(bounds.SOFTMAX, "Softmax", "QLinearSoftmax"),
    "layer_norm": _per_element(bounds.NORMALIZED, *_NORMS),
}
"""By name of the proposal."""
