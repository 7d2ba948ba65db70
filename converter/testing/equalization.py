"""Parts of networks through which per-channel scales are moved, and what tells whether a network computes the same as before."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from converter.runtime.session import open_session, run_session
from converter.testing.sketch import Sketch, feeds_for
from converter.transforms.equalization.apply import Equalization
from converter.transforms.equalization.find import find_sites

C = 8

Part = Callable[[Sketch, str], str]


def random_equalizations(
    model: ir.Model, seed: int = 0, kinds: tuple[str, ...] = ("cross_layer", "query_key", "per_channel_quantize")
) -> dict[str, Equalization]:
    """An equalization for every site: scales from 0.1 to 10, and shifts where they are exact."""
    generator = np.random.default_rng(seed)
    return {
        name: Equalization(
            tuple(np.exp(generator.uniform(np.log(0.1), np.log(10.0), site.channels))),
            tuple(generator.standard_normal(site.channels)) if site.shift else (),
        )
        for name, site in find_sites(model).items()
        if site.kind in kinds
    }


def difference(model: ir.Model, equalized: ir.Model) -> float:
    """Largest difference between the outputs, relative to the largest output; by the runtime without optimisations."""
    worst = 0.0
    for feed in feeds_for(model, 2, seed=7):
        before, after = (run_session(open_session(ir.to_proto(m), threads=1, optimise=False), feed) for m in (model, equalized))
        worst = max(worst, *(float(np.abs(before[n] - after[n]).max() / np.abs(before[n]).max()) for n in before))
    return worst


def shuffle(s: Sketch, x: str) -> str:
    x = s.add("Reshape", x, s.constant([1, 2, C // 2, 6, 6], np.int64))
    return s.add("Reshape", s.add("Transpose", x, perm=[0, 2, 1, 3, 4]), s.constant([1, C, 6, 6], np.int64))


def to_map(s: Sketch, x: str) -> str:
    return s.add("Reshape", s.add("Transpose", x, perm=[0, 2, 1]), s.constant([1, C, 6, 6], np.int64))


def to_tokens(s: Sketch, x: str) -> str:
    return s.add("Transpose", s.add("Reshape", x, s.constant([1, C, -1], np.int64)), perm=[0, 2, 1])


def resized_and_back(s: Sketch, x: str) -> str:
    larger = s.add("Resize", x, "", s.constant([1.0, 1.0, 2.0, 2.0]), mode="linear")
    return s.add("MaxPool", larger, kernel_shape=[2, 2], strides=[2, 2])


def in_two_parts(s: Sketch, x: str) -> str:
    """Upper half of the channels first."""
    left, right = s.split("Split", x, outputs=2, axis=1, num_outputs=2)
    return s.add("Concat", right, s.add("Relu", left), axis=1)


def residual(s: Sketch, x: str) -> str:
    return s.add("Add", x, s.conv(s.silu(s.conv(x, C, size=1)), C))


def gated(s: Sketch, x: str) -> str:
    gate = s.add("Sigmoid", s.conv(s.add("GlobalAveragePool", x), C, size=1))
    return s.add("Max", s.add("Mul", x, gate), s.add("Mul", x, s.add("Sigmoid", s.add("Sigmoid", gate))))


def normalised(s: Sketch, x: str) -> str:
    return s.add("LayerNormalization", x, s.normal(C), s.normal(C))


def gemm(s: Sketch, x: str, alpha: float = 1.0, beta: float = 1.0) -> str:
    rows = s.add("Reshape", to_tokens(s, x), s.constant([36, C], np.int64))
    rows = s.add("Gemm", rows, s.normal(C, C), s.normal(C), transB=1, alpha=alpha, beta=beta)
    return to_map(s, s.add("Reshape", rows, s.constant([1, 36, C], np.int64)))


MAKERS: dict[str, Part] = {
    "gemm": gemm,
    "gemm with factors": lambda s, x: gemm(s, x, alpha=0.7, beta=0.5),
    "conv": lambda s, x: s.conv(x, C),
    "conv without bias": lambda s, x: s.conv(x, C, bias=False),
    "grouped conv": lambda s, x: s.conv(x, C, group=2),
    "depthwise conv": lambda s, x: s.conv(x, C, group=C),
    "instance normalization": lambda s, x: s.add("InstanceNormalization", x, s.normal(C), s.normal(C)),
    "factor and offset": lambda s, x: s.add("Add", s.add("Mul", s.add("Tanh", x), s.normal(1, C, 1, 1)), s.normal(C, 1, 1)),
    "offset in front": lambda s, x: s.add("Sub", s.conv(x, C), s.normal(C, 1, 1)),
    "layer normalization": lambda s, x: to_map(s, normalised(s, to_tokens(s, x))),
    "layer normalization without beta": lambda s, x: to_map(s, s.add("LayerNormalization", to_tokens(s, x), s.normal(C))),
    "linear": lambda s, x: to_map(s, s.add("MatMul", to_tokens(s, x), s.normal(C, C))),
    "linear with bias": lambda s, x: to_map(s, s.add("Add", s.normal(C), s.add("MatMul", to_tokens(s, x), s.normal(C, C)))),
}

BETWEEN: dict[str, Part] = {
    "nothing": lambda s, x: x,
    "relu": lambda s, x: s.add("Relu", x),
    "leaky relu": lambda s, x: s.add("LeakyRelu", x, alpha=0.1),
    "open clip": lambda s, x: s.add("Clip", x, s.constant(0.0)),
    "max pool": lambda s, x: s.add("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4),
    "average pool": lambda s, x: s.add("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4),
    "average pool with zeros": lambda s, x: s.add("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1),
    "pooled mean": lambda s, x: s.add("ReduceMean", x, s.constant([3], np.int64)),
    "pooled sum": lambda s, x: s.add("ReduceSum", x, s.constant([-1], np.int64)),
    "resize": resized_and_back,
    "shuffle": shuffle,
    "halves": in_two_parts,
    "residual": residual,
    "gates": gated,
    "number": lambda s, x: s.add("Mul", x, s.constant(-0.3)),
    "tokens and back": lambda s, x: to_map(s, to_tokens(s, x)),
}


def linear(s: Sketch, x: str) -> str:
    """Channels last, then five outputs, [1, height, width, 5]."""
    return s.add("MatMul", s.add("Transpose", x, perm=[0, 2, 3, 1]), s.normal(C, 5))


READERS: dict[str, Part] = {
    "conv": lambda s, x: s.conv(x, C, outputs=4),
    "conv without border": lambda s, x: s.conv(x, C, outputs=4, size=1, bias=False),
    "grouped conv": lambda s, x: s.conv(x, C, group=4),
    "depthwise conv": lambda s, x: s.conv(x, C, group=C),
    "depthwise with two outputs": lambda s, x: s.conv(x, C, group=C, outputs=2 * C),
    "two convs": lambda s, x: s.add("Add", s.conv(x, C, size=1), s.conv(x, C)),
    "linear": lambda s, x: linear(s, x),
    "linear with bias": lambda s, x: s.add("Add", linear(s, x), s.normal(5)),
    "linear with positions": lambda s, x: s.add("Add", linear(s, x), s.normal(6, 1, 5)),
    "linear with a number": lambda s, x: s.add("Add", linear(s, x), s.normal(1)),
    "gemm of means": lambda s, x: s.add("Gemm", s.add("Flatten", s.add("GlobalAveragePool", x)), s.normal(5, C), s.normal(5), transB=1),
    "gemm of maxima": lambda s, x: s.add("Gemm", s.add("Flatten", s.add("GlobalMaxPool", x)), s.normal(C, 5), alpha=0.5),
}


def attention(s: Sketch, x: str, spelling: str) -> str:
    """Two heads of four channels on tokens [1, 9, 8]; all spellings compute an attention of their own weights."""
    heads = s.constant([1, 9, 2, 4], np.int64)
    if spelling == "apart":
        q, k, v = (s.add("Reshape", s.add("Add", s.add("MatMul", x, s.normal(C, C)), s.normal(C)), heads) for _ in range(3))
        q, k, v = (
            s.add("Transpose", q, perm=[0, 2, 1, 3]),
            s.add("Transpose", k, perm=[0, 2, 3, 1]),
            s.add("Transpose", v, perm=[0, 2, 1, 3]),
        )
    else:
        packed = s.add("Add", s.add("MatMul", x, s.normal(C, 3 * C)), s.normal(3 * C))
        if spelling == "by head":
            packed = s.add("Transpose", s.add("Reshape", packed, s.constant([1, 9, 2, 12], np.int64)), perm=[0, 2, 1, 3])
            q, k, v = s.split("Split", packed, s.constant([4, 4, 4], np.int64), outputs=3, axis=3)
        else:
            packed = s.add("Reshape", packed, s.constant([1, 9, 3, 2, 4], np.int64))
            packed = s.add("Transpose", packed, perm=[2, 0, 3, 1, 4])
            if spelling == "split":
                q, k, v = (s.add("Squeeze", p, s.constant([0], np.int64)) for p in s.split("Split", packed, outputs=3, num_outputs=3))
            else:
                q, k, v = (s.add("Gather", packed, s.constant(i, np.int64), axis=0) for i in range(3))
        k = s.add("Transpose", k, perm=[0, 1, 3, 2])
    scores = s.add("Mul", s.add("MatMul", s.add("Mul", q, s.constant(0.7)), k), s.constant(0.5))
    mixed = s.add("MatMul", s.add("Softmax", scores, axis=-1), v)
    mixed = s.add("Reshape", s.add("Transpose", mixed, perm=[0, 2, 1, 3]), s.constant([1, 9, 8], np.int64))
    return s.add("Add", s.add("MatMul", mixed, s.normal(C, C)), s.normal(C), name="projected")
