"""What many tests share: a small hybrid network as ONNX, built node by node without PyTorch, and what fixtures return.

``hybrid_model`` has the parts that matter: convolutions with BatchNorm and SiLU, a depthwise one with a residual,
feature map to tokens, LayerNorm, attention with two heads, an MLP with GELU, tokens back to a feature map, pooling and a classifier.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS, TOKEN_WIDTH, HEADS, CLASSES, SIZE = 8, 16, 2, 10, 32

Array = npt.NDArray[Any]
SaveHybrid = Callable[..., Path]
WriteImages = Callable[..., Path]
Run = Callable[..., "Outcome"]
Values = Sequence[tuple[str, int, Sequence[int | str | None] | None]]


@dataclass(frozen=True)
class Outcome:
    """What a call of the command returned and printed."""

    code: int
    out: str
    err: str


def hybrid_model(
    *,
    seed: int = 0,
    opset: int = 17,
    dynamic_batch: bool = False,
    dynamic_size: bool = False,
    named: bool = True,
    metadata: dict[str, str] | None = None,
) -> onnx.ModelProto:
    """A float hybrid network, float32 ``image`` [1, 3, 32, 32] to ``logits`` [1, 10]; the same bytes for the same arguments.

    Args:
        seed: of the random weights.
        opset: 9 or newer; LayerNormalization (17) and Gelu (20) are spelled out below the opset that brought them.
        dynamic_batch: the batch is the symbol ``n``.
        dynamic_size: height and width are the symbols ``h`` and ``w``; multiples of 4 run.
        named: give names to nodes.
        metadata: ``metadata_props``; by default one entry that a conversion has to keep.
    """
    network = _Network(seed, opset, named)
    x = network.conv_bn("/stem", "image", 3, CHANNELS, size=3, stride=2)
    x = network.silu("/stem/act", x)
    y = network.conv_bn("/block/depthwise", x, CHANNELS, CHANNELS, size=3, group=CHANNELS)
    y = network.silu("/block/act", y)
    y = network.conv_bn("/block/pointwise", y, CHANNELS, CHANNELS, size=1)
    x = network.add("Add", "/block/residual/Add", [x, y])
    feature_map = network.silu("/down/act", network.conv_bn("/down", x, CHANNELS, TOKEN_WIDTH, size=3, stride=2))
    tokens = network.add("Reshape", "/unfold/Reshape", [feature_map, network.shape("/unfold/shape", [0, TOKEN_WIDTH, -1])])
    tokens = network.add("Transpose", "/unfold/Transpose", [tokens], perm=[0, 2, 1])
    tokens = network.add("Add", "/attn/residual/Add", [tokens, network.attention("/attn", network.layer_norm("/attn/norm", tokens))])
    tokens = network.add("Add", "/mlp/residual/Add", [tokens, network.mlp("/mlp", network.layer_norm("/mlp/norm", tokens))])
    x = network.add("Transpose", "/fold/Transpose", [tokens], perm=[0, 2, 1])
    x = network.add("Reshape", "/fold/Reshape", [x, network.add("Shape", "/fold/Shape", [feature_map])])
    x = network.add("Relu", "/head/act/Relu", [network.conv_bn("/head", x, TOKEN_WIDTH, 2 * CHANNELS, size=1)])
    x = network.add("GlobalAveragePool", "/pool/GlobalAveragePool", [x])
    x = network.add("Flatten", "/pool/Flatten", [x], axis=1)
    weight, bias = network.weight("classifier.weight", (CLASSES, 2 * CHANNELS)), network.weight("classifier.bias", (CLASSES,))
    network.add("Gemm", "/classifier/Gemm", [x, weight, bias], output="logits", transB=1)
    batch: int | str = "n" if dynamic_batch else 1
    sides: list[int | str] = ["h", "w"] if dynamic_size else [SIZE, SIZE]
    model = make_model(
        network.nodes,
        [("image", TensorProto.FLOAT, [batch, 3, *sides])],
        [("logits", TensorProto.FLOAT, [batch, CLASSES])],
        initializers=network.initializers,
        opset=opset,
        metadata={"author": "the test suite"} if metadata is None else metadata,
    )
    onnx.checker.check_model(model)
    return model


def make_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Values,
    outputs: Values,
    *,
    initializers: dict[str, Array] | None = None,
    opset: int = 17,
    metadata: dict[str, str] | None = None,
) -> onnx.ModelProto:
    """A model from nodes; inputs and outputs as (name, element type, shape). Not checked, so that tests can build invalid ones."""
    graph = helper.make_graph(
        list(nodes),
        "main",
        [helper.make_tensor_value_info(*i) for i in inputs],
        [helper.make_tensor_value_info(*o) for o in outputs],
        [numpy_helper.from_array(a, name) for name, a in (initializers or {}).items()],
    )
    imports = [helper.make_opsetid("", opset)]
    known = opset <= onnx.defs.onnx_opset_version()
    model = helper.make_model(
        graph, opset_imports=imports, ir_version=max(4, helper.find_min_ir_version_for(imports)) if known else onnx.IR_VERSION
    )
    helper.set_model_props(model, metadata or {})
    return model


class _Network:
    """Appends nodes in order; every method returns the name of the tensor it makes."""

    def __init__(self, seed: int, opset: int, named: bool) -> None:
        self.generator = np.random.default_rng(seed)
        self.opset = opset
        self.named = named
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, Array] = {}

    def add(self, op_type: str, name: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        output = output or f"{name}_output_0"
        self.nodes.append(helper.make_node(op_type, list(inputs), [output], name=name if self.named else "", **attributes))
        return output

    def constant(self, name: str, array: Array) -> str:
        self.initializers[name] = array
        return name

    def number(self, name: str, value: float) -> str:
        return self.constant(name, np.asarray(value, np.float32))

    def shape(self, name: str, sizes: Sequence[int]) -> str:
        return self.constant(name, np.asarray(sizes, np.int64))

    def weight(self, name: str, shape: tuple[int, ...]) -> str:
        fan_in = math.prod(shape[1:]) if len(shape) > 1 else 16
        return self.constant(name, (self.generator.standard_normal(shape) / math.sqrt(fan_in)).astype(np.float32))

    def conv_bn(self, name: str, x: str, inputs: int, outputs: int, *, size: int, stride: int = 1, group: int = 1) -> str:
        weight = self.weight(f"{name}.conv.weight", (outputs, inputs // group, size, size))
        x = self.add(
            "Conv",
            f"{name}/conv/Conv",
            [x, weight],
            kernel_shape=[size, size],
            strides=[stride, stride],
            pads=[size // 2] * 4,
            group=group,
        )
        draw = self.generator.uniform
        statistics = {
            "weight": draw(1.0, 2.0, outputs),
            "bias": draw(-0.3, 0.3, outputs),
            "mean": draw(-0.2, 0.2, outputs),
            "var": draw(0.4, 1.2, outputs),
        }
        names = [self.constant(f"{name}.bn.{part}", values.astype(np.float32)) for part, values in statistics.items()]
        return self.add("BatchNormalization", f"{name}/bn/BatchNormalization", [x, *names], epsilon=1e-5)

    def silu(self, name: str, x: str) -> str:
        return self.add("Mul", f"{name}/Mul", [x, self.add("Sigmoid", f"{name}/Sigmoid", [x])])

    def linear(self, name: str, x: str, inputs: int, outputs: int) -> str:
        weight = self.constant(f"{name}.weight", self._matrix(inputs, outputs))
        bias = self.weight(f"{name}.bias", (outputs,))
        return self.add("Add", f"{name}/Add", [bias, self.add("MatMul", f"{name}/MatMul", [x, weight])])

    def _matrix(self, inputs: int, outputs: int) -> Array:
        return (self.generator.standard_normal((inputs, outputs)) / math.sqrt(inputs)).astype(np.float32)

    def mean(self, name: str, x: str) -> str:
        if self.opset >= 18:
            return self.add("ReduceMean", name, [x, self.shape(f"{name}.axes", [-1])], keepdims=1)
        return self.add("ReduceMean", name, [x], axes=[-1], keepdims=1)

    def layer_norm(self, name: str, x: str) -> str:
        scale = self.constant(f"{name}.weight", self.generator.uniform(0.7, 1.3, TOKEN_WIDTH).astype(np.float32))
        bias = self.constant(f"{name}.bias", self.generator.uniform(-0.2, 0.2, TOKEN_WIDTH).astype(np.float32))
        if self.opset >= 17:
            return self.add("LayerNormalization", f"{name}/LayerNormalization", [x, scale, bias], axis=-1, epsilon=1e-5)
        centred = self.add("Sub", f"{name}/Sub", [x, self.mean(f"{name}/ReduceMean", x)])
        square = self.add("Pow", f"{name}/Pow", [centred, self.number(f"{name}.two", 2.0)])
        variance = self.add("Add", f"{name}/Add", [self.mean(f"{name}/ReduceMean_1", square), self.number(f"{name}.epsilon", 1e-5)])
        normal = self.add("Div", f"{name}/Div", [centred, self.add("Sqrt", f"{name}/Sqrt", [variance])])
        return self.add("Add", f"{name}/Add_1", [self.add("Mul", f"{name}/Mul", [normal, scale]), bias])

    def attention(self, name: str, x: str) -> str:
        width = TOKEN_WIDTH // HEADS
        split = self.shape(f"{name}.split", [0, -1, HEADS, width])
        parts = {}
        for part, perm in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
            projected = self.linear(f"{name}/{part}", x, TOKEN_WIDTH, TOKEN_WIDTH)
            heads = self.add("Reshape", f"{name}/{part}/Reshape", [projected, split])
            parts[part] = self.add("Transpose", f"{name}/{part}/Transpose", [heads], perm=perm)
        scores = self.add("MatMul", f"{name}/MatMul", [parts["query"], parts["key"]])
        scores = self.add("Div", f"{name}/Div", [scores, self.number(f"{name}.scale", math.sqrt(width))])
        scores = self.add("Softmax", f"{name}/Softmax", [scores], axis=3)
        mixed = self.add("MatMul", f"{name}/MatMul_1", [scores, parts["value"]])
        mixed = self.add("Transpose", f"{name}/Transpose", [mixed], perm=[0, 2, 1, 3])
        mixed = self.add("Reshape", f"{name}/Reshape", [mixed, self.shape(f"{name}.join", [0, -1, TOKEN_WIDTH])])
        return self.linear(f"{name}/project", mixed, TOKEN_WIDTH, TOKEN_WIDTH)

    def gelu(self, name: str, x: str) -> str:
        if self.opset >= 20:
            return self.add("Gelu", f"{name}/Gelu", [x])
        erf = self.add("Erf", f"{name}/Erf", [self.add("Div", f"{name}/Div", [x, self.number(f"{name}.sqrt2", math.sqrt(2.0))])])
        shifted = self.add("Add", f"{name}/Add", [erf, self.number(f"{name}.one", 1.0)])
        return self.add("Mul", f"{name}/Mul_1", [self.add("Mul", f"{name}/Mul", [x, shifted]), self.number(f"{name}.half", 0.5)])

    def mlp(self, name: str, x: str) -> str:
        hidden = self.gelu(f"{name}/act", self.linear(f"{name}/fc1", x, TOKEN_WIDTH, 2 * TOKEN_WIDTH))
        return self.linear(f"{name}/fc2", hidden, 2 * TOKEN_WIDTH, TOKEN_WIDTH)


def conditional(*, constant: bool) -> onnx.ModelProto:
    """A graph ``y = relu(x) if condition else -x``."""

    def branch(op_type: str) -> onnx.GraphProto:
        return helper.make_graph(
            [helper.make_node(op_type, ["x"], [f"{op_type}_y"])], op_type, [], [helper.make_tensor_value_info(f"{op_type}_y", 1, (2, 3))]
        )

    nodes = [helper.make_node("If", ["condition"], ["y"], name="/choice/If", then_branch=branch("Relu"), else_branch=branch("Neg"))]
    inputs = [helper.make_tensor_value_info("x", 1, (2, 3))]
    initializers = []
    if constant:
        initializers = [onnx.numpy_helper.from_array(np.asarray(True), "condition")]
    else:
        nodes = [
            helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
            helper.make_node("Cast", ["sum"], ["condition"], to=onnx.TensorProto.BOOL),
            *nodes,
        ]
    graph = helper.make_graph(nodes, "conditional", inputs, [helper.make_tensor_value_info("y", 1, (2, 3))], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
