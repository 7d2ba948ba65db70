"""Steps of random graphs: what has weights, products, normalisations and pooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from converter.testing.random_graphs.draft import Draft, Unfit

__all__ = ["LAYERS", "NORMALISATIONS", "gemm_of", "reduce_node"]

Step = Callable[[Draft], "str | Sequence[str]"]


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def conv(draft: Draft) -> str:
    x = draft.pick_rank(3, 4, 5)
    channels, space = draft.shape(x)[1], draft.shape(x)[2:]
    group = draft.choice([1, 1, channels, *_divisors(channels)])
    outputs = group * draft.choice([1, 2, 3] if group > 1 else [4, 1, 3, 8])
    kernel = [draft.choice([k for k in (3, 1, 2, 5) if k <= max(size, 1)]) for size in space]
    attributes = _window(draft, kernel)
    if draft.one_in(5):
        attributes["dilations"] = [draft.choice([1, 2]) for _ in kernel]
    weight = draft.weight((outputs, channels // group, *kernel), channels // group * math.prod(kernel))
    bias = [] if draft.one_in(3) else [draft.uniform(-0.3, 0.3, (outputs,))]
    return str(draft.add("Conv", x, weight, *bias, group=group, **attributes))


def _window(draft: Draft, kernel: Sequence[int], *, pads: bool = True) -> dict[str, Any]:
    attributes: dict[str, Any] = {"kernel_shape": list(kernel)}
    if not draft.one_in(3):
        attributes["strides"] = [draft.choice([1, 1, 2]) for _ in kernel]
    style = draft.choice(["same", "none", "auto", "odd"]) if pads else "none"
    if style == "same":
        attributes["pads"] = [k // 2 for k in kernel] * 2
    elif style == "odd":
        attributes["pads"] = [draft.random.randrange(max(k, 1)) for k in (*kernel, *kernel)]
    elif style == "auto":
        attributes["auto_pad"] = draft.choice(["SAME_UPPER", "SAME_LOWER", "VALID"])
    return attributes


def conv_transpose(draft: Draft) -> str:
    x = draft.pick_rank(3, 4)
    channels, space = draft.shape(x)[1], draft.shape(x)[2:]
    outputs, group = draft.choice([3, 4, 1]), 1
    if draft.one_in(4):
        group, outputs = channels, channels
    stride = draft.choice([2, 1])
    kernel = [draft.choice([2, 3])] * len(space)
    weight = draft.weight((channels, outputs // group, *kernel), channels)
    bias = [draft.uniform(-0.3, 0.3, (outputs,))] if draft.one_in(2) else []
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": [stride] * len(space), "group": group}
    if stride == 2 and draft.one_in(3):
        attributes["output_padding"] = [1] * len(space)
    if draft.one_in(2):
        attributes["pads"] = [kernel[0] // 2] * (2 * len(space))
    return str(draft.add("ConvTranspose", x, weight, *bias, **attributes))


def computed_weight(draft: Draft) -> str:
    """A convolution by weights that are computed from a constant and the input's mean."""
    x = draft.pick_rank(4)
    channels = draft.shape(x)[1]
    mean = draft.add("GlobalAveragePool", x)
    return str(draft.add("Conv", x, draft.add("Mul", draft.weight((4, channels, 1, 1), channels), draft.add("Sigmoid", mean))))


def gemm(draft: Draft) -> str:
    return gemm_of(draft, draft.pick_rank(2))


def gemm_of(draft: Draft, x: str) -> str:
    """Gemm of a matrix with any of its attributes."""
    transposed = not draft.open_batch and draft.one_in(6)
    width = draft.shape(x)[0 if transposed else 1]
    outputs = draft.choice([4, 1, 7, 10])
    attributes: dict[str, Any] = {"transA": 1} if transposed else {}
    if draft.one_in(3):
        attributes["transB"] = 1
    if draft.one_in(3):
        attributes |= {"alpha": 0.5, "beta": draft.choice([1.0, 0.25])}
    weight = draft.weight((outputs, width) if "transB" in attributes else (width, outputs), width)
    shapes: list[tuple[int, ...]] = [(outputs,), (1, outputs), (1,), ()]
    bias = [draft.uniform(-0.3, 0.3, draft.choice(shapes))] if draft.opset < 11 or not draft.one_in(4) else []
    return str(draft.add("Gemm", x, weight, *bias, **attributes))


def matmul_constant(draft: Draft) -> str:
    x = draft.pick_rank(1, 2, 3, 4)
    shape = draft.shape(x)
    outputs = draft.choice([6, 1, 4])
    if len(shape) >= 2 and draft.one_in(3):  # constant on the left
        rows = shape[-2]
        left: list[tuple[int, ...]] = [(outputs, rows), (rows,)]
        return str(draft.add("MatMul", draft.weight(draft.choice(left), rows), x))
    width = shape[-1]
    right: list[tuple[int, ...]] = [(width, outputs), (width, outputs), (width, outputs), (width,), (*shape[1:-2], width, outputs)]
    y = draft.add("MatMul", x, draft.weight(draft.choice(right), width))
    return str(draft.add("Add", y, draft.uniform(-0.3, 0.3, (outputs,)))) if draft.one_in(2) else str(y)


