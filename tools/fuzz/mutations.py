"""Real models, damaged: bytes, nodes, shapes, attributes, constants, types and names.

Whatever is in a file, the command ends with exit code 0, 3, 4 or 5 and a message, in time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper

from models.export import build, export_model
from tools.benchmarks.compare.sources import checkpoint_names, prepare_model
from tools.fuzz.command import call
from tools.fuzz.outcome import Outcome, complaints

__all__ = ["DAMAGES", "damaged", "prepare", "run"]

MODELS = Path("build/fuzz")
RECOGNISER = Path("build/demo/ch_PP-OCRv4_rec_infer.onnx")
"""There after ``make demo``; left out where it is not."""

_SHAPES = {RECOGNISER.stem: "x:1,3,48,64"}
_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.INT8, TensorProto.STRING, 99)


def prepare() -> list[Path]:
    """The models, exported if they are not there yet."""
    MODELS.mkdir(parents=True, exist_ok=True)
    random = MODELS / "mobilevit_xxs_random.onnx"
    if not random.exists():
        random.write_bytes(export_model(build("mobilevit_xxs", size=64)))
    return [random, *(prepare_model(name, MODELS) for name in checkpoint_names()), *([RECOGNISER] if RECOGNISER.exists() else [])]


def run(seed: int, folder: Path) -> Outcome:
    """One damaged model; the folder is empty."""
    random = Random(seed)
    path = random.choice(prepare())
    content, what = damaged(onnx.load(path), random)
    source, output = folder / "in.onnx", folder / "out.onnx"
    source.write_bytes(content)
    shapes = ["--input-shape", _SHAPES[path.stem]] if path.stem in _SHAPES else []
    called = call(source, output, flags=["--method", "mse", *shapes])
    faults = complaints(called.code, (0, 2, 3, 4, 5) if shapes else (0, 3, 4, 5), output.exists(), called.err)
    return Outcome("mutations", seed, f"{path.stem}: {what}", (str(called.code),), tuple(faults), called.seconds)


def damaged(model: onnx.ModelProto, random: Random) -> tuple[bytes, str]:
    """The bytes of a model to which one or two damages were done, and which."""
    names = [random.choice(list(DAMAGES)) for _ in range(random.choice((1, 1, 2)))]
    for name in names:
        DAMAGES[name](model, random)
    content = model.SerializeToString()
    style = random.choice(list(_BYTES) * 2 + [None] * 10)
    if style is not None:
        content = _BYTES[style](content, model, random)
        names.append(style)
    return content, ", ".join(names)


# Bytes


def _flip(content: bytes, model: onnx.ModelProto, random: Random) -> bytes:
    """A few bytes, half of the time inside one node."""
    start, stop = 0, len(content)
    if random.random() < 0.5 and model.graph.node:
        node = random.choice(model.graph.node).SerializeToString()
        start = max(0, content.find(node))
        stop = start + max(1, len(node))
    changed = bytearray(content)
    for _ in range(random.choice((1, 2, 8))):
        changed[random.randrange(start, min(stop, len(content)))] = random.randrange(256)
    return bytes(changed)


def _cut(content: bytes, model: onnx.ModelProto, random: Random) -> bytes:
    return content[: random.randrange(len(content))]


def _insert(content: bytes, model: onnx.ModelProto, random: Random) -> bytes:
    place = random.randrange(len(content))
    return content[:place] + random.randbytes(random.choice((1, 5, 100))) + content[place:]


_BYTES: Mapping[str, Callable[[bytes, onnx.ModelProto, Random], bytes]] = {
    "bytes flipped": _flip,
    "cut off": _cut,
    "bytes inserted": _insert,
}


# Nodes


def _remove_node(model: onnx.ModelProto, random: Random) -> None:
    del model.graph.node[random.randrange(len(model.graph.node))]


def _change_type_of_node(model: onnx.ModelProto, random: Random) -> None:
    random.choice(model.graph.node).op_type = random.choice(("Relu", "Conv", "MatMul", "Softmax", "Split", "If", "Nonsense", ""))


def _rewire(model: onnx.ModelProto, random: Random) -> None:
    """An input becomes another tensor, perhaps one that is computed from it, or is left out, or added."""
    node = random.choice([n for n in model.graph.node if n.input])
    others = [name for n in model.graph.node for name in n.output] + [i.name for i in model.graph.initializer] + ["", "nowhere"]
    style = random.choice(("replace", "replace", "remove", "add", "exchange"))
    place = random.randrange(len(node.input))
    if style == "replace":
        node.input[place] = random.choice(others)
    elif style == "remove":
        del node.input[place]
    elif style == "add":
        node.input.append(random.choice(others))
    else:
        node.input[:] = list(node.input)[::-1]


def _duplicate_name(model: onnx.ModelProto, random: Random) -> None:
    """Two tensors or nodes get one name."""
    one, other = random.sample(list(model.graph.node), 2)
    style = random.choice(("tensor", "node", "constant", "input", "output"))
    if style == "tensor":
        one.output[0] = other.output[0]
    elif style == "node":
        one.name = other.name
    elif style == "constant" and model.graph.initializer:
        random.choice(model.graph.initializer).name = random.choice(model.graph.initializer).name
    elif style == "input":
        one.output[0] = model.graph.input[0].name
    else:
        model.graph.output.append(model.graph.output[0])


# Attributes


def _change_attribute(model: onnx.ModelProto, random: Random) -> None:
    """Numbers out of range, lists too long or too short, another type, or none."""
    node = random.choice([n for n in model.graph.node if n.attribute])
    attribute = random.choice(node.attribute)
    wild = random.choice((-1, 0, 1, 2, 7, 10**6, 2**31, 2**62, -(2**63)))
    if random.random() < 0.15:
        node.attribute.remove(attribute)
    elif attribute.type == AttributeProto.INT:
        attribute.i = wild
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = random.choice((0.0, -1.0, 1e30, float("nan"), float("inf")))
    elif attribute.type == AttributeProto.INTS:
        _change_list(attribute.ints, wild, random)
    elif attribute.type == AttributeProto.STRING:
        attribute.s = random.choice((b"", b"SAME_UPPER", b"\xff\xfe", b"linear", b"x" * 1000))
    else:
        attribute.type = random.choice((AttributeProto.INT, AttributeProto.TENSOR, AttributeProto.GRAPH))


def _change_list(numbers: Any, wild: int, random: Random) -> None:
    style = random.choice(("change", "change", "append", "drop"))
    if style == "append" or not numbers:
        numbers.append(wild)
    elif style == "drop":
        numbers.pop()
    else:
        numbers[random.randrange(len(numbers))] = wild


# Shapes and types


def _values(model: onnx.ModelProto) -> Sequence[onnx.ValueInfoProto]:
    return [*model.graph.input, *model.graph.output, *model.graph.value_info]


def _change_shape(model: onnx.ModelProto, random: Random) -> None:
    """A declared size, or the sizes of a constant, with or without its numbers."""
    if random.random() < 0.5:
        shape = random.choice(_values(model)).type.tensor_type.shape
        style = random.choice(("size", "size", "symbol", "more", "none"))
        if style == "more" or not shape.dim:
            shape.dim.add().dim_value = 3
        elif style == "none":
            del shape.dim[:]
        elif style == "symbol":
            random.choice(shape.dim).dim_param = random.choice(("n", "", "h"))
        else:
            random.choice(shape.dim).dim_value = random.choice((0, -1, 1, 2, 7, 10**5, 2**40))
    else:
        constant = random.choice([c for c in _constants(model) if c.dims])
        place = random.randrange(len(constant.dims))
        constant.dims[place] = random.choice((0, -1, 1, constant.dims[place] + 1, 2**33))


def _change_type(model: onnx.ModelProto, random: Random) -> None:
    if random.random() < 0.5:
        random.choice(_values(model)).type.tensor_type.elem_type = random.choice(_TYPES)
    else:
        random.choice(_constants(model)).data_type = random.choice(_TYPES)


# Constants


def _constants(model: onnx.ModelProto) -> Sequence[TensorProto]:
    """Initializers, and what Constant nodes hold."""
    nodes = (node for node in model.graph.node if node.op_type == "Constant")
    return [*model.graph.initializer, *(a.t for node in nodes for a in node.attribute if a.name == "value")]


def _change_constant(model: onnx.ModelProto, random: Random) -> None:
    """NaN, infinity, zeros, huge, tiny, nothing, noise, or a file that is not there."""
    constant = random.choice(_constants(model))
    array = numpy_helper.to_array(constant)
    style = random.choice(("nan", "inf", "zero", "huge", "tiny", "empty", "one nan", "noise", "outside"))
    if style == "outside":
        constant.ClearField("raw_data")
        constant.data_location = TensorProto.EXTERNAL
        constant.external_data.add(key="location", value=random.choice(("missing.bin", "/dev/zero", "../x", "")))
        return
    changed = array.astype(np.float64) if array.dtype.kind == "f" else array
    whole = {"nan": np.nan, "inf": np.inf, "huge": 1e30, "tiny": 1e-42}
    if style == "empty":
        changed = changed.reshape(-1)[:0]
    elif array.dtype.kind != "f":
        changed = random.choice((array * 0, array - 10**6, array + 1))
    elif style in whole:
        changed = changed * 0 + whole[style]
    elif style == "zero":
        changed = changed * 0
    elif style == "noise":
        changed = np.random.default_rng(random.randrange(2**32)).standard_normal(array.shape) * 100
    elif array.size:
        changed.reshape(-1)[random.randrange(array.size)] = np.nan
    constant.CopyFrom(numpy_helper.from_array(np.asarray(changed).astype(array.dtype), constant.name))


def _change_versions(model: onnx.ModelProto, random: Random) -> None:
    style = random.choice(("opset", "opset", "ir", "domain", "metadata"))
    if style == "opset":
        model.opset_import[0].version = random.choice((0, 1, 7, 9, 13, 21, 999, -1))
    elif style == "ir":
        model.ir_version = random.choice((0, 1, 3, 99))
    elif style == "domain":
        model.opset_import[0].domain = random.choice(("ai.onnx.ml", "com.microsoft", "x"))
    else:
        onnx.helper.set_model_props(model, {"bridgequant.preprocess": random.choice(("", "nonsense", "mean=nan;std=0"))})


DAMAGES: Mapping[str, Callable[[onnx.ModelProto, Random], None]] = {
    "node removed": _remove_node,
    "operator changed": _change_type_of_node,
    "input rewired": _rewire,
    "name duplicated": _duplicate_name,
    "attribute changed": _change_attribute,
    "shape changed": _change_shape,
    "type changed": _change_type,
    "constant replaced": _change_constant,
    "version changed": _change_versions,
}
"""Each changes a model in place."""
