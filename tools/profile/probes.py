"""What is measured to fit a target's costs: many operators of the sizes that hybrid vision transformers have, side by side in one model.

Every probe is a branch of its own, from its own inputs to its own output, so that it can be found again in the graph that
the runtime makes of the whole: :func:`branches`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from converter.calibration.observer import CalibrationStatistics, collect_statistics
from converter.emit.builder import emit
from converter.forms.convolved import takes_columns
from converter.forms.form import SupportedForm
from converter.forms.layer import COLUMN_CONVOLUTION, LINEAR_CONVOLUTION
from converter.graph.marks import SOFTMAX_ROWS
from converter.methods.problem import Problem
from converter.methods.ranges import minmax
from converter.partition.bit_widths import tensor_bits
from converter.partition.integer_forms import offer
from converter.partition.write_assignment import write_assignment
from converter.plan.records import Plan
from converter.quantization.bit_widths import BitWidths
from converter.targets import Target
from converter.targets.costs import COLUMN_CONVOLUTION_KIND, LATE_SOFTMAX_KIND, LINEAR_CONVOLUTION_KIND, kind_of
from converter.targets.target import Cost

__all__ = ["BRANCH_LETTERS", "Probe", "among_codes", "branches", "convolved_form", "feeds", "integers", "probe_model", "probes", "seen_in"]

_OPSET, _IR = 20, 9

BRANCH_LETTERS = 5


@dataclass(frozen=True)
class Probe:
    """One branch.

    Attributes:
        op_type: of the node; Exp stands for the exponentials of what lies below the largest number of each row.
        shapes: of its computed inputs.
        constants: its other inputs, which follow, by what makes them: the shape of float32 numbers, or int64 numbers.
        attributes: of the node.
        outputs: how many.
        behind: operator and attributes of a node that is measured, behind a node of the above; a Relu, for example.
    """

    op_type: str
    shapes: tuple[tuple[int, ...], ...]
    constants: tuple[Any, ...] = ()
    attributes: Mapping[str, Any] | None = None
    outputs: int = 1
    behind: str = ""


def _conv(inner: int, outer: int, side: int, size: int = 3, stride: int = 1, groups: int = 1, behind: str = "") -> Probe:
    """``side`` is that of the output, as costs go with it. Kernels of even size have no border, as those that cut an image into patches."""
    weight = np.ones((outer, inner // groups, size, size))
    attributes = {"group": groups, "strides": [stride] * 2, "pads": [size // 2 if size % 2 else 0] * 4}
    return Probe("Conv", ((1, inner, side * stride, side * stride),), (weight.shape, (outer,)), attributes, behind=behind)


def _convolutions() -> list[Probe]:
    """Inner and outer channels, side of the output, and what differs from a stride of 1."""
    strided = [
        (3, 16, 128),
        (3, 24, 56),
        (3, 16, 32),
        (3, 24, 112),
        (3, 32, 112),
        (3, 48, 64),
        (16, 32, 56),
        (24, 48, 56),
        (32, 64, 28),
        (48, 96, 28),
        (64, 96, 16),
        (96, 224, 14),
        (96, 176, 7),
    ]
    stems = [
        (3, 32, 32, 3, 1),
        (4, 24, 32, 3, 1),
        (1, 16, 64, 3, 2),
        (4, 32, 56, 3, 2),
        (1, 32, 32, 5, 1),
        (1, 16, 32, 5, 2),
        (3, 32, 56, 5, 2),
        (4, 24, 28, 5, 2),
        (3, 48, 28, 5, 4),
        (3, 16, 32, 7, 1),
        (1, 32, 32, 7, 2),
        (3, 16, 32, 7, 2),
        (3, 64, 56, 7, 2),
        (4, 48, 28, 7, 2),
        (1, 16, 16, 7, 4),
        (3, 64, 28, 7, 4),
    ]
    patches = [
        (48, 96, 28, 2),
        (96, 192, 14, 2),
        (1, 32, 28, 4),
        (3, 48, 56, 4),
        (3, 96, 28, 4),
        (3, 96, 14, 8),
        (3, 96, 7, 16),
        (3, 192, 14, 16),
    ]
    wide = [(24, 48, 28), (64, 64, 14)]
    dense = [(16, 16, 64), (32, 32, 32), (48, 48, 28), (64, 64, 32), (96, 48, 32), (96, 96, 16), (128, 64, 16), (128, 128, 8), (80, 80, 8)]
    pointwise = [
        (16, 64, 64), (16, 32, 64), (64, 64, 32), (32, 128, 56), (96, 96, 16), (80, 320, 8), (128, 128, 8), (48, 192, 56), (192, 48, 28),
        (24, 96, 28), (96, 384, 14), (384, 96, 14), (448, 112, 7), (320, 80, 8), (256, 128, 16), (60, 60, 32),
    ]  # fmt: skip
    skipping = [(16, 32, 56), (32, 64, 28), (64, 128, 14), (96, 192, 14)]
    deep = [(32, 64), (64, 32), (128, 16), (256, 8), (60, 32), (72, 32), (192, 28), (448, 7), (36, 32), (16, 64)]
    deep_strided = [(64, 64), (32, 32), (128, 16), (192, 14)]
    deep_wide = [
        (64, 32, 5, 1), (32, 32, 5, 1), (32, 16, 5, 1), (60, 16, 5, 1), (48, 28, 5, 1), (192, 7, 5, 1), (32, 16, 5, 2), (96, 14, 5, 2),
        (64, 32, 7, 1), (64, 14, 7, 1), (36, 14, 7, 1), (192, 7, 7, 1), (64, 14, 7, 2), (32, 16, 9, 1),
    ]  # fmt: skip
    grouped = [(64, 64, 32, 4), (32, 32, 16, 8), (96, 96, 16, 2), (128, 128, 16, 4), (48, 96, 28, 2)]
    return [
        *(_conv(*each, stride=2) for each in strided),
        *(_conv(*each) for each in dense),
        *(_conv(*each) for each in stems),
        *(_conv(*each, stride=each[-1]) for each in patches),
        *(_conv(*each, size=5) for each in wide),
        *(_conv(*each, size=1) for each in pointwise),
        *(_conv(*each, size=1, stride=2) for each in skipping),
        *(_conv(channels, channels, side, groups=channels) for channels, side in deep),
        *(_conv(channels, channels, side, stride=2, groups=channels) for channels, side in deep_strided),
        *(_conv(channels, channels, side, size=size, stride=stride, groups=channels) for channels, side, size, stride in deep_wide),
        *(_conv(inner, outer, side, groups=groups) for inner, outer, side, groups in grouped),
    ]


def _products() -> list[Probe]:
    linear = [
        (1024, 64, 192), (1024, 64, 64), (256, 80, 240), (64, 96, 288), (64, 192, 96), (16, 96, 384), (1, 320, 1000), (49, 448, 1792),
        (49, 1792, 448), (196, 224, 672), (256, 160, 80), (4, 96, 96),
    ]  # fmt: skip
    scores = [
        (4, 4, 256, 16), (4, 4, 64, 20), (4, 4, 16, 24), (1, 8, 49, 32), (1, 4, 196, 32), (1, 8, 196, 32), (1, 4, 16, 64), (1, 8, 64, 32),
    ]  # fmt: skip
    mixed = [(*each, each[3]) for each in scores] + [(1, 8, 49, 32, 128), (1, 4, 49, 32, 128), (1, 8, 49, 32, 64)]
    return [
        *(Probe("Gemm", ((rows, inner),), ((inner, outer), (outer,))) for rows, inner, outer in linear),
        *(Probe("MatMul", ((4, rows, inner),), ((inner, outer),)) for rows, inner, outer in linear[:8]),
        *(Probe("MatMul", ((b, h, n, d), (b, h, d, n))) for b, h, n, d in scores),
        *(Probe("MatMul", ((b, h, n, n), (b, h, n, v))) for b, h, n, _, v in mixed),
        *(Probe("MatMul", ((b, h, n, n),), ((1, 1, n, 1),)) for b, h, n, _ in scores),  # sums of rows
    ]


_IMAGES = ((1, 32, 64, 64), (1, 96, 16, 16), (1, 80, 8, 8), (1, 24, 4, 4))
_TOKENS = ((4, 256, 64), (1, 196, 224), (4, 16, 96), (1, 6, 192))
_WINDOWS = (
    {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2]},
    {"kernel_shape": [2, 2], "strides": [2, 2]},
)


def _pointwise() -> list[Probe]:
    single = ("Sigmoid", "HardSwish", "LeakyRelu", "Erf", "Tanh", "Gelu", "HardSigmoid")
    pairs = ("Add", "Mul", "Sub", "Div")
    channels = [(*shape[:2], 1, 1) for shape in _IMAGES]
    return [
        *(Probe(op, (shape,)) for op in single for shape in _IMAGES),
        *(Probe("Relu", (shape,)) for shape in _IMAGES),  # in integer a Clip of codes, as piecewise-linear sigmoids are
        *(Probe(op, (shape, shape)) for op in pairs for shape in (*_IMAGES, *_TOKENS)),
        *(Probe(op, (shape, few)) for op in ("Add", "Mul") for shape, few in zip(_IMAGES, channels, strict=True)),
        *(Probe(op, (shape,), (few[1:],)) for op in ("Add", "Mul") for shape, few in zip(_IMAGES, channels, strict=True)),
        *(_conv(*each, behind=op) for op in ("Relu", "Clip") for each in ((64, 64, 32), (16, 16, 64), (128, 128, 8))),
    ]


def _reductions() -> list[Probe]:
    rows = ((4, 4, 256, 256), (4, 4, 64, 64), (4, 4, 16, 16), (1, 8, 49, 49), (1, 4, 196, 196), (1, 1, 256, 4), (1, 8, 196, 49))
    return [
        *(Probe("Softmax", (shape,), (), {"axis": -1}) for shape in rows),
        *(Probe("Exp", (shape,)) for shape in rows),
        *(Probe("LayerNormalization", (shape,), (shape[-1:], shape[-1:]), {"axis": -1}) for shape in _TOKENS),
        *(Probe("InstanceNormalization", (shape,), (shape[1:2], shape[1:2])) for shape in (*_IMAGES, (1, 1, 16384), *_TOKENS)),
        *(Probe("GlobalAveragePool", (shape,)) for shape in (*_IMAGES, (1, 320, 8, 8))),
        *(Probe("ReduceMean", (shape,), ([2, 3],)) for shape in _IMAGES),
        *(Probe("ReduceSum", (shape,), ([-1],)) for shape in _TOKENS),
        *(Probe(op, (shape,), (), window) for op in ("AveragePool", "MaxPool") for window in _WINDOWS for shape in _IMAGES),
    ]


def _movement() -> list[Probe]:
    doubled = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    heads = ((4, 256, 4, 16), (1, 49, 8, 32), (4, 64, 4, 20), (1, 196, 4, 32))
    inner = ((4, 4, 256, 16), (1, 8, 49, 32), (4, 4, 64, 20))
    turned = ((512, 2, 16), (512, 16, 2), (1024, 4, 4), (512, 8, 16), (64, 16, 64), (16, 512, 2), (16, 2, 512), (256, 49, 12), (64, 512, 4))
    unfold = ((4096, 2, 16, 2), (2048, 2, 8, 2), (768, 2, 4, 2), (512, 2, 16, 4), (256, 4, 16, 8))
    return [
        *(Probe("Transpose", (shape,), (), {"perm": [0, 2, 1, 3]}) for shape in heads),
        *(Probe("Transpose", (shape,), (), {"perm": [0, 1, 3, 2]}) for shape in inner),
        *(Probe("Transpose", (shape,), (), {"perm": [0, 2, 1]}) for shape in _TOKENS),
        *(Probe("Transpose", (shape,), (), {"perm": perm}) for perm in ([0, 3, 1, 2], [0, 2, 3, 1]) for shape in _IMAGES),
        *(Probe("Transpose", (shape,), (), {"perm": [0, 2, 1, 3]}) for shape in unfold),
        *(Probe("Transpose", ((1, 16, 2, 16, 2, 64),), (), {"perm": perm}) for perm in ([0, 2, 4, 1, 3, 5], [0, 3, 1, 4, 2, 5])),
        *(Probe("Transpose", (shape,), (), {"perm": [2, 0, 3, 1]}) for shape in ((1, 64, 3, 256), (4, 16, 3, 64))),
        *(
            Probe("Transpose", (shape,), (), {"perm": [2, 0, 3, 1, 4]})
            for shape in ((4, 256, 3, 4, 16), (1, 49, 3, 8, 32), (4, 16, 3, 4, 24))
        ),
        *(Probe("Transpose", (shape,), (), {"perm": [0, 2, 1]}) for shape in turned),
        *(Probe("Transpose", (shape,), (), {"perm": [1, 0, 2]}) for shape in ((4, 12, 4096), (64, 64, 32), (16, 64, 128))),
        *(Probe("Reshape", (shape,), ([shape[0], -1],)) for shape in _IMAGES),
        *(Probe("Flatten", (shape,)) for shape in _IMAGES),
        *(Probe("Squeeze", (shape,), ([0],)) for shape in _IMAGES),
        *(Probe("Unsqueeze", (shape,), ([0],)) for shape in _IMAGES),
        *(Probe("Split", (shape,), (), {"axis": 1, "num_outputs": 2}, 2) for shape in _IMAGES),
        *(Probe("Split", (shape,), (), {"axis": 2, "num_outputs": 4}, 4) for shape in _TOKENS),
        *(Probe("Slice", (shape,), ([0, 0], [8, 2], [2, 3])) for shape in _IMAGES),
        *(Probe("Slice", (shape,), ([0], [shape[1] // 2], [1])) for shape in _IMAGES),
        *(Probe("Gather", (shape,), ([3, 0, 2, 1] * 4,), {"axis": 1}) for shape in _IMAGES),
        *(Probe("Tile", (shape,), ([2] + [1] * (len(shape) - 1),)) for shape in _TOKENS),
        Probe("Expand", ((1, 1, 6, 192),), ([4, 1, 6, 192],)),
        *(Probe("Expand", ((*shape[:2], 1, 1),), (list(shape),)) for shape in _IMAGES),
        *(Probe("Resize", (shape,), ((), [1.0, 1.0, 2.0, 2.0]), doubled) for shape in _IMAGES),
        *(Probe("Resize", (shape,), ((), [1.0, 1.0, 2.0, 2.0]), {"mode": mode}) for mode in ("linear", "cubic") for shape in _IMAGES),
        *(Probe("Concat", (shape, shape), (), {"axis": 1}) for shape in (*_IMAGES, *_TOKENS)),
        *(Probe("Pad", (shape,), ([0, 0, 0, 0, 0, 0, 1, 1],)) for shape in _IMAGES),
    ]


def probes() -> list[Probe]:
    """All that is measured."""
    return [*_convolutions(), *_products(), *_pointwise(), *_reductions(), *_movement()]


def probe_model(given: Sequence[Probe], *, first: int = 0, only: Collection[str] | None = None) -> ir.Model:
    """One float model with a branch for each probe. Tensor and node names of a branch begin with ``p`` and its place in 4 digits.

    Args:
        first: place of the first probe.
        only: names of the branches that there shall be; by default all.
    """
    generator = np.random.default_rng(0)
    graph = helper.make_graph([], "probes", [], [])
    for place, probe in enumerate(given, first):
        name = f"p{place:04}"
        if only is None or name in only:
            _branch(graph, name, probe, generator)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    model: ir.Model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True))
    rows = {name for place, probe in enumerate(given, first) if probe.op_type == "Exp" for name in _row_names(f"p{place:04}")}
    for node in model.graph:
        if node.name in rows:
            node.metadata_props[SOFTMAX_ROWS] = ""
    return model


def _row_names(branch: str) -> tuple[str, str, str]:
    """Of the nodes of a probe of rows, the one that is measured last."""
    return f"{branch}_largest_before", f"{branch}_below_before", branch


def _branch(graph: onnx.GraphProto, name: str, probe: Probe, generator: np.random.Generator) -> None:
    inputs = []
    for place, shape in enumerate(probe.shapes):
        inputs.append(f"{name}_x{place}")
        graph.input.append(helper.make_tensor_value_info(inputs[-1], TensorProto.FLOAT, shape))
    for place, content in enumerate(probe.constants):
        array = _constant(content, generator)
        inputs.append("" if array is None else f"{name}_c{place}")
        if array is not None:
            graph.initializer.append(numpy_helper.from_array(array, inputs[-1]))
    made = [f"{name}_y{place}" for place in range(probe.outputs)]
    inner = [f"{name}_inside"] if probe.behind else made
    first = f"{name}_before" if probe.behind else name
    if probe.op_type == "Exp":
        inputs = [_below_largest(graph, name, inputs[0])]
    graph.node.append(helper.make_node(probe.op_type, inputs, inner, name=first, **(probe.attributes or {})))
    if probe.behind:
        limits = [f"{name}_low", f"{name}_high"] if probe.behind == "Clip" else []
        for limit, value in zip(limits, (0.0, 6.0), strict=False):
            graph.initializer.append(numpy_helper.from_array(np.float32(value), limit))
        graph.node.append(helper.make_node(probe.behind, [*inner, *limits], made, name=name))
    for output in made:
        graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))


def _below_largest(graph: onnx.GraphProto, name: str, x: str) -> str:
    """What an Exp of rows reads; both nodes count to it."""
    axis, largest, below = f"{name}_axis", f"{name}_largest", f"{name}_below"
    graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), axis))
    names = _row_names(name)
    graph.node.append(helper.make_node("ReduceMax", [x, axis], [largest], name=names[0], keepdims=1))
    graph.node.append(helper.make_node("Sub", [x, largest], [below], name=names[1]))
    return below


def _constant(content: Any, generator: np.random.Generator) -> np.ndarray[Any, Any] | None:
    """A list of whole numbers is itself, one of floats too; a shape stands for random numbers; an empty shape for no input at all."""
    if isinstance(content, list):
        return np.asarray(content, np.float32 if any(isinstance(each, float) for each in content) else np.int64)
    scale = float(np.prod(content[1:])) ** -0.5 if content else 0.0
    return (generator.standard_normal(content) * scale).astype(np.float32) if content else None


def feeds(model: ir.Model) -> dict[str, np.ndarray[Any, Any]]:
    """Standard normal numbers for every input."""
    generator = np.random.default_rng(1)
    return {str(v.name): generator.standard_normal(v.shape.numpy()).astype(np.float32) for v in model.graph.inputs if v.shape is not None}


def seen_in(model: ir.Model) -> CalibrationStatistics:
    """Observations of one sample."""
    return collect_statistics(model, [feeds(model)], threads=1)


def convolved_form(node: ir.Node) -> tuple[str, str]:
    """The form in which a layer can be a convolution of another image, and how targets call that; empty if there is none."""
    if kind_of(node) == "Linear":
        return LINEAR_CONVOLUTION.name, LINEAR_CONVOLUTION_KIND
    if node.op_type == "Conv" and takes_columns(node):
        return COLUMN_CONVOLUTION.name, COLUMN_CONVOLUTION_KIND
    return "", ""


def integers(
    model: ir.Model, seen: CalibrationStatistics, target: Target, *, convolved: bool = False
) -> tuple[onnx.ModelProto, frozenset[str]]:
    """The model with all that is offered in integer, as the converter writes it for a target; and the names of what is offered.

    Args:
        convolved: layers that can be convolutions of another image are, and write codes as those must; otherwise none is.
    """
    unpriced = {LATE_SOFTMAX_KIND: Cost({}, {})}  # a form without a price is not offered
    offers = offer(model, seen, replace(target, costs={**unpriced, **target.costs}), activation_bits=8, weight_bits=8)
    for node in model.graph:
        name, entry = str(node.name), offers.get(str(node.name))
        if isinstance(entry, SupportedForm):
            form = convolved_form(node)[0] if convolved else ""
            offers[name] = replace(entry, code_form=form, may_write_float=entry.may_write_float and not form)
    constants = {(n, i): c for n, o in offers.items() if isinstance(o, SupportedForm) for i, c in o.constants.items()}
    choice = minmax.choose(Problem(seen.tensors, constants, tensor_bits(model, offers, 8), target.signed_activations))
    names = frozenset(n for n, o in offers.items() if isinstance(o, SupportedForm))
    plan = write_assignment(model, offers, choice, names, Plan("minmax", BitWidths(), target.name, {}, {}))
    proto: onnx.ModelProto = ir.to_proto(emit(model, plan, {}))
    return proto, names


def among_codes(model: ir.Model, target: Target, op_types: Collection[str]) -> tuple[onnx.ModelProto, frozenset[str]]:
    """The probes of these types alone, each between a DQ and a Q, of which the runtime makes an integer kernel; and their names.

    For operators of which the converter writes no integer form; other tools do.
    """
    names = frozenset(str(node.name) for node in model.graph if node.op_type in op_types)
    graph = helper.make_graph([], "among codes", [], [])
    kind: type[np.int8 | np.uint8] = np.int8 if target.signed_activations else np.uint8
    shares = np.float32(1 / 256), kind(np.iinfo(kind).min)  # of a Softmax, whose kernel knows no other
    numbers = np.float32(1 / 32), kind(0 if target.signed_activations else 128)
    for name, value in (("shares", shares), ("numbers", numbers)):
        graph.initializer.extend(numpy_helper.from_array(np.asarray(each), f"{name}_{place}") for place, each in enumerate(value))
    for node in ir.to_proto(model).graph.node:
        if node.name not in names:
            continue
        head, out = node.name, "shares" if node.op_type == "Softmax" else "numbers"
        (source,) = (value for value in model.graph.inputs if value.name == node.input[0])
        graph.input.append(
            helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, list(source.shape.numpy() if source.shape is not None else ()))
        )
        _convert(graph, node.input[0], f"{head}_read", "numbers")
        inner = onnx.NodeProto()
        inner.CopyFrom(node)
        inner.input[0], inner.output[0] = f"{head}_read", f"{head}_inside"
        graph.node.append(inner)
        _convert(graph, f"{head}_inside", node.output[0], out)
        graph.output.append(helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None))
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    return onnx.shape_inference.infer_shapes(proto, strict_mode=True), names


def _convert(graph: onnx.GraphProto, source: str, result: str, grid: str) -> None:
    """A Q and a DQ."""
    parameters = [f"{grid}_0", f"{grid}_1"]
    graph.node.append(helper.make_node("QuantizeLinear", [source, *parameters], [f"{result}_codes"], name=f"{result}_Q"))
    graph.node.append(helper.make_node("DequantizeLinear", [f"{result}_codes", *parameters], [result], name=f"{result}_DQ"))


def branches(nodes: Iterable[tuple[Sequence[str], Sequence[str]]]) -> list[str]:
    """To which branch each node of an optimised graph belongs.

    Args:
        nodes: what each node reads and writes, in order.

    Returns:
        The branch's name for each node; an empty string where none of its tensors tells.
    """
    known: dict[str, str] = {}
    found = []
    for reads, writes in nodes:
        named = Counter(branch for name in (*reads, *writes) if (branch := known.get(name) or _named(name)))
        branch = named.most_common(1)[0][0] if named else ""
        known |= {name: branch for name in writes if branch}
        found.append(branch)
    return found


def _named(tensor: str) -> str:
    head = tensor[:BRANCH_LETTERS]
    return head if len(head) == BRANCH_LETTERS and head[0] == "p" and head[1:].isdigit() else ""