def matmul_computed(draft: Draft) -> str:
    """Of two computed operands, which may differ in rank, and one may be a vector."""
    x = draft.pick_rank(2, 3, 4)
    rank, width = draft.rank(x), draft.shape(x)[-1]
    scaled = draft.add("Mul", x, draft.number(1 / math.sqrt(max(width, 1))))
    other = draft.choice(["transposed", "matrix", "vector"])
    if other == "transposed" or rank == 2:
        y = draft.add("Transpose", x, perm=[*range(rank - 2), rank - 1, rank - 2])
    else:
        axes = list(range(rank - 2)) if other == "matrix" else list(range(rank - 1))
        y = reduce_node(draft, "ReduceMean", x, axes, keep=False)
        if other == "matrix":
            y = draft.add("Transpose", y, perm=[1, 0])
    return str(draft.add("MatMul", scaled, y))


def attention(draft: Draft) -> str:
    x = draft.pick_rank(3)
    tokens, width = draft.shape(x)[1:]
    query, key, value = (draft.add("MatMul", x, draft.weight((width, 4), width)) for _ in range(3))
    scores = draft.add("MatMul", query, draft.add("Transpose", key, perm=[0, 2, 1]))
    scores = draft.add(draft.choice(["Mul", "Mul", "Div"]), scores, draft.number(0.5))
    scores = _masked(draft, scores, tokens)
    weights = draft.add("Softmax", scores, axis=2 if draft.opset < 13 else draft.choice([-1, 2]))
    return str(draft.add("MatMul", weights, value))


def _masked(draft: Draft, scores: str, tokens: int) -> str:
    style = draft.choice(["none", "none", "infinite", "large", "where", "where infinite"])
    causal = np.triu(np.ones((tokens, tokens), bool), 1)
    if style in ("infinite", "large"):
        mask = np.where(causal, np.float32(-np.inf if style == "infinite" else -1e4), np.float32(0))
        return str(draft.add("Add", scores, draft.constant(mask)))
    if style.startswith("where"):
        low = draft.scalar(-np.inf if "infinite" in style else -3e38)
        return str(draft.add("Where", draft.constant(causal), low, scores))
    return scores


def einsum(draft: Draft) -> str:
    draft.needs(12)
    x = draft.pick_rank(2, 3, 4)
    rank, shape = draft.rank(x), draft.shape(x)
    if draft.one_in(2):
        letters = "abcd"[:rank]
        weight = draft.weight((shape[-1], 5), shape[-1])
        return str(draft.add("Einsum", x, weight, equation=f"{letters},{letters[-1]}z->{letters[:-1]}z"))
    scaled = draft.add("Mul", x, draft.number(1 / math.sqrt(max(shape[-1], 1))))
    pairs = {2: ["ij,kj->ik", "ij,ij->i"], 3: ["bij,bkj->bik", "bij,bkj->bi"], 4: ["bchw,bdhw->bcd", "bchw,bchv->bcwv"]}
    return str(draft.add("Einsum", scaled, x, equation=draft.choice(pairs[rank])))


def recurrent(draft: Draft) -> str:
    x = draft.pick_rank(3)
    if not draft.fixed(x, 1):
        raise Unfit("the number of steps is open")
    width, hidden = draft.shape(x)[2], 4
    kind, gates = draft.choice([("LSTM", 4), ("GRU", 3), ("RNN", 1)])
    directions = 2 if draft.one_in(3) else 1
    steps_first = draft.add("Transpose", x, perm=[1, 0, 2])
    weights = [draft.weight((directions, gates * hidden, size), size) for size in (width, hidden)]
    attributes: dict[str, Any] = {"hidden_size": hidden, "direction": "bidirectional" if directions == 2 else "forward"}
    if kind == "GRU" and draft.one_in(2):
        attributes["linear_before_reset"] = 1
    biases = [draft.uniform(-0.2, 0.2, (directions, 2 * gates * hidden))] if draft.one_in(2) else []
    y = draft.add(kind, steps_first, *weights, *biases, **attributes)  # [steps, directions, batch, hidden]
    y = draft.add("Transpose", y, perm=[2, 0, 1, 3])
    return str(draft.add("Reshape", y, draft.ints(0, 0, directions * hidden)))


# Normalisations, reductions and pooling


def reduce_node(draft: Draft, op_type: str, x: str, axes: Sequence[int], *, keep: bool) -> str:
    """A reduction with its axes as the opset wants them."""
    as_input = draft.opset >= (13 if op_type == "ReduceSum" else 18)
    if as_input:
        return str(draft.add(op_type, x, draft.ints(*axes), keepdims=int(keep)))
    return str(draft.add(op_type, x, axes=list(axes), keepdims=int(keep)))


