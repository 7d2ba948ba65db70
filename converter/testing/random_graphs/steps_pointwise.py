"""Steps of random graphs: activations, arithmetic, thresholds and casts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from converter.testing.random_graphs.draft import Draft, Unfit
from converter.testing.random_graphs.steps_layers import reduce_node

__all__ = ["POINTWISE"]

Step = Callable[[Draft], "str | Sequence[str]"]

_ACTIVATIONS: dict[str, tuple[int, dict[str, Any]]] = {
    "Relu": (9, {}),
    "Sigmoid": (9, {}),
    "Tanh": (9, {}),
    "LeakyRelu": (9, {"alpha": 0.1}),
    "Elu": (9, {"alpha": 1.0}),
    "Selu": (9, {}),
    "Softplus": (9, {}),
    "Softsign": (9, {}),
    "HardSigmoid": (9, {"alpha": 1 / 6, "beta": 0.5}),
    "ThresholdedRelu": (10, {"alpha": 0.5}),
    "Erf": (9, {}),
    "Abs": (9, {}),
    "Neg": (9, {}),
    "Sin": (9, {}),
    "Cos": (9, {}),
    "Floor": (9, {}),
    "Sign": (9, {}),
    "Round": (11, {}),
    "Celu": (12, {"alpha": 1.0}),
    "HardSwish": (14, {}),
    "Mish": (18, {}),
    "Gelu": (20, {}),
    "Swish": (24, {}),
}

_USUAL = ("Relu", "Sigmoid", "Tanh", "HardSwish", "Gelu", "LeakyRelu")


def activation(draft: Draft) -> str:
    kinds = [*_USUAL, *_USUAL, *_ACTIVATIONS]
    kind = draft.choice([k for k in kinds if _ACTIVATIONS[k][0] <= draft.opset])
    attributes = dict(_ACTIVATIONS[kind][1])
    if kind == "Gelu" and draft.one_in(2):
        attributes["approximate"] = "tanh"
    return str(draft.add(kind, draft.pick(), **attributes))


def spelled_activation(draft: Draft) -> str:
    x = draft.pick()
    kind = draft.choice(["silu", "gelu", "hard_swish", "quick_gelu"])
    if kind == "silu":
        return str(draft.add("Mul", x, draft.add("Sigmoid", x)))
    if kind == "quick_gelu":
        return str(draft.add("Mul", x, draft.add("Sigmoid", draft.add("Mul", x, draft.number(1.702)))))
    if kind == "hard_swish":
        return str(draft.add("Mul", x, draft.add("HardSigmoid", x, alpha=1 / 6, beta=0.5)))
    erf = draft.add("Erf", draft.add("Div", x, draft.number(math.sqrt(2))))
    return str(draft.add("Mul", draft.add("Mul", x, draft.add("Add", erf, draft.number(1.0))), draft.number(0.5)))


def prelu(draft: Draft) -> str:
    x = draft.pick_rank(2, 3, 4)
    shapes: list[tuple[int, ...]] = [(1,), (draft.shape(x)[1], *[1] * (draft.rank(x) - 2))]
    return str(draft.add("PRelu", x, draft.uniform(0.05, 0.4, draft.choice(shapes))))


def clip(draft: Draft) -> str:
    x = draft.pick()
    low, high = draft.choice([(0.0, 6.0), (0.0, None), (1e-6, None), (1e-3, None), (-1.0, 1.0), (None, 1.0), (1e-12, 2.0), (-0.5, 0.25)])
    if draft.opset < 11:
        bounds = {name: value for name, value in (("min", low), ("max", high)) if value is not None}
        return str(draft.add("Clip", x, **bounds))
    names = ["" if value is None else draft.scalar(value) for value in (low, high)]
    return str(draft.add("Clip", x, *(names if names[1] else names[:1])))


def guarded(draft: Draft) -> str:
    """Exp, Log, Sqrt, Reciprocal and powers of what has been brought to where they are tame."""
    x = draft.pick()
    kind = draft.choice(["Exp", "Log", "Sqrt", "Reciprocal", "Pow"])
    if kind == "Exp":
        return str(draft.add("Exp", draft.add("Min", x, draft.number(2.0))))
    positive = draft.add(draft.choice(["Relu", "Abs", "Sigmoid"]), x)
    guard = draft.number(draft.choice([1.0, 0.1, 1e-2]))
    positive = draft.add(draft.choice(["Add", "Max"]), positive, guard)
    if kind == "Pow":
        return str(draft.add("Pow", positive, draft.number(draft.choice([0.5, 3.0, 1 / 3, -0.5]))))
    return str(draft.add(kind, positive))


def arithmetic_constant(draft: Draft) -> str:
    """With a constant of any shape that broadcasts, on either side."""
    x = draft.pick()
    shape, rank = draft.shape(x), draft.rank(x)
    shapes: list[tuple[int, ...]] = [(), (1,), (1,) * rank, (1,) * max(rank - 1, 0), (1, 1, 1)]
    if rank:
        shapes += [shape[-1:], shape[-1:], (1,) * (rank - 1) + shape[-1:]]
    if rank >= 2:
        shapes += [(shape[1], *[1] * (rank - 2)), (1, shape[1], *[1] * (rank - 2)), shape[1:]]
    op_type = draft.choice(["Add", "Mul", "Sub", "Div", "Max", "Min"])
    size = draft.choice(shapes)
    positive = op_type == "Div" or draft.one_in(3)
    operand = draft.uniform(0.5, 1.5, size) if positive else draft.weight(size, 1)
    pair = (x, operand) if op_type == "Div" or not draft.one_in(3) else (operand, x)
    return str(draft.add(op_type, *pair))


def squared(draft: Draft) -> str:
    x = draft.pick()
    style = draft.choice(["Pow", "Mul", "Pow3"])
    if style == "Mul":
        return str(draft.add("Mul", x, x))
    return str(draft.add("Pow", x, draft.number(2.0 if style == "Pow" else 3.0)))


def arithmetic_computed(draft: Draft) -> str:
    """Of two computed tensors whose shapes broadcast, of equal or unequal rank."""
    x = draft.pick()

    def fits(name: str) -> bool:
        try:
            return np.broadcast_shapes(draft.shape(name), draft.shape(x)) is not None
        except ValueError:
            return False

    y = draft.pick(fits, newest=False)
    op_type = draft.choice(["Add", "Add", "Mul", "Sub", "Max", "Min", "Sum", "Mean"])
    operands = [x, y] if not draft.one_in(3) else [y, x]
    if op_type in ("Sum", "Max", "Mean") and draft.one_in(3):
        operands.append(draft.number(0.5))
    return str(draft.add(op_type, *operands))


def squeeze_and_excite(draft: Draft) -> str:
    x = draft.pick_rank(3, 4)
    channels = draft.shape(x)[1]
    kernel = [1] * (draft.rank(x) - 2)
    mean = draft.add("GlobalAveragePool", x)
    gate = draft.add("Conv", mean, draft.weight((channels, channels, *kernel), channels), draft.uniform(-0.2, 0.2, (channels,)))
    return str(draft.add("Mul", x, draft.add(draft.choice(["Sigmoid", "HardSigmoid"]), gate)))


def softmax(draft: Draft) -> str:
    x = draft.pick_rank(2, 3, 4)
    axis = draft.choice([draft.rank(x) - 1, 1])
    return str(draft.add(draft.choice(["Softmax", "Softmax", "LogSoftmax"]), x, axis=axis))


def threshold(draft: Draft) -> str:
    """A comparison that selects, multiplies or is cast."""
    x = draft.pick()
    bound = draft.number(draft.choice([0.0, 0.3, -0.2]))
    kinds = ["Greater", "Less", *(["GreaterOrEqual"] if draft.opset >= 12 else [])]
    condition = draft.add(draft.choice(kinds), x, bound)
    style = draft.choice(["where", "where constant", "cast"])
    if style == "cast":
        return str(draft.add("Cast", condition, to=TensorProto.FLOAT))
    other = draft.number(0.0) if style == "where constant" else draft.add("Mul", x, draft.number(0.2))
    return str(draft.add("Where", condition, *([x, other] if not draft.one_in(3) else [other, x])))


def where_constant(draft: Draft) -> str:
    x = draft.pick_rank(2, 3, 4)
    mask = draft.constant(draft.generator.random(draft.shape(x)[1:]) < 0.6)
    return str(draft.add("Where", mask, x, draft.number(draft.choice([0.0, -1.0]))))


def nan_guard(draft: Draft) -> str:
    """Rows that are masked throughout give NaN, which is replaced: as exporters write attention with a boolean mask."""
    x = draft.pick_rank(2, 3, 4)
    if not draft.one_in(3):
        return str(draft.add("Where", draft.add("IsNaN", x), draft.number(0.0), x))
    mask = np.zeros(draft.shape(x)[1:], np.float32)
    mask.reshape(-1, mask.shape[-1] if mask.ndim else 1)[0] = -np.inf
    weights = draft.add("Softmax", draft.add("Add", x, draft.constant(mask)), axis=draft.rank(x) - 1)
    return str(draft.add("Where", draft.add("IsNaN", weights), draft.number(0.0), weights))


def cast_and_back(draft: Draft) -> str:
    x = draft.pick()
    kind = draft.choice(["FLOAT16", "INT32", "INT64", "BOOL", "DOUBLE", "UINT8"])
    if kind in ("INT32", "INT64"):
        x = draft.add("Mul", x, draft.number(4.0))
    if kind == "UINT8":
        x = draft.add("Abs", x)
    return str(draft.add("Cast", draft.add("Cast", x, to=TensorProto.DataType.Value(kind)), to=TensorProto.FLOAT))


def logic(draft: Draft) -> str:
    x = draft.pick()
    first, second = draft.add("Greater", x, draft.number(-0.5)), draft.add("Less", x, draft.number(0.8))
    both = draft.add(draft.choice(["And", "Or", "Xor"]), first, second)
    return str(draft.add("Where", draft.add("Not", both), draft.number(0.1), x))


def cumulative(draft: Draft) -> str:
    draft.needs(11)
    x = draft.pick_rank(2, 3)
    axis = draft.constant(np.asarray(draft.rank(x) - 1, np.int64))
    return str(draft.add("CumSum", x, axis, exclusive=draft.choice([0, 1]), reverse=draft.choice([0, 1])))


def triangle(draft: Draft) -> str:
    draft.needs(14)
    return str(draft.add("Trilu", draft.pick_rank(2, 3, 4), upper=draft.choice([0, 1])))


def centred(draft: Draft) -> str:
    x = draft.pick_rank(3, 4)
    return str(draft.add("Sub", x, reduce_node(draft, "ReduceMean", x, list(range(2, draft.rank(x))), keep=True)))


def identity(draft: Draft) -> str:
    x = draft.pick()
    if draft.one_in(2):
        return str(draft.add("Identity", x))
    if draft.opset >= 12 and draft.one_in(2):
        return str(draft.add("Dropout", x, draft.scalar(0.1)))
    return str(draft.add("Dropout", x))


def modulo(draft: Draft) -> str:
    draft.needs(10)
    x = draft.pick()
    if draft.low(x) == math.inf:
        raise Unfit("empty")
    return str(draft.add("Mod", x, draft.number(1.5), fmod=1))


POINTWISE: dict[str, Step] = {
    "activation": activation,
    "spelled_activation": spelled_activation,
    "prelu": prelu,
    "clip": clip,
    "guarded": guarded,
    "arithmetic_constant": arithmetic_constant,
    "squared": squared,
    "arithmetic_computed": arithmetic_computed,
    "squeeze_and_excite": squeeze_and_excite,
    "softmax": softmax,
    "threshold": threshold,
    "where_constant": where_constant,
    "nan_guard": nan_guard,
    "cast_and_back": cast_and_back,
    "logic": logic,
    "cumulative": cumulative,
    "triangle": triangle,
    "centred": centred,
    "identity": identity,
    "modulo": modulo,
}
