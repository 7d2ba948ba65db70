"""Steps of random graphs: what moves, selects, joins and resizes; and what is rare."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from converter.testing.random_graphs.draft import Draft, Unfit

__all__ = ["MOVEMENT", "RARE", "squeeze_node"]

Step = Callable[[Draft], "str | Sequence[str]"]


def reshape(draft: Draft) -> str:
    x = draft.pick_rank(2, 3, 4, 5)
    shape, rank = draft.shape(x), draft.rank(x)
    style = draft.choice(["flatten space", "split channels", "merge", "ones", "batch in"])
    if style == "flatten space" and rank >= 4:
        target = [0, shape[1], -1]
    elif style == "split channels" and shape[1] % 2 == 0:
        target = [0, 2, shape[1] // 2, *shape[2:]]
    elif style == "ones":
        target = [0, *shape[1:-1], 1, -1]
    elif style == "batch in" and rank >= 3:
        target = [-1, *shape[2:]]
    else:
        target = [0, -1]
    return str(draft.add("Reshape", x, draft.ints(*target)))


def reshape_by_shape(draft: Draft) -> str:
    """The target is computed by Shape, Gather or Slice, and Concat, as TorchScript writes it."""
    x = draft.pick_rank(3, 4)
    shape = draft.add("Shape", x)
    batch = draft.add("Gather", shape, draft.constant(np.asarray([0], np.int64)), axis=0)
    if draft.one_in(3):
        scalar = draft.add("Gather", shape, draft.constant(np.asarray(0, np.int64)), axis=0)
        batch = unsqueeze_node(draft, scalar, [0])
    style = draft.choice(["tokens", "flat", "same"])
    if style == "tokens":
        channels = draft.add("Gather", shape, draft.constant(np.asarray([1], np.int64)), axis=0)
        target = draft.add("Concat", batch, channels, draft.ints(-1), axis=0)
    elif style == "flat":
        target = draft.add("Concat", batch, draft.ints(-1), axis=0)
    else:
        target = draft.add("Cast", draft.add("Cast", shape, to=TensorProto.INT32), to=TensorProto.INT64)
    return str(draft.add("Reshape", x, target))


def transpose(draft: Draft) -> str:
    x = draft.pick_rank(2, 3, 4, 5)
    order = list(range(1, draft.rank(x)))
    draft.random.shuffle(order)
    return str(draft.add("Transpose", x, perm=[0, *order]))


def flatten(draft: Draft) -> str:
    return str(draft.add("Flatten", draft.pick_rank(2, 3, 4, 5), axis=draft.choice([1, 1, 2])))


def unsqueeze_node(draft: Draft, x: str, axes: Sequence[int]) -> str:
    """Unsqueeze as the opset wants it."""
    return str(draft.add("Unsqueeze", x, draft.ints(*axes)) if draft.opset >= 13 else draft.add("Unsqueeze", x, axes=list(axes)))


def squeeze_node(draft: Draft, x: str, axes: Sequence[int]) -> str:
    """Squeeze as the opset wants it."""
    return str(draft.add("Squeeze", x, draft.ints(*axes)) if draft.opset >= 13 else draft.add("Squeeze", x, axes=list(axes)))


def unsqueeze(draft: Draft) -> str:
    x = draft.pick_rank(1, 2, 3, 4)
    return unsqueeze_node(draft, x, [draft.choice([draft.rank(x), 1])])


def squeeze(draft: Draft) -> str:
    x = draft.pick(lambda name: 1 in draft.shape(name)[1:])
    axes = [axis for axis, size in enumerate(draft.shape(x)) if axis and size == 1]
    return squeeze_node(draft, x, axes if draft.one_in(2) else axes[:1])


def _sliced(draft: Draft, x: str, axis: int, start: int, end: int, step: int) -> str:
    if draft.opset < 10:
        if step != 1:
            raise Unfit("Slice has no steps yet")
        return str(draft.add("Slice", x, axes=[axis], starts=[start], ends=[end]))
    return str(draft.add("Slice", x, draft.ints(start), draft.ints(end), draft.ints(axis), draft.ints(step)))


def slice_part(draft: Draft) -> str:
    x = draft.pick_rank(2, 3, 4)
    axis = draft.random.randrange(1, draft.rank(x))
    size = draft.shape(x)[axis]
    start, end, step = draft.choice([(0, size // 2, 1), (1, 2**31 - 1, 1), (-2, size, 1), (0, size, 2), (-1, -(2**31), -1)])
    return _sliced(draft, x, axis, start, end, step)


def empty_slice(draft: Draft) -> str:
    """An empty part, joined with the whole."""
    x = draft.pick_rank(2, 3, 4)
    axis = draft.random.randrange(1, draft.rank(x))
    nothing = _sliced(draft, x, axis, 1, 1, 1)
    return str(draft.add("Concat", nothing, x, axis=axis))


def gather(draft: Draft) -> str:
    x = draft.pick_rank(2, 3, 4)
    axis = draft.random.randrange(1, draft.rank(x))
    indices = draft.choice([np.asarray(0), np.asarray([0, 0]), np.arange(draft.shape(x)[axis])[::-1], np.asarray([[0, -1]])])
    return str(draft.add("Gather", x, draft.constant(np.ascontiguousarray(indices, np.int64)), axis=axis))


def concat(draft: Draft) -> str:
    x = draft.pick_rank(2, 3, 4)
    rank, shape = draft.rank(x), draft.shape(x)
    axis = draft.random.randrange(1, rank)

    def fits(name: str) -> bool:
        other = draft.shape(name)
        return len(other) == rank and all(a == b for i, (a, b) in enumerate(zip(other, shape, strict=True)) if i != axis)

    others = [draft.pick(fits, newest=False)]
    if draft.one_in(3) and not draft.open_batch:
        others = [draft.weight(tuple(2 if i == axis else size for i, size in enumerate(shape)), 1)]
    elif draft.one_in(4):
        others.append(draft.pick(fits, newest=False))
    return str(draft.add("Concat", *([*others, x] if draft.one_in(2) else [x, *others]), axis=axis))


def split(draft: Draft) -> list[str]:
    x = draft.pick(lambda name: draft.rank(name) >= 2 and max(draft.shape(name)[1:], default=0) >= 2)
    axis = draft.choice([a for a in range(1, draft.rank(x)) if draft.shape(x)[a] >= 2])
    size = draft.shape(x)[axis]
    sizes = [size - size // 2, size // 2]
    if draft.opset >= 18 and draft.one_in(2):
        parts = draft.add("Split", x, axis=axis, num_outputs=2, outputs=2)
    elif draft.opset >= 13:
        parts = draft.add("Split", x, draft.ints(*sizes), axis=axis, outputs=2)
    else:
        parts = draft.add("Split", x, axis=axis, split=sizes, outputs=2)
    if sizes[0] == sizes[1] and draft.one_in(2):
        return [draft.add("Mul", parts[0], draft.add("Sigmoid", parts[1]))]
    return list(parts)


def pad(draft: Draft) -> str:
    x = draft.pick_rank(3, 4, 5)
    rank = draft.rank(x)
    mode = draft.choice(["constant", "reflect", "edge"])
    amounts = [draft.choice([1, 0, 2 if mode != "reflect" else 1]) for _ in range(4)]
    pads = [0] * (rank - 2) + amounts[:2] + [0] * (rank - 2) + amounts[2:]
    value = draft.choice([0.0, 0.5])
    if draft.opset < 11:
        return str(draft.add("Pad", x, mode=mode, pads=pads, value=value))
    constant = [draft.scalar(value)] if mode == "constant" and draft.one_in(2) else []
    if draft.opset >= 18 and draft.one_in(2):
        return str(draft.add("Pad", x, draft.ints(*amounts), *(constant or [""]), draft.ints(rank - 2, rank - 1), mode=mode))
    return str(draft.add("Pad", x, draft.ints(*pads), *constant, mode=mode))


def expand(draft: Draft) -> str:
    x = draft.pick_rank(2, 3, 4)
    ones = [axis for axis, size in enumerate(draft.shape(x)) if axis and size == 1]
    target = [1] * draft.rank(x)
    for axis in ones:
        target[axis] = 3
    return str(draft.add("Expand", x, draft.ints(*target)))


def tile(draft: Draft) -> str:
    x = draft.pick_rank(2, 3, 4)
    return str(draft.add("Tile", x, draft.ints(1, *(draft.choice([1, 2]) for _ in range(draft.rank(x) - 1)))))


def depth_to_space(draft: Draft) -> str:
    x = draft.pick_rank(4)
    if draft.shape(x)[1] % 4 == 0:
        if draft.opset >= 11 and draft.one_in(2):
            return str(draft.add("DepthToSpace", x, blocksize=2, mode="CRD"))
        return str(draft.add("DepthToSpace", x, blocksize=2))
    return str(draft.add("SpaceToDepth", x, blocksize=2))


def resize(draft: Draft) -> str:
    x = draft.pick_rank(3, 4, 5)
    rank = draft.rank(x)
    factors = [draft.choice([2.0, 1.0, 0.5, 1.5]) for _ in range(rank - 2)]
    mode = draft.choice(["nearest", "linear"])
    scales = np.asarray([1.0, 1.0, *factors], np.float32)
    if draft.opset == 9:
        return str(draft.add("Upsample", x, draft.constant(np.maximum(scales, 1.0)), mode=mode))
    if draft.opset == 10:
        return str(draft.add("Resize", x, draft.constant(scales), mode=mode))
    return _modern_resize(draft, x, scales, mode)


def _modern_resize(draft: Draft, x: str, scales: np.ndarray[Any, Any], mode: str) -> str:
    attributes: dict[str, Any] = {"mode": mode}
    attributes["coordinate_transformation_mode"] = draft.choice(["asymmetric", "half_pixel", "align_corners", "pytorch_half_pixel"])
    if mode == "nearest":
        attributes["nearest_mode"] = draft.choice(["floor", "round_prefer_floor"])
    roi = "" if draft.opset >= 13 else draft.constant(np.zeros(0, np.float32))
    rank = draft.rank(x)
    if draft.opset >= 18 and draft.one_in(3):
        return str(draft.add("Resize", x, roi, draft.constant(scales[2:]), axes=list(range(2, rank)), **attributes))
    if draft.one_in(3) and not draft.open_batch and draft.opset >= 13:
        sizes = [max(1, int(size * scale)) for size, scale in zip(draft.shape(x), scales, strict=True)]
        return str(draft.add("Resize", x, roi, "", draft.ints(*sizes), **attributes))
    return str(draft.add("Resize", x, roi, draft.constant(scales), **attributes))


def grid_sample(draft: Draft) -> str:
    draft.needs(16)
    x = draft.pick_rank(4)
    names = ("bilinear", "nearest") if draft.opset < 20 else ("linear", "nearest")
    mode, padding = draft.choice(names), draft.choice(["zeros", "border"])
    if draft.open_batch or draft.one_in(2):
        channels = draft.shape(x)[1]
        flow = draft.add("Tanh", draft.add("Conv", x, draft.weight((2, channels, 1, 1), channels)))
        grid = draft.add("Transpose", flow, perm=[0, 2, 3, 1])
    else:
        grid = draft.uniform(-1.0, 1.0, (draft.shape(x)[0], 3, 5, 2))
    return str(draft.add("GridSample", x, grid, mode=mode, padding_mode=padding))


def arg_max(draft: Draft) -> str:
    """Indices that are cast, that select, or that become one-hot rows."""
    x = draft.pick_rank(2, 3)
    kind = draft.choice(["ArgMax", "ArgMax", "ArgMin"])
    style = draft.choice(["cast", "gather", "one hot"])
    if style == "cast":
        return str(draft.add("Cast", draft.add(kind, x, axis=draft.rank(x) - 1, keepdims=1), to=TensorProto.FLOAT))
    found = draft.add(kind, x, axis=draft.rank(x) - 1, keepdims=0)
    width = draft.shape(x)[-1]
    if style == "gather":
        return str(draft.add("Gather", draft.weight((width, 3), 1), found, axis=0))
    return str(draft.add("OneHot", found, draft.constant(np.asarray([width], np.int64)), draft.constant(np.asarray([0, 1], np.float32))))


def top_k(draft: Draft) -> str:
    draft.needs(10)
    x = draft.pick_rank(2, 3)
    axis = draft.choice([draft.rank(x) - 1, 1])
    size = draft.shape(x)[axis]
    values, indices = draft.add("TopK", x, draft.ints(max(1, min(3, size))), axis=axis, outputs=2)
    if draft.opset < 11 or draft.one_in(2):
        return str(values)
    return str(draft.add("GatherElements", draft.add("Mul", x, draft.number(0.5)), indices, axis=axis))


def gather_nd(draft: Draft) -> str:
    draft.needs(12)
    x = draft.pick_rank(3, 4)
    if draft.one_in(2):
        return str(draft.add("GatherND", x, draft.constant(np.zeros((draft.shape(x)[0], 1), np.int64)), batch_dims=1))
    rows = draft.constant(np.zeros((1, draft.rank(x)), np.int64))
    return str(draft.add("ScatterND", x, rows, draft.uniform(-1, 1, (1,))))


def compute_mask(draft: Draft) -> str:
    """Lengths, ranges and fills that only shapes decide."""
    x = draft.pick_rank(2, 3, 4)
    shape = draft.add("Shape", x)
    filled = draft.add("ConstantOfShape", shape)
    return str(draft.add("Add", x, draft.add("Add", filled, draft.number(0.25))))


def scale_by_shape(draft: Draft) -> str:
    """Divide by the root of a size that is computed, as scaled products of matrices are exported."""
    x = draft.pick_rank(2, 3, 4)
    size = draft.add("Gather", draft.add("Shape", x), draft.constant(np.asarray(draft.rank(x) - 1, np.int64)), axis=0)
    return str(draft.add("Div", x, draft.add("Sqrt", draft.add("Cast", size, to=TensorProto.FLOAT))))


def token(draft: Draft) -> str:
    """A learned row in front of all others."""
    x = draft.pick_rank(3)
    row = draft.weight((1, 1, draft.shape(x)[2]), 1)
    if draft.open_batch:
        batch = draft.add("Gather", draft.add("Shape", x), draft.ints(0), axis=0)
        row = draft.add("Expand", row, draft.add("Concat", batch, draft.ints(1, 1), axis=0))
    elif draft.shape(x)[0] != 1:
        row = draft.add("Expand", row, draft.ints(draft.shape(x)[0], 1, 1))
    return str(draft.add("Concat", row, x, axis=1))


def windows(draft: Draft) -> str:
    """A feature map to rows of 2x2 windows."""
    x = draft.pick_rank(4)
    channels, height, width = draft.shape(x)[1:]
    if height % 2 or width % 2 or not height * width:
        raise Unfit("odd size")
    split_up = draft.add(
        "Reshape",
        x,
        draft.ints(0, channels, height // 2, 2, -1, 2) if not draft.open_batch else draft.ints(-1, channels, height // 2, 2, width // 2, 2),
    )
    moved = draft.add("Transpose", split_up, perm=[0, 2, 4, 3, 5, 1])
    return str(draft.add("Reshape", moved, draft.ints(-1, 4, channels)))


def nonzero(draft: Draft) -> str:
    """How many values are positive: a shape that the data decide, and a number again."""
    draft.needs(13)
    x = draft.pick_rank(2, 3)
    found = draft.add("NonZero", draft.add("Relu", x))
    count = draft.add("Gather", draft.add("Shape", found), draft.ints(1), axis=0)
    share = draft.add("Mul", draft.add("Cast", count, to=TensorProto.FLOAT), draft.number(1 / max(1, math.prod(draft.shape(x)))))
    return str(draft.add("Mul", x, share))


def odd_operator(draft: Draft) -> str:
    """Operators that hardly any tool knows."""
    kind = draft.choice(["GlobalLpPool", "Shrink", "EyeLike", "ReverseSequence", "MaxUnpool", "Compress", "CenterCropPad", "Col2Im", "Det"])
    if kind == "ReverseSequence":
        draft.needs(10)
        x = draft.pick_rank(3)
        if draft.open_batch:
            raise Unfit("lengths of an open batch")
        rows, steps = draft.shape(x)[:2]
        return str(draft.add("ReverseSequence", x, draft.constant(np.full(rows, steps, np.int64)), batch_axis=0, time_axis=1))
    if kind == "Compress":
        x = draft.pick_rank(2, 3, 4)
        return str(draft.add("Compress", x, draft.constant(np.arange(draft.shape(x)[1]) % 2 == 0), axis=1))
    if kind == "CenterCropPad":
        draft.needs(18)
        return str(draft.add("CenterCropPad", draft.pick_rank(3, 4), draft.ints(3), axes=[2]))
    if kind == "Det":
        draft.needs(11)
        x = draft.pick(lambda name: draft.rank(name) == 3 and draft.shape(name)[1] == draft.shape(name)[2])
        return unsqueeze_node(draft, draft.add("Det", x), [1])
    if kind == "Col2Im":
        draft.needs(18)
        x = draft.pick(lambda name: draft.rank(name) == 3 and draft.shape(name)[1] % 4 == 0 and draft.shape(name)[2] == 9)
        return str(draft.add("Col2Im", x, draft.ints(4, 4), draft.ints(2, 2)))
    if kind == "MaxUnpool":
        x = draft.pick_rank(4)
        pooled, places = draft.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], outputs=2)
        return str(draft.add("MaxUnpool", pooled, places, kernel_shape=[2, 2], strides=[2, 2]))
    if kind == "EyeLike":
        x = draft.pick_rank(2)
        return str(draft.add("Add", x, draft.add("EyeLike", x)))
    x = draft.pick_rank(3, 4)
    return str(draft.add(kind, x, lambd=0.2, bias=0.1) if kind == "Shrink" else draft.add(kind, x, p=2))


MOVEMENT: dict[str, Step] = {
    "reshape": reshape,
    "reshape_by_shape": reshape_by_shape,
    "transpose": transpose,
    "flatten": flatten,
    "unsqueeze": unsqueeze,
    "squeeze": squeeze,
    "slice_part": slice_part,
    "gather": gather,
    "concat": concat,
    "split": split,
    "pad": pad,
    "expand": expand,
    "tile": tile,
    "depth_to_space": depth_to_space,
    "resize": resize,
    "token": token,
    "windows": windows,
}

RARE: dict[str, Step] = {
    "empty_slice": empty_slice,
    "grid_sample": grid_sample,
    "arg_max": arg_max,
    "top_k": top_k,
    "gather_nd": gather_nd,
    "compute_mask": compute_mask,
    "scale_by_shape": scale_by_shape,
    "nonzero": nonzero,
    "odd_operator": odd_operator,
}