def reduction(draft: Draft) -> str:
    x = draft.pick_rank(2, 3, 4, 5)
    kinds = ["Mean", "Mean", "Sum", "Max", "Min", "L1", "L2", "LogSumExp", "SumSquare", "Prod"]
    axes = sorted({draft.random.randrange(1, draft.rank(x)) for _ in range(2)})
    if draft.one_in(3):
        axes = [axis - draft.rank(x) for axis in axes]
        if draft.opset < 11:
            raise Unfit("negative axes")
    return reduce_node(draft, "Reduce" + draft.choice(kinds), x, axes, keep=draft.one_in(2))


def batch_norm(draft: Draft) -> str:
    x = draft.pick_rank(2, 3, 4, 5)
    channels = draft.shape(x)[1]
    statistics = [draft.uniform(low, high, (channels,)) for low, high in ((0.5, 1.5), (-0.3, 0.3), (-0.2, 0.2), (0.4, 1.2))]
    return str(draft.add("BatchNormalization", x, *statistics, epsilon=1e-5))


def layer_norm(draft: Draft) -> str:
    x = draft.pick_rank(2, 3, 4)
    width = draft.shape(x)[-1]
    scale, bias = draft.uniform(0.7, 1.3, (width,)), draft.uniform(-0.2, 0.2, (width,))
    if draft.opset >= 17 and draft.one_in(2):
        return str(draft.add("LayerNormalization", x, scale, *([bias] if draft.one_in(2) else []), axis=-1, epsilon=1e-5))
    last = [draft.rank(x) - 1]
    centred = draft.add("Sub", x, reduce_node(draft, "ReduceMean", x, last, keep=True))
    variance = reduce_node(draft, "ReduceMean", draft.add("Pow", centred, draft.number(2.0)), last, keep=True)
    deviation = draft.add("Sqrt", draft.add("Add", variance, draft.number(draft.choice([1e-5, 1e-6, 1e-3]))))
    return str(draft.add("Add", draft.add("Mul", draft.add("Div", centred, deviation), scale), bias))


def root_mean_square(draft: Draft) -> str:
    """Divide by the norm, with one of the usual guards."""
    x = draft.pick_rank(2, 3, 4)
    axis = draft.choice([draft.rank(x) - 1, 1])
    norm = reduce_node(draft, "ReduceL2", x, [axis], keep=True)
    guard = draft.number(draft.choice([1e-6, 1e-12, 1e-4]))
    style = draft.choice(["Max", "Clip", "Add"])
    if style == "Clip":
        safe = draft.add("Clip", norm, guard) if draft.opset >= 11 and draft.rank(guard) == 0 else draft.add("Max", norm, guard)
    else:
        safe = draft.add(style, norm, guard)
    return str(draft.add("Div", x, safe))


def other_norm(draft: Draft) -> str:
    x = draft.pick_rank(3, 4)
    channels = draft.shape(x)[1]
    scale, bias = draft.uniform(0.7, 1.3, (channels,)), draft.uniform(-0.2, 0.2, (channels,))
    kind = draft.choice(["instance", "group", "rms", "lrn", "mvn", "lp"])
    if kind == "instance":
        return str(draft.add("InstanceNormalization", x, scale, bias, epsilon=1e-5))
    if kind == "group":
        draft.needs(21)
        return str(draft.add("GroupNormalization", x, scale, bias, num_groups=draft.choice(_divisors(channels))))
    if kind == "rms":
        draft.needs(23)
        return str(draft.add("RMSNormalization", x, draft.uniform(0.7, 1.3, draft.shape(x)[-1:]), axis=-1))
    if kind == "lrn":
        return str(draft.add("LRN", x, size=3, alpha=0.1, beta=0.75, bias=1.0))
    if kind == "mvn":
        return str(draft.add("MeanVarianceNormalization", x, axes=[0, 2, 3][: draft.rank(x) - 1]))
    return str(draft.add("LpNormalization", x, axis=-1, p=2))


def global_pool(draft: Draft) -> str:
    x = draft.pick_rank(3, 4, 5)
    return str(draft.add(draft.choice(["GlobalAveragePool", "GlobalAveragePool", "GlobalMaxPool"]), x))


def pool(draft: Draft) -> str:
    x = draft.pick_rank(3, 4, 5)
    kernel = [draft.choice([k for k in (2, 3) if k <= max(size, 2)]) for size in draft.shape(x)[2:]]
    kind = draft.choice(["MaxPool", "AveragePool", "MaxPool", "AveragePool", "LpPool"])
    attributes = _window(draft, kernel, pads=kind != "LpPool")
    if kind != "LpPool" and draft.opset >= 10 and draft.one_in(5):
        attributes["ceil_mode"] = 1
    if kind == "AveragePool" and draft.one_in(3):
        attributes["count_include_pad"] = 1
    return str(draft.add(kind, x, **attributes))


LAYERS: dict[str, Step] = {
    "conv": conv,
    "conv_transpose": conv_transpose,
    "computed_weight": computed_weight,
    "gemm": gemm,
    "matmul_constant": matmul_constant,
    "matmul_computed": matmul_computed,
    "attention": attention,
    "einsum": einsum,
    "recurrent": recurrent,
}

NORMALISATIONS: dict[str, Step] = {
    "reduction": reduction,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "root_mean_square": root_mean_square,
    "other_norm": other_norm,
    "global_pool": global_pool,
    "pool": pool,
}
